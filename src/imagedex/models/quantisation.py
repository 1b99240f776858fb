"""Making the int8 form of a model, once, from some of the user's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from imagedex.core.errors import InvalidRequest, ModelError
from imagedex.embedding import ImageEncoder, PixelArray
from imagedex.embedding.clip import ClipModel
from imagedex.embedding.clip.image_encoder import ClipImageEncoder
from imagedex.embedding.clip.int8_record import AgreementRecord, Int8Record, QuantisationMethod
from imagedex.embedding.runtimes import (
    Part,
    PixelInput,
    Precision,
    describe_graph,
    has_int8_dot_products,
    load_graph,
)
from imagedex.ingest import DecodeLimits
from imagedex.models import int8_files
from imagedex.models.agreement import NEIGHBOURS, Agreement, compare
from imagedex.models.disk import require_space
from imagedex.models.pictures import (
    decode_pictures,
    encode_by_both,
    open_decoder,
    pick_pictures,
)

Note = Callable[[str], None]
"""Who is told what goes on, a sentence at a time."""

_MOST_HELD_OUT: Final = 100
_SHARE_HELD_OUT: Final = 4  # One in so many, of a folder with few pictures.


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What was made."""

    image: Int8Record
    text: Int8Record
    fingerprint: str  # Of the images that the int8 form embeds.
    replaced: str | None  # The fingerprint of the int8 form that was there before.


def quantise(
    name: str,
    directory: Path,
    images: Path,
    *,
    count: int,
    method: QuantisationMethod | None,
    threads: int,
    limits: DecodeLimits,
    reduced_decoding: bool,
    on_note: Note,
) -> Quantisation:
    """Make the int8 form of the model in ``directory`` from pictures below ``images``.

    At most ``count`` of them calibrate it, if ``method`` needs any; others tell how far it agrees
    with float32. Without a method the faster one on this CPU is taken. Each half of the model is
    complete or untouched whenever this ends, or is ended. Raises ModelError, InvalidRequest,
    Conflict while another process does the same, and StorageError.
    """
    if count < 1:
        raise InvalidRequest(f"At least one picture is needed, not --count {count}.")
    model = ClipModel.open(directory, name=name, reduced_decoding=reduced_decoding)
    chosen = method or _best_method(on_note)
    calibrating, held_out = _pictures(
        model, images, count=count, method=chosen, threads=threads, limits=limits, on_note=on_note
    )
    with int8_files.only_quantiser(model.files.directory):
        replaced = _old_fingerprint(model)
        on_note("Making the text half.")
        text = _make(model, "text", QuantisationMethod.DYNAMIC, (), (), threads)
        on_note(f"Making the image half ({chosen}); this can take minutes.")
        image = _make(model, "image", chosen, calibrating, held_out, threads)
        fingerprint = _int8_form(model).fingerprint
    return Quantisation(image, text, fingerprint, replaced if replaced != fingerprint else None)


def _best_method(on_note: Note) -> QuantisationMethod:
    from imagedex.models import _nncf

    if not has_int8_dot_products():
        # Measured without them, ViT-L/14: 0.7 images/s calibrated, 1.37 dynamic, 0.86 float32.
        return QuantisationMethod.DYNAMIC
    if not _nncf.is_installed():
        on_note(
            "This CPU is faster with calibrated int8, which needs NNCF: pip install "
            "'imagedex[int8]'. Going on with dynamic int8."
        )
        return QuantisationMethod.DYNAMIC
    return QuantisationMethod.CALIBRATED


def _pictures(
    model: ClipModel,
    images: Path,
    *,
    count: int,
    method: QuantisationMethod,
    threads: int,
    limits: DecodeLimits,
    on_note: Note,
) -> tuple[list[PixelArray], list[PixelArray]]:
    """Return those that calibrate, and those that are held out from it."""
    is_calibrated = method is QuantisationMethod.CALIBRATED
    paths = pick_pictures(images, (count if is_calibrated else 0) + _MOST_HELD_OUT)
    on_note(f"Reading {len(paths)} pictures.")
    with open_decoder(model, images, threads=threads, limits=limits) as decoder:
        pictures = list(decode_pictures(decoder, paths, lambda _done: None))
    if not pictures:
        raise InvalidRequest(
            f"None of {len(paths)} image files below {str(images)!r} can be read; check --images."
        )
    if len(pictures) < len(paths):
        on_note(f"{len(paths) - len(pictures)} of them cannot be read and are left out.")
    if not is_calibrated:
        return [], pictures
    held_out = min(_MOST_HELD_OUT, len(pictures) // _SHARE_HELD_OUT)
    if held_out <= NEIGHBOURS:
        on_note(
            f"{len(pictures)} pictures are few: some hundred calibrate better, and "
            f"{_SHARE_HELD_OUT * (NEIGHBOURS + 1)} are needed to compare the ten nearest."
        )
    return pictures[held_out:][:count], pictures[:held_out]


def _make(
    model: ClipModel,
    part: Part,
    method: QuantisationMethod,
    calibrating: Sequence[PixelArray],
    held_out: Sequence[PixelArray],
    threads: int,
) -> Int8Record:
    graph = model.files.graph(part, Precision.FP32)
    with int8_files.work_folder(graph) as work:
        if method is QuantisationMethod.DYNAMIC:
            # A picture fills the cores alone, and scales for each of its patches only cost time.
            made, versions = _make_dynamic(graph, work, scale_rows=part == "text")
        else:
            made, versions = _make_calibrated(model, graph, work, calibrating)
        agreement = _agreement(model, made[0], held_out, threads) if held_out else None
        record = Int8Record(
            method=method,
            files=int8_files.describe_files(made),
            calibration_images=len(calibrating),
            versions=versions,
            agreement=None if agreement is None else AgreementRecord(**asdict(agreement)),
        )
        int8_files.publish_int8(graph, work, record)
    return record


def _make_dynamic(
    graph: Path, work: Path, *, scale_rows: bool
) -> tuple[list[Path], dict[str, str]]:
    from imagedex.models import _dynamic_int8

    output = work / int8_files.new_name(graph, ".onnx")
    source = int8_files.link_graph(graph, work / "source")
    # The library makes a second copy on the way, and does not say when a disk cuts it off.
    require_space(work, 2 * sum(file.stat().st_size for file in source.parent.rglob("*.*")))
    _dynamic_int8.quantise_dynamically(source, output, scale_rows=scale_rows)
    return [output, *describe_graph(output).weight_files], _dynamic_int8.versions()


def _make_calibrated(
    model: ClipModel, graph: Path, work: Path, calibrating: Sequence[PixelArray]
) -> tuple[list[Path], dict[str, str]]:
    from imagedex.models import _nncf

    output = work / int8_files.new_name(graph, ".xml")
    require_space(work, graph.stat().st_size)
    versions = _nncf.quantise_calibrated(
        graph,
        output,
        pixels=_pixel_input(model),
        vectors=model.specification.image_ports.output,
        pictures=calibrating,
    )
    # Read again, so that what a full disk has cut off is found before it counts.
    return [output, *describe_graph(output).weight_files], versions


def _agreement(
    model: ClipModel, made: Path, held_out: Sequence[PixelArray], threads: int
) -> Agreement | None:
    candidate = load_graph(
        made,
        threads=threads,
        precision=Precision.INT8,
        output=model.specification.image_ports.output,
        pixels=_pixel_input(model),
    )
    other: ImageEncoder = ClipImageEncoder(candidate, spec=model.specification.image, dim=model.dim)
    vectors = encode_by_both(iter(held_out), model.load_image_encoder(threads=threads), other)
    return None if vectors is None else compare(vectors.reference, vectors.other)


def _pixel_input(model: ClipModel) -> PixelInput:
    spec = model.specification.image
    return PixelInput(
        name=model.specification.image_ports.pixels,
        mean=spec.mean,
        std=spec.std,
        height=spec.height,
        width=spec.width,
    )


def _int8_form(model: ClipModel) -> ClipModel:
    return ClipModel.open(
        model.files.directory,
        name=model.name,
        precision=Precision.INT8,
        reduced_decoding=model.preprocess.reduced_decoding,
    )


def _old_fingerprint(model: ClipModel) -> str | None:
    try:
        return _int8_form(model).fingerprint
    except ModelError:
        return None  # There is none yet, or a damaged one, which is about to be replaced.
