"""Which runtime can compute what on this machine, and which one is chosen."""

from __future__ import annotations

import functools
import importlib.util
import platform
from pathlib import Path
from typing import Final

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes.interfaces import Part, Precision, Runtime

_CPU_FACTS: Final = Path("/proc/cpuinfo")
_INT8_DOT_PRODUCTS: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""The kernel's names of the CPU features that multiply and add four int8 pairs at once."""


def supports(precision: Precision, runtime: Runtime) -> str | None:
    """Return None when this machine can compute in ``precision`` with ``runtime``.

    Otherwise a sentence that says why not and what would help. AUTO can whatever any runtime
    for CPUs can.
    """
    match runtime:
        case Runtime.OPENVINO:
            return _openvino_lacks(precision)
        case Runtime.ONNXRUNTIME:
            return _onnxruntime_lacks(precision)
        case Runtime.CUDA:
            return _cuda_lacks(precision)
        case Runtime.AUTO:
            reasons = [_openvino_lacks(precision), _onnxruntime_lacks(precision)]
            return None if None in reasons else reasons[0]


def has_int8_dot_products() -> bool:
    """Return whether this CPU has instructions that make calibrated int8 the fastest form."""
    return bool(_cpu_flags() & _INT8_DOT_PRODUCTS)


def resolve_runtime(runtime: Runtime, precision: Precision, part: Part) -> Runtime:
    """Return what runs this half of a model: ``runtime``, or for AUTO the best on this machine.

    Raises ModelError when that cannot compute in ``precision`` here. AUTO is never CUDA: the
    package for it is there on machines without a GPU too, and a GPU may be meant for others.
    """
    chosen = _best_on_cpu(precision, part) if runtime is Runtime.AUTO else runtime
    reason = supports(precision, chosen)
    if reason is not None:
        raise ModelError(f"Precision {precision} cannot be used with {chosen} here: {reason}")
    return chosen


def _best_on_cpu(precision: Precision, part: Part) -> Runtime:
    """Return the faster of two runtimes, as measured with OpenAI's ViT-L/14 and ViT-B/32."""
    if precision is Precision.BF16:
        return Runtime.OPENVINO  # The only one that computes in it.
    if part == "text":
        # One query of eight tokens: 22 ms in ONNX Runtime, 29 ms in OpenVINO.
        return Runtime.ONNXRUNTIME
    if platform.machine() not in {"x86_64", "AMD64"} or not _has_openvino():
        return Runtime.ONNXRUNTIME
    if precision is Precision.INT8 and not has_int8_dot_products():
        # Without those instructions OpenVINO's int8 is no faster than its float32, whereas
        # ONNX Runtime's is 1.6 times as fast. With them OpenVINO leads by a quarter and more.
        return Runtime.ONNXRUNTIME
    return Runtime.OPENVINO


def _openvino_lacks(precision: Precision) -> str | None:
    if not _has_openvino():
        return "OpenVINO is not installed; `pip install openvino` where there is a wheel of it."
    if precision is Precision.BF16:
        from imagedex.embedding.runtimes._openvino import cpu_capabilities

        if "BF16" not in cpu_capabilities():
            return (
                "this CPU has no bfloat16 arithmetic (AVX512-BF16 or AMX); use fp32 or int8, "
                "set by IMAGEDEX_EMBEDDING__PRECISION."
            )
    return None


def _onnxruntime_lacks(precision: Precision) -> str | None:
    if precision is Precision.BF16:
        return "ONNX Runtime does not compute in bfloat16 on CPUs; use fp32 or int8, or OpenVINO."
    return None


def _cuda_lacks(precision: Precision) -> str | None:
    from imagedex.embedding.runtimes._onnxruntime import has_cuda

    if not has_cuda():
        return (
            "the installed onnxruntime has no CUDA provider; `pip install 'imagedex[cuda]'` after "
            "`pip uninstall onnxruntime`, as the two packages share one folder."
        )
    if precision is not Precision.FP32:
        return "graphs run on CUDA in fp32 only; set IMAGEDEX_EMBEDDING__PRECISION to it."
    return None


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


@functools.cache
def _cpu_flags() -> frozenset[str]:
    try:
        facts = _CPU_FACTS.read_text()
    except OSError:  # Not Linux: the safe answer is a CPU without extras.
        return frozenset()
    return parse_cpu_flags(facts)


def parse_cpu_flags(facts: str) -> frozenset[str]:
    """Return the features of the first CPU in the text of /proc/cpuinfo."""
    for line in facts.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
