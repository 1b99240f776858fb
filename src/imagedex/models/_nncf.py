"""Calibrated quantisation by NNCF: int8 weights and activations, their scales found on pictures.

https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import ModelError, StorageError
from imagedex.embedding import PixelArray
from imagedex.embedding.runtimes import PixelInput, forbid_telemetry


def quantise_calibrated(
    graph: Path, output: Path, *, pixels: PixelInput, vectors: str, pictures: Sequence[PixelArray]
) -> dict[str, str]:
    """Write the int8 form of the float32 ONNX file ``graph`` to ``output`` (.xml, and .bin).

    ``pictures`` are uint8, shape (height, width, 3), at least one; ``vectors`` names the output
    that is kept. Returns the versions of the packages that decide what comes out. Takes four
    to five times the memory of the graph (measured on ViT-B/32: 4.6). Raises ModelError, also
    when NNCF is not installed, and StorageError. Nothing of it is told to anybody: the library's
    telemetry is kept out.
    """
    nncf, ov = _import()
    model = ov.Core().read_model(graph)
    model = ov.Model(
        [result.input_value(0) for result in model.get_results()
         if vectors in result.input_value(0).get_names()],
        model.get_parameters(),
    )  # fmt: skip
    # Some graphs have the normalisation inside, as their input's type tells.
    takes_pixels = model.input(pixels.name).get_element_type() == ov.Type.u8
    edges = [pixels.height, pixels.width]
    model.reshape(
        {pixels.name: ov.PartialShape([-1, *edges, 3] if takes_pixels else [-1, 3, *edges])}
    )

    def model_input(picture: PixelArray) -> dict[str, NDArray[Any]]:
        return {pixels.name: picture[None] if takes_pixels else _normalised(picture, pixels)}

    dataset = nncf.Dataset(pictures, model_input)
    try:
        with _quiet():
            quantised = nncf.quantize(
                model,
                dataset,
                subset_size=len(pictures),
                model_type=nncf.ModelType.TRANSFORMER,
                # The same file whatever this machine's CPU is, since others may use it too.
                target_device=nncf.TargetDevice.CPU,
            )
    except (RuntimeError, ValueError, nncf.errors.NNCFError) as error:
        raise ModelError(
            f"NNCF {nncf.__version__} cannot quantise {str(graph)!r}: {error}. Use another method: "
            "--method dynamic"
        ) from error
    try:
        # In float16 what is not int8 would be smaller, and further from float32.
        ov.save_model(quantised, output, compress_to_fp16=False)
    except RuntimeError as error:  # "iostream error" is all that it tells of a full disk.
        raise StorageError(
            f"Could not write {str(output)!r}: {error}; make sure that there is room on the disk "
            "and try again."
        ) from error
    return {"nncf": nncf.__version__, "openvino": ov.__version__}


def is_installed() -> bool:
    """Return whether NNCF and OpenVINO can be imported, without importing them."""
    import importlib.util

    return all(importlib.util.find_spec(name) is not None for name in ("nncf", "openvino"))


def _import() -> tuple[Any, Any]:
    forbid_telemetry()
    try:
        import nncf
        import openvino as ov
    except ImportError as error:
        raise ModelError(
            f"Calibrated int8 needs NNCF and OpenVINO ({error}); install them by: pip install "
            "'imagedex[int8]', or use --method dynamic, which needs neither."
        ) from error
    return nncf, ov


def _normalised(picture: PixelArray, pixels: PixelInput) -> NDArray[np.float32]:
    mean, std = np.array(pixels.mean), np.array(pixels.std)
    floats = ((picture / 255 - mean) / std).astype(np.float32)
    return cast("NDArray[np.float32]", floats.transpose(2, 0, 1)[None])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars and advice of the library away from the command's results."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
