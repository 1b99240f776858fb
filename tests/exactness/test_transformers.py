"""The product's vectors are those of transformers with the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exactness.checkpoints import write_clip, write_siglip
from exactness.layouts import write_second_layout
from exactness.references import Reference, least_cosine
from imagedex.core.errors import Conflict, ModelError
from imagedex.embedding.clip import ClipModel
from imagedex.embedding.runtimes import Runtime
from imagedex.models import _torch_export
from imagedex.models.export import export_checkpoint
from imagedex.models.text_axis import free_text_axis
from imagedex.testing.embedding_model import draw_picture

IMAGE_COSINE = 0.9999
TEXT_COSINE = 0.999999
SIZES = ((48, 48), (640, 480), (481, 639), (1200, 75), (31, 900), (7, 5), (1, 1), (1333, 1000))
TEXTS = (
    "",
    "cat",
    "A photo of a dog, isn't it 12?",
    "a photo of two red kites over the sea at dusk, seen from a cliff",
    "  white \n\t space  ",
    "ÉCOLE, naïve façade",
    "猫が好き",
    "\N{SMILING CAT FACE WITH OPEN MOUTH} \N{DOG FACE}",
    *(" ".join(["word"] * count) for count in (2, 7, 31, 60, 73, 74, 75, 76, 77, 78, 200)),
)
RUNTIMES = (Runtime.ONNXRUNTIME, Runtime.OPENVINO)


class Subject:
    """A checkpoint, and both layouts of it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.checkpoint = folder / "checkpoint"
        {"clip": write_clip, "siglip": write_siglip}[kind](self.checkpoint)
        self.reference = getattr(Reference, kind)(self.checkpoint)
        self.layouts = {"immich": folder / "exported", "transformers": folder / "second"}
        export_checkpoint(str(self.checkpoint), self.layouts["immich"])
        write_second_layout(
            self.checkpoint,
            self.reference.model,
            self.layouts["transformers"],
            length=self.reference.length,
        )


@pytest.fixture(scope="module", params=["clip", "siglip"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=["immich", "transformers"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_images_have_the_vectors_of_transformers(
    subject: Subject, layout: str, runtime: Runtime
) -> None:
    model = ClipModel.open(subject.layouts[layout], name="tiny", runtime=runtime)
    pictures = [draw_picture(number, size) for number, size in enumerate(SIZES)]
    pixels = np.stack([model.preprocess(picture) for picture in pictures])
    found = model.load_image_encoder(threads=2).encode_images(pixels)
    expected = subject.reference.images(pictures)
    assert least_cosine(found, expected) >= IMAGE_COSINE
    assert least_cosine(expected[1:], expected[:-1]) < IMAGE_COSINE  # They could differ.


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_texts_have_the_vectors_of_transformers(
    subject: Subject, layout: str, runtime: Runtime
) -> None:
    model = ClipModel.open(subject.layouts[layout], name="tiny", runtime=runtime)
    encoder = model.load_text_encoder(threads=2)
    expected = subject.reference.texts(TEXTS)
    together = encoder.encode_texts(TEXTS)
    assert least_cosine(together.vectors, expected) >= TEXT_COSINE
    alone = np.concatenate([encoder.encode_texts([text]).vectors for text in TEXTS])
    assert least_cosine(alone, expected) >= TEXT_COSINE
    assert least_cosine(expected[:3], expected[1:4]) < 0.999
    assert together.is_cut[-1]
    assert not together.is_cut[1]


def test_a_clip_with_its_weights_beside_the_graphs_takes_texts_at_their_own_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a checkpoint of more than two gigabytes has them.
    monkeypatch.setattr(_torch_export, "_MOST_INLINE_BYTES", 0)
    checkpoint = write_clip(tmp_path / "checkpoint")
    model = export_checkpoint(str(checkpoint), tmp_path / "out")
    assert model.specification.text.padded_length is None
    graph = tmp_path / "out" / "textual" / "model.onnx"
    assert graph.stat().st_size < 1_000_000 < graph.with_name("model.onnx.data").stat().st_size
    outcome = free_text_axis(graph, graph.with_name("free.onnx"))
    assert (outcome.is_dynamic, outcome.is_rewritten) == (True, False)


def test_a_clip_whose_config_names_the_old_end_token_is_exported_too(tmp_path: Path) -> None:
    # OpenAI's checkpoints say 2, by which transformers takes the largest id instead.
    checkpoint = write_clip(tmp_path / "checkpoint", end=2)
    model = export_checkpoint(str(checkpoint), tmp_path / "out")
    found = model.load_text_encoder(threads=1).encode_texts(TEXTS).vectors
    assert least_cosine(found, Reference.clip(checkpoint).texts(TEXTS)) >= TEXT_COSINE


def test_an_export_touches_no_directory_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(Conflict, match="is there already"):
        export_checkpoint(str(tmp_path), tmp_path / "out")


def test_a_failed_export_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoint = write_clip(tmp_path / "checkpoint")
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        export_checkpoint(str(checkpoint), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        export_checkpoint(str(tmp_path), tmp_path / "out")
