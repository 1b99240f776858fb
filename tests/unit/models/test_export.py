"""What an export says where it cannot begin, and the tokenizer that it makes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from imagedex.core.errors import Conflict, ModelError
from imagedex.models.clip_tokenizer import clip_tokenizer as exported_tokenizer
from imagedex.models.export import export_checkpoint
from support.tokenizers import CLIP_IDS, CLIP_SENTENCE, clip_tokenizer


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_the_extra_packages_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delitem(sys.modules, "imagedex.models._torch_export", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError, match=r"pip install 'imagedex\[export\]'"):
        export_checkpoint(str(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_there_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="is there already"):
        export_checkpoint("checkpoint", tmp_path)


def test_vocabulary_and_merges_make_the_known_ids(tmp_path: Path) -> None:
    model = clip_tokenizer(real_ids=True)["model"]
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text(json.dumps(model["vocab"]), "utf-8")
    merges.write_text("\n".join(["#version: 0.2", *model["merges"], ""]), "utf-8")
    tokenizer = Tokenizer.from_str(json.dumps(exported_tokenizer(vocabulary, merges)))
    assert tuple(tokenizer.encode(CLIP_SENTENCE).ids) == CLIP_IDS


def test_a_vocabulary_without_clips_own_tokens_is_refused(tmp_path: Path) -> None:
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text("{}", "utf-8")
    merges.write_text("", "utf-8")
    with pytest.raises(ModelError, match="not the vocabulary of a CLIP"):
        exported_tokenizer(vocabulary, merges)
