from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagedex.core.errors import ModelError
from imagedex.embedding import EmbeddingModel, ImageEncoder, TextEncoder
from imagedex.embedding.bundled import BundledModel
from imagedex.embedding.bundled.manifest import ASSETS, AssetManifest
from imagedex.embedding.bundled.query_forms import query_forms
from imagedex.testing.embedding_model import EmbeddingModelSuite, assert_alike

MOST_BYTES = 45_000_000


class TestBundledModel(EmbeddingModelSuite):
    @classmethod
    def make_model(cls) -> EmbeddingModel:
        return BundledModel()

    def test_no_texts_give_no_vectors(self, model: EmbeddingModel, texts: TextEncoder) -> None:
        assert texts.encode_texts([]).vectors.shape == (0, model.dim)

    def test_a_text_counts_up_to_the_models_limit_and_no_further(self, texts: TextEncoder) -> None:
        start = "dog " * 254
        first, second, shorter = texts.encode_texts([start + "cat", start + "ship", "dog"]).vectors
        assert_alike(first[None], second[None])
        assert first @ shorter < 0.999

    def test_a_very_long_text_is_cut_before_it_is_read(self, texts: TextEncoder) -> None:
        long, longer = texts.encode_texts(["cat " * 5_000, "cat " * 500_000]).vectors
        assert_alike(long[None], longer[None])

    @pytest.mark.parametrize("dtype", [np.float32, np.int64])
    def test_pixels_of_another_type_are_refused(
        self, images: ImageEncoder, dtype: type[np.generic]
    ) -> None:
        with pytest.raises(ValueError, match="uint8 pixels of shape"):
            images.encode_images(np.zeros((1, 224, 224, 3), dtype=dtype))

    def test_pixels_of_another_shape_are_refused(self, images: ImageEncoder) -> None:
        with pytest.raises(ValueError, match=r"\(1, 3, 224, 224\)"):
            images.encode_images(np.zeros((1, 3, 224, 224), dtype=np.uint8))

    def test_texts_of_like_meaning_are_closer_than_others(self, texts: TextEncoder) -> None:
        cat, kitten, lorry = texts.encode_texts(["a cat", "a kitten", "a lorry"]).vectors
        assert cat @ kitten > cat @ lorry + 0.3

    def test_no_threads_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one thread"):
            BundledModel().load_text_encoder(threads=0)


class TestLetterbox:
    def test_the_whole_picture_stands_in_the_middle_of_white(self) -> None:
        pixels = BundledModel().preprocess(Image.new("RGB", (200, 100), "red"))
        assert (pixels[:56] == 255).all()
        assert (pixels[168:] == 255).all()
        assert (pixels[56:168] == (255, 0, 0)).all()

    def test_a_grey_picture_becomes_colour(self) -> None:
        pixels = BundledModel().preprocess(Image.new("L", (10, 10), 77))
        assert (pixels == 77).all()

    def test_a_line_of_pixels_stays_visible(self) -> None:
        pixels = BundledModel().preprocess(Image.new("RGB", (1, 5000), "black"))
        assert (pixels != 255).any()


class TestQueryForms:
    @pytest.mark.parametrize(
        ("text", "bare"),
        [
            ("A cat.", "cat"),
            ("the cat", "cat"),
            ("Some blueberries!", "blueberries"),
            ("an  otter ", "otter"),
            ("dogs playing in a park.", "dogs playing in a park"),
        ],
    )
    def test_a_frame_gives_a_second_form_without_it(self, text: str, bare: str) -> None:
        assert query_forms(text) == [text, bare]

    @pytest.mark.parametrize("text", ["cat", " cat ", "", "  ", "...", "antelope", "theatre", "a"])
    def test_a_text_without_frame_has_one_form(self, text: str) -> None:
        assert query_forms(text) == [text]


class TestAssets:
    def test_every_file_is_what_the_manifest_says(self) -> None:
        manifest = AssetManifest.load()
        for asset in manifest.assets:
            content = (ASSETS / asset.file).read_bytes()
            assert len(content) == asset.size_bytes, asset.file
            assert hashlib.sha256(content).hexdigest() == asset.sha256, asset.file

    def test_the_manifest_lists_every_file(self) -> None:
        listed = {asset.file for asset in AssetManifest.load().assets}
        assert {path.name for path in ASSETS.iterdir()} == listed | {"manifest.json"}

    def test_all_files_together_stay_small(self) -> None:
        assert sum(path.stat().st_size for path in ASSETS.iterdir()) <= MOST_BYTES

    def test_every_source_has_a_version_and_a_licence(self) -> None:
        files = json.loads((ASSETS / "manifest.json").read_text())["files"]
        for entry in files:
            assert entry["sources"] or not entry["weights"], entry["file"]
            for source in entry["sources"]:
                assert source["package"]
                assert source["version"]
                assert source["licence"]

    @pytest.fixture
    def copied(self, tmp_path: Path) -> Path:
        return Path(shutil.copytree(ASSETS, tmp_path / "assets"))

    def test_a_damaged_graph_is_refused_when_its_half_is_loaded(self, copied: Path) -> None:
        path = copied / "image.onnx"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        model = BundledModel(copied)
        with pytest.raises(ModelError, match=r"image\.onnx is damaged.*Reinstall"):
            model.load_image_encoder(threads=1)
        encoder = model.load_text_encoder(threads=1)
        assert encoder.encode_texts(["cat"]).vectors.shape == (1, model.dim)

    @pytest.mark.parametrize("file", ["text.onnx", "tokenizer.json"])
    def test_a_missing_file_is_named(self, copied: Path, file: str) -> None:
        (copied / file).unlink()
        with pytest.raises(ModelError, match=rf"{file} cannot be read.*Reinstall"):
            BundledModel(copied).load_text_encoder(threads=1)

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"dim": 384, "files": [{}]}'])
    def test_a_damaged_manifest_is_refused(self, copied: Path, content: str) -> None:
        (copied / "manifest.json").write_text(content)
        with pytest.raises(ModelError, match=r"manifest\.json is damaged"):
            _ = BundledModel(copied).fingerprint

    def test_a_missing_manifest_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"manifest\.json cannot be read"):
            _ = BundledModel(tmp_path).dim

    def test_a_file_that_is_not_listed_is_refused(self) -> None:
        with pytest.raises(ModelError, match=r"does not list other\.onnx"):
            AssetManifest.load().read("other.onnx")

    @pytest.mark.parametrize(
        ("file", "load"), [("text.onnx", "load_text_encoder"), ("image.onnx", "load_image_encoder")]
    )
    def test_a_graph_that_the_runtime_cannot_load_is_a_model_error(
        self, copied: Path, file: str, load: str
    ) -> None:
        _replace(copied, file, b"no graph")
        with pytest.raises(ModelError, match=f"cannot load {file}"):
            getattr(BundledModel(copied), load)(threads=1)

    def test_a_tokenizer_that_cannot_be_parsed_is_a_model_error(self, copied: Path) -> None:
        _replace(copied, "tokenizer.json", b"{}")
        with pytest.raises(ModelError, match="tokenizer of the bundled model"):
            BundledModel(copied).load_text_encoder(threads=1)

    def test_other_weights_have_another_fingerprint(self, copied: Path) -> None:
        assert BundledModel(copied).fingerprint == BundledModel().fingerprint
        _replace(copied, "image.onnx", b"other weights")
        assert BundledModel(copied).fingerprint != BundledModel().fingerprint

    def test_another_licence_text_has_the_same_fingerprint(self, copied: Path) -> None:
        _replace(copied, "NOTICE.txt", b"other words")
        assert BundledModel(copied).fingerprint == BundledModel().fingerprint


def _replace(folder: Path, file: str, content: bytes) -> None:
    """Replace a file of the model and its digest in the manifest."""
    (folder / file).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(entry for entry in manifest["files"] if entry["file"] == file)
    entry["sha256"], entry["bytes"] = hashlib.sha256(content).hexdigest(), len(content)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_preprocessing_needs_no_model_runtime() -> None:
    script = (
        "import sys; from imagedex.embedding.bundled.preprocess import Letterbox; "
        "from PIL import Image; Letterbox(side=224)(Image.new('RGB', (3, 4))); "
        "assert 'onnxruntime' not in sys.modules; assert 'tokenizers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.shared
def test_captions_find_their_pictures(shared_eval: Path) -> None:
    with open(shared_eval / "captions.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    captions = np.array([row["caption"] for row in rows])
    model = BundledModel()
    pixels = []
    for row in rows:
        with Image.open(shared_eval / "images" / row["path"]) as opened:
            picture = opened.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        pixels.append(model.preprocess(Image.alpha_composite(white, picture).convert("RGB")))
    vectors = model.load_image_encoder(threads=2).encode_images(np.stack(pixels))
    queries = model.load_text_encoder(threads=2).encode_texts(captions.tolist()).vectors

    scores = queries @ vectors.T
    is_right = captions[:, None] == captions[None, :]
    best_right = np.where(is_right, scores, -np.inf).max(axis=1, keepdims=True)
    # A wrong picture of the same score counts as ranked before the right one.
    rank = ((scores >= best_right) & ~is_right).sum(axis=1) + 1
    assert (rank <= 1).mean() >= 0.27
    assert (rank <= 10).mean() >= 0.52
