"""What int8 does to real weights on real pictures: the bundled model, by the product's own hand.

No CLIP weights can be had in a test, so both halves of the bundled model are quantised by the
functions that quantise CLIP's: the image half (a convolutional network) by calibration, the text
half (a transformer) dynamically, which is what each method is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnxruntime as ort

from bench.figures import Bench
from imagedex.embedding import PixelArray
from imagedex.embedding.bundled import BundledModel
from imagedex.embedding.bundled.image_encoder import BundledImageEncoder
from imagedex.embedding.bundled.manifest import ASSETS
from imagedex.embedding.bundled.text_encoder import BundledTextEncoder
from imagedex.embedding.runtimes import PIXELS, PixelInput, Precision, load_graph
from imagedex.embedding.runtimes._onnxruntime import OnnxRuntimeGraph
from imagedex.ingest import DecodeLimits
from imagedex.models._dynamic_int8 import quantise_dynamically
from imagedex.models._nncf import quantise_calibrated
from imagedex.models.agreement import Agreement, compare
from imagedex.models.pictures import decode_pictures, encode_by_both, open_decoder, pick_pictures
from imagedex.search.captions import read_captions
from support.pictures import draw_pictures

_CALIBRATING = 130
_DRAWN = 260
# The graph normalises by itself, so these are not used.
_PIXELS = PixelInput(PIXELS, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 224, 224)


@dataclass(frozen=True)
class PrecisionFigures:
    """How far int8 agrees with float32."""

    images: Agreement  # Calibrated on other pictures of the same folder.
    texts: Agreement | None  # Captions among each other; None without the evaluation set.
    is_real: bool  # Whether the pictures are those of the evaluation set.


def agreement(bench: Bench) -> None:
    """Report how far int8 agrees with float32, for both halves."""
    folder = bench.scratch / "precision"
    folder.mkdir()
    figures = int8_agreement(bench.evaluation, folder)
    pictures = "evaluation pictures" if figures.is_real else "drawn pictures"
    for half, method, found in (
        (f"bundled image half, {pictures}", "calibrated", figures.images),
        ("bundled text half, captions", "dynamic", figures.texts),
    ):
        if found is not None:
            bench.report(f"int8 {method}, {half}: mean cosine", found.mean_cosine, "")
            if found.top10 is not None:
                bench.report(f"int8 {method}, {half}: top-10 agreement", found.top10, "")


def int8_agreement(evaluation: Path, scratch: Path) -> PrecisionFigures:
    """Quantise the bundled model below ``scratch`` and compare it with itself in float32.

    The pictures are those of ``evaluation``, half of which calibrate and half of which compare;
    where there is no such folder, pictures are drawn.
    """
    is_real = evaluation.is_dir()
    folder = evaluation / "images" if is_real else scratch / "drawn"
    if not is_real:
        draw_pictures(folder, _DRAWN)
    return PrecisionFigures(
        images=_images(folder, scratch),
        texts=_texts(evaluation / "captions.tsv", scratch) if is_real else None,
        is_real=is_real,
    )


def _images(folder: Path, scratch: Path) -> Agreement:
    model = BundledModel()
    with open_decoder(model, folder, threads=2, limits=DecodeLimits()) as decoder:
        pictures: list[PixelArray] = list(
            decode_pictures(decoder, pick_pictures(folder, 10_000), lambda _done: None)
        )
    graph = _in_float32(ASSETS / "image.onnx", scratch)
    output = scratch / "image_int8.xml"
    quantise_calibrated(
        graph, output, pixels=_PIXELS, vectors="vectors", pictures=pictures[:_CALIBRATING]
    )
    quantised = load_graph(
        output, threads=2, precision=Precision.INT8, output="vectors", pixels=_PIXELS
    )
    vectors = encode_by_both(
        iter(pictures[_CALIBRATING:]),
        model.load_image_encoder(threads=2),
        # Any runner with its input under that name does; the product has no other for it.
        BundledImageEncoder(
            cast("OnnxRuntimeGraph", quantised), input_shape=model.input_shape, dim=model.dim
        ),
    )
    assert vectors is not None
    return compare(vectors.reference, vectors.other)


def _texts(captions: Path, scratch: Path) -> Agreement:
    model = BundledModel()
    texts = sorted({entry.caption for entry in read_captions(captions)})
    (scratch / "text").mkdir(exist_ok=True)
    graph = _in_float32(ASSETS / "text.onnx", scratch / "text")
    output = scratch / "text_int8.onnx"
    quantise_dynamically(graph, output, scale_rows=True)
    encoder = BundledTextEncoder(
        OnnxRuntimeGraph(output, name=output.name, threads=2),
        tokenizer=(ASSETS / "tokenizer.json").read_bytes(),
        dim=model.dim,
    )
    whole = model.load_text_encoder(threads=2)
    reference, other = (one.encode_texts(texts).vectors for one in (whole, encoder))
    return compare(reference, other)


def _in_float32(graph: Path, folder: Path) -> Path:
    """Return a copy whose weights are stored in float32, as published CLIP graphs store them."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / graph.name)
    options.log_severity_level = 3
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return folder / graph.name
