from __future__ import annotations

import subprocess
import sys

import pytest

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes import Part, Precision, Runtime, resolve_runtime, supports
from imagedex.embedding.runtimes.support import parse_cpu_flags

EVERY = [(precision, part) for precision in Precision for part in ("image", "text")]


@pytest.mark.parametrize(("precision", "part"), EVERY)
def test_auto_resolves_to_what_this_machine_supports_or_says_why_not(
    precision: Precision, part: Part
) -> None:
    reason = supports(precision, Runtime.AUTO)
    if reason is None:
        chosen = resolve_runtime(Runtime.AUTO, precision, part)
        assert chosen in (Runtime.OPENVINO, Runtime.ONNXRUNTIME)
        assert supports(precision, chosen) is None
    else:
        assert precision is Precision.BF16  # The others are possible everywhere.
        with pytest.raises(ModelError, match=f"{precision} cannot be used"):
            resolve_runtime(Runtime.AUTO, precision, part)


@pytest.mark.parametrize("part", ["image", "text"])
def test_a_runtime_that_was_asked_for_is_the_one_that_is_taken(part: Part) -> None:
    for runtime in (Runtime.OPENVINO, Runtime.ONNXRUNTIME):
        if supports(Precision.FP32, runtime) is None:
            assert resolve_runtime(runtime, Precision.FP32, part) is runtime


def test_texts_are_for_onnx_runtime() -> None:
    assert resolve_runtime(Runtime.AUTO, Precision.FP32, "text") is Runtime.ONNXRUNTIME


def test_onnx_runtime_refuses_bfloat16_and_names_what_works() -> None:
    with pytest.raises(ModelError, match=r"bf16 cannot be used with onnxruntime.*fp32 or int8"):
        resolve_runtime(Runtime.ONNXRUNTIME, Precision.BF16, "image")


def test_cuda_without_its_package_names_the_extra() -> None:
    reason = supports(Precision.FP32, Runtime.CUDA)
    if reason is not None:  # A developer's machine may have it.
        assert "imagedex[cuda]" in reason
        with pytest.raises(ModelError, match="cuda here"):
            resolve_runtime(Runtime.CUDA, Precision.FP32, "image")


def test_cpu_flags_are_those_of_the_first_cpu() -> None:
    facts = "processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    assert parse_cpu_flags(facts) == {"fpu", "avx2", "avx512_vnni"}
    assert parse_cpu_flags("Features\t: asimd\n") == frozenset()


def test_importing_the_room_loads_no_runtime() -> None:
    script = (
        "import sys; import imagedex.embedding.runtimes; "
        "assert not {'onnxruntime', 'openvino', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
