"""Real int8 forms of tiny models."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from imagedex.core.errors import InvalidRequest, ModelError
from imagedex.embedding.clip import ClipModel
from imagedex.embedding.clip.int8_record import QuantisationMethod
from imagedex.embedding.runtimes import Precision, Runtime, has_int8_dot_products
from imagedex.ingest import DecodeLimits
from imagedex.models.precision_check import check_precision
from imagedex.models.quantisation import Quantisation, quantise
from support.children import child
from support.pictures import draw_pictures
from support.tiny_models import write_tiny_clip, write_tiny_siglip

TEXTS = ["a dog", "two dogs playing in a park", "a very long text about nothing " * 9, ""]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder, 48)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def make(
    directory: Path, pictures: Path, method: QuantisationMethod | None, notes: list[str]
) -> Quantisation:
    return quantise(
        "tiny",
        directory,
        pictures,
        count=24,
        method=method,
        threads=1,
        limits=DecodeLimits(),
        reduced_decoding=True,
        on_note=notes.append,
    )


def opened(
    directory: Path, precision: Precision = Precision.INT8, runtime: Runtime = Runtime.AUTO
) -> ClipModel:
    return ClipModel.open(directory, name="tiny", precision=precision, runtime=runtime)


def pixels_for(model: ClipModel, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    chance = np.random.default_rng(0)
    return chance.integers(0, 256, (count, *model.input_shape), dtype=np.uint8)


@pytest.mark.parametrize(
    ("layout", "method"),
    [
        ("immich", QuantisationMethod.CALIBRATED),
        ("immich", QuantisationMethod.DYNAMIC),
        ("transformers", QuantisationMethod.DYNAMIC),
    ],
)
def test_an_int8_form_agrees_with_float32_and_no_row_depends_on_its_batch(
    tmp_path: Path, pictures: Path, layout: str, method: QuantisationMethod
) -> None:
    write = write_tiny_clip if layout == "immich" else write_tiny_siglip
    directory = write(tmp_path / "tiny", "immich" if layout == "immich" else "transformers")
    notes: list[str] = []
    made = make(directory, pictures, method, notes)

    whole, model = opened(directory, Precision.FP32), opened(directory)
    assert model.fingerprint == made.fingerprint != whole.fingerprint
    assert made.replaced is None
    assert made.image.method is method
    assert made.text.method is QuantisationMethod.DYNAMIC
    agreement = made.image.agreement
    assert agreement is not None
    assert agreement.mean_cosine > 0.95
    if method is QuantisationMethod.CALIBRATED:
        # No picture counts both ways: 12 of 48 readable ones are held out.
        assert (agreement.images, made.image.calibration_images) == (12, 24)
    else:
        assert (agreement.images, made.image.calibration_images) == (48, 0)
    assert any("1 of them cannot be read" in note for note in notes)

    encoder = model.load_image_encoder(threads=1)
    pixels = pixels_for(model, 5)
    together = encoder.encode_images(pixels)
    alone = np.concatenate([encoder.encode_images(pixels[row : row + 1]) for row in range(5)])
    assert np.abs(together - alone).max() < 1e-5
    cosines = (together * whole.load_image_encoder(threads=1).encode_images(pixels)).sum(axis=1)
    # Noise is nothing like the pictures, so that it may be far; but it must not be float32 itself.
    assert 0.7 < cosines.min() < 0.999999

    reader = model.load_text_encoder(threads=1)
    together = reader.encode_texts(TEXTS).vectors
    alone = np.concatenate([reader.encode_texts([text]).vectors for text in TEXTS])
    assert np.array_equal(together, alone)
    wholes = whole.load_text_encoder(threads=1).encode_texts(TEXTS).vectors
    cosines = (together * wholes).sum(axis=1)
    assert cosines.min() > 0.98


def test_the_method_that_is_faster_here_is_taken(tmp_path: Path, pictures: Path) -> None:
    made = make(write_tiny_clip(tmp_path / "tiny"), pictures, None, [])
    expected = "calibrated" if has_int8_dot_products() else "dynamic"
    assert made.image.method.value == expected


def test_another_form_has_another_fingerprint_and_the_same_form_the_same(
    tmp_path: Path, pictures: Path
) -> None:
    directory = write_tiny_clip(tmp_path / "tiny")
    first = make(directory, pictures, QuantisationMethod.DYNAMIC, [])
    same = make(directory, pictures, QuantisationMethod.DYNAMIC, [])
    assert (same.fingerprint, same.replaced) == (first.fingerprint, None)
    encoded = opened(directory)
    assert encoded.fingerprint == first.fingerprint
    other = make(directory, pictures, QuantisationMethod.CALIBRATED, [])
    assert other.fingerprint != first.fingerprint
    assert other.replaced == first.fingerprint
    # Who has found the fingerprint before must not make vectors of the new form under it.
    with pytest.raises(ModelError, match=first.fingerprint):
        encoded.load_image_encoder(threads=1)


def test_a_form_runs_in_the_runtime_that_it_was_made_for_alone(
    tmp_path: Path, pictures: Path
) -> None:
    directory = write_tiny_clip(tmp_path / "tiny")
    for method, wrong in (
        (QuantisationMethod.DYNAMIC, Runtime.OPENVINO),
        (QuantisationMethod.CALIBRATED, Runtime.ONNXRUNTIME),
    ):
        make(directory, pictures, method, [])
        model = opened(directory, runtime=wrong)
        with pytest.raises(ModelError, match=r"imagedex models quantize NAME .* --method"):
            model.load_image_encoder(threads=1)
        # The text half is for ONNX Runtime, whatever computes the pictures.
        model.load_text_encoder(threads=1)


def test_without_an_int8_form_the_command_that_makes_it_is_named(tmp_path: Path) -> None:
    directory = write_tiny_clip(tmp_path / "tiny")
    with pytest.raises(ModelError, match=f"imagedex models quantize {directory} --images DIR"):
        opened(directory)


def test_pictures_that_are_few_or_unreadable_are_told(tmp_path: Path) -> None:
    directory = write_tiny_clip(tmp_path / "tiny")
    few = tmp_path / "few"
    draw_pictures(few, 3)
    notes: list[str] = []
    made = make(directory, few, QuantisationMethod.CALIBRATED, notes)
    assert made.image.agreement is None
    assert made.image.calibration_images == 3
    assert any("3 pictures are few" in note for note in notes)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "one.jpg").write_bytes(b"no picture")
    with pytest.raises(InvalidRequest, match="None of 1 image files"):
        make(directory, broken, None, [])
    assert opened(directory).fingerprint == made.fingerprint


def test_a_precision_is_compared_on_pictures_of_a_folder(tmp_path: Path, pictures: Path) -> None:
    directory = write_tiny_clip(tmp_path / "tiny")
    make(directory, pictures, QuantisationMethod.DYNAMIC, [])
    whole = opened(directory, Precision.FP32)
    for model, least in ((opened(directory), 0.9), (whole, 1.0)):
        check = check_precision(whole, model, pictures, count=100, threads=1, limits=DecodeLimits())
        assert (check.agreement.images, check.failed) == (48, 1)
        assert check.agreement.min_cosine >= least - 1e-5
        assert check.agreement.top10 is not None
    assert check.agreement.top10 == 1.0


QUANTISE = """
    import sys
    from pathlib import Path
    from imagedex.embedding.clip.int8_record import QuantisationMethod
    from imagedex.ingest import DecodeLimits
    from imagedex.models.quantisation import quantise

    quantise(
        "tiny", Path(sys.argv[1]), Path(sys.argv[2]), count=24,
        method=QuantisationMethod(sys.argv[3]), threads=1, limits=DecodeLimits(),
        reduced_decoding=True, on_note=print,
    )
"""


@pytest.mark.parametrize("method", list(QuantisationMethod))
def test_a_kill_while_files_are_made_leaves_the_old_form_and_nothing_in_the_way(
    tmp_path: Path, pictures: Path, method: QuantisationMethod
) -> None:
    directory = write_tiny_clip(tmp_path / "tiny")
    before = make(directory, pictures, QuantisationMethod.DYNAMIC, [])
    with child(QUANTISE, directory, pictures, method) as process:
        deadline = time.monotonic() + 120
        while not list(directory.glob("visual/.quantising-*/*")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
        process.kill()
        process.wait()
    # Killed before it was published, or after: the form that is there is whole either way.
    model = opened(directory)
    if method is QuantisationMethod.DYNAMIC:
        assert model.fingerprint == before.fingerprint
    model.load_image_encoder(threads=1).encode_images(pixels_for(model, 1))
    make(directory, pictures, method, [])
    assert not list(directory.glob("**/.quantising-*"))
    assert len(list(directory.glob("visual/model_int8-*"))) == (
        1 if method is QuantisationMethod.DYNAMIC else 2
    )


FULL = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from imagedex.core.errors import ImagedexError
    from imagedex.embedding.runtimes import PixelInput
    from imagedex.models._dynamic_int8 import quantise_dynamically
    from imagedex.models._nncf import quantise_calibrated

    graph, output, third = Path(sys.argv[1]), Path(sys.argv[2]), (0.5, 0.5, 0.5)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        if output.suffix == ".onnx":
            quantise_dynamically(graph, output, scale_rows=True)
        else:
            picture = np.zeros((32, 32, 3), dtype=np.uint8)
            quantise_calibrated(
                graph, output, pictures=[picture], vectors="embedding",
                pixels=PixelInput("image", third, third, 32, 32),
            )
    except ImagedexError as error:
        print(error)
"""


@pytest.mark.parametrize("output", ["made.onnx", "made.xml"])
def test_a_disk_that_takes_no_more_is_told(tmp_path: Path, output: str) -> None:
    directory = write_tiny_clip(tmp_path / "tiny")
    graph = directory / "visual" / "model.onnx"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(graph), str(tmp_path / output)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "there is room on the disk" in done.stdout
