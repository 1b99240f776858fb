from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.files import find_model_files, int8_record_path
from imagedex.embedding.runtimes import Precision
from support.tiny_models import Layout, write_tiny_clip


@pytest.mark.parametrize("layout", ["immich", "transformers"])
def test_the_files_of_a_layout_are_found(tmp_path: Path, layout: Layout) -> None:
    files = find_model_files(write_tiny_clip(tmp_path, layout))
    assert files.layout == layout
    named = (files.config, files.image_graph, files.image_preprocess, files.text_graph)
    assert all(path.is_file() for path in (*named, files.tokenizer, files.tokenizer_config))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("layout", "missing"),
    [
        ("immich", "config.json"),
        ("immich", "visual/preprocess_cfg.json"),
        ("immich", "textual/tokenizer.json"),
        ("transformers", "config.json"),
        ("transformers", "preprocessor_config.json"),
        ("transformers", "tokenizer.json"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, layout: Layout, missing: str) -> None:
    (write_tiny_clip(tmp_path, layout) / missing).unlink()
    with pytest.raises(ModelError, match=rf"lacks {missing}.*pull the model again"):
        find_model_files(tmp_path)


@pytest.mark.parametrize(
    ("layout", "graph", "half"),
    [
        ("immich", "visual/model.onnx", "image"),
        ("transformers", "onnx/text_model.onnx", "text"),
    ],
)
def test_a_missing_graph_tells_both_layouts(
    tmp_path: Path, layout: Layout, graph: str, half: str
) -> None:
    (write_tiny_clip(tmp_path, layout) / graph).unlink()
    with pytest.raises(ModelError, match=f"no {half} half.*model.onnx.*_model.onnx.*export"):
        find_model_files(tmp_path)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no directory .*nowhere"):
        find_model_files(tmp_path / "nowhere")


def test_a_text_tower_of_the_other_layout_can_lie_beside(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path, "transformers")
    write_tiny_clip(tmp_path / "other", "immich")
    for name in ("text_model.onnx",):
        (tmp_path / "onnx" / name).unlink()
    (tmp_path / "other" / "textual").rename(tmp_path / "textual")
    files = find_model_files(tmp_path)
    assert files.layout == "transformers"
    assert files.text_graph == tmp_path / "textual" / "model.onnx"
    assert files.tokenizer == tmp_path / "textual" / "tokenizer.json"


def test_a_tokenizer_without_settings_is_allowed(tmp_path: Path) -> None:
    (write_tiny_clip(tmp_path) / "textual" / "tokenizer_config.json").unlink()
    assert find_model_files(tmp_path).tokenizer_config is None


def test_bf16_runs_the_float32_graphs(tmp_path: Path) -> None:
    files = find_model_files(write_tiny_clip(tmp_path))
    assert files.graph("image", Precision.BF16) == files.image_graph
    assert files.graph("text", Precision.BF16) == files.text_graph


def test_int8_is_recorded_under_names_that_no_hub_uses(tmp_path: Path) -> None:
    files = find_model_files(write_tiny_clip(tmp_path, "transformers"))
    ours = {int8_record_path(files.image_graph), int8_record_path(files.text_graph)}
    assert len(ours) == 2
    assert not {path.stem for path in ours} & {"vision_model_int8", "text_model_int8"}
