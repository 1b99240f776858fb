"""Each index is served by its own model, also while that changes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imagedex.core.errors import FingerprintMismatch
from imagedex.core.fingerprints import ModelIdentity
from imagedex.embedding import EmbeddingModel, EncodedTexts, TextEncoder
from imagedex.search import QueryService, QueryServices
from imagedex.segments import Commit, DirectoryIndexFiles, PartRows, Replacement
from imagedex.testing.colour_model import ColourModel
from imagedex.testing.index_files import make_part
from imagedex.testing.rolled_colours import RolledColourModel

_MODELS: tuple[EmbeddingModel, ...] = (ColourModel(), RolledColourModel())
_COLOURS, _ROLLED = _MODELS
_TEXTS = ("red", "green", "blue")


class _CountingEncoder:
    def __init__(self, model: EmbeddingModel) -> None:
        self._encoder: TextEncoder = model.load_text_encoder(threads=1)
        self.texts: list[str] = []

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        self.texts += texts
        return self._encoder.encode_texts(texts)


class _Setting:
    """Services of both models; ``encoders`` has one for each time that a service was made."""

    def __init__(self) -> None:
        self.encoders: list[tuple[str, _CountingEncoder]] = []
        self.services = QueryServices(
            files_of=DirectoryIndexFiles, model_of=self._model_of, make=self._make
        )

    def _model_of(self, stored: ModelIdentity | None) -> EmbeddingModel:
        if stored is None:
            return _COLOURS
        for model in _MODELS:
            if model.fingerprint == stored.fingerprint:
                return model
        raise FingerprintMismatch(f"no model makes vectors of {stored}")

    def _make(self, model: EmbeddingModel) -> QueryService:
        encoder = _CountingEncoder(model)
        self.encoders.append((model.name, encoder))
        return QueryService(
            files_of=DirectoryIndexFiles,
            encoder=encoder,
            model_name=model.name,
            fingerprint=model.fingerprint,
            dim=model.dim,
            cache_entries=0,
        )


@pytest.fixture
def setting() -> _Setting:
    return _Setting()


def _write_part(files: DirectoryIndexFiles, model: EmbeddingModel, number: int) -> str:
    vectors = model.load_text_encoder(threads=1).encode_texts(_TEXTS).vectors
    part = make_part(
        {f"/{text}": np.array(vectors[i]) for i, text in enumerate(_TEXTS)}, dim=model.dim
    )
    part = replace(part, fingerprint=model.fingerprint)
    return files.write_part("job", number, 1, part)


def _publish(directory: Path, model: EmbeddingModel) -> None:
    files = DirectoryIndexFiles(directory)
    part = _write_part(files, model, 0)
    files.commit(Commit(0, 1, model.name, model.fingerprint, model.dim, "job", (0,), (part,), ()))


def _change(directory: Path, model: EmbeddingModel, number: int) -> None:
    files = DirectoryIndexFiles(directory)
    current = files.current()
    assert current is not None
    part = _write_part(files, model, number)
    replacement = Replacement(number, "job", model.name, model.fingerprint, model.dim)
    with files.prepare_replacement(replacement) as prepared:
        prepared.add([PartRows(part, range(3))])
        prepared.publish(expected_generation=current.generation, removed=())


def _best(setting: _Setting, directory: Path, text: str) -> tuple[str, str]:
    answer = setting.services.query(directory, text, 1)
    return answer.results[0].image_path, answer.model_name


def test_indexes_of_two_models_are_served_side_by_side(setting: _Setting, tmp_path: Path) -> None:
    for model in _MODELS:
        _publish(tmp_path / model.name, model)
    for _ in range(2):
        for model in _MODELS:
            assert _best(setting, tmp_path / model.name, "green") == ("/green", model.name)
            assert setting.services.check(tmp_path / model.name) == 1
    assert [name for name, _ in setting.encoders] == ["colours", "rolled-colours"]


def test_where_nothing_is_indexed_the_model_of_new_indexes_answers(
    setting: _Setting, tmp_path: Path
) -> None:
    answer = setting.services.query(tmp_path / "index", "red", 1)
    assert (answer.results, answer.generation, answer.model_name) == ((), 0, "colours")
    assert setting.services.refresh(tmp_path / "index") == 0
    assert setting.services.check(tmp_path / "index") == 0
    _publish(tmp_path / "index", _ROLLED)
    assert _best(setting, tmp_path / "index", "red") == ("/red", "rolled-colours")


def test_an_index_of_a_model_that_is_not_here_is_refused(setting: _Setting, tmp_path: Path) -> None:
    _publish(tmp_path, ColourModel(version=7))
    for _ in range(2):
        with pytest.raises(FingerprintMismatch, match="colours-7"):
            setting.services.query(tmp_path, "red", 1)


def test_a_model_is_warm_before_the_swap_and_let_go_after_the_next_one(
    setting: _Setting, tmp_path: Path
) -> None:
    _publish(tmp_path, _COLOURS)
    assert _best(setting, tmp_path, "red") == ("/red", "colours")
    setting.services.warm(_ROLLED)
    (_, warmed) = setting.encoders[-1]
    assert len(warmed.texts) == 1
    _change(tmp_path, _ROLLED, 2)
    # Until this process is told, it answers as before.
    assert _best(setting, tmp_path, "green") == ("/green", "colours")
    assert setting.services.refresh(tmp_path) == 2
    setting.services.cool(_ROLLED)
    assert _best(setting, tmp_path, "green") == ("/green", "rolled-colours")
    assert warmed.texts[-1] == "green"
    # The old model was let go, and is made anew when it is wanted again.
    _change(tmp_path, _COLOURS, 3)
    setting.services.refresh(tmp_path)
    assert [name for name, _ in setting.encoders] == ["colours", "rolled-colours", "colours"]


def test_a_model_that_was_warmed_in_vain_is_let_go(setting: _Setting, tmp_path: Path) -> None:
    setting.services.warm(_ROLLED)
    setting.services.cool(_ROLLED)
    _publish(tmp_path, _ROLLED)
    assert _best(setting, tmp_path, "red") == ("/red", "rolled-colours")
    assert [name for name, _ in setting.encoders] == ["rolled-colours", "rolled-colours"]


def test_a_model_stays_for_the_other_indexes_that_have_it(
    setting: _Setting, tmp_path: Path
) -> None:
    for name in ("changed", "kept"):
        _publish(tmp_path / name, _COLOURS)
        setting.services.refresh(tmp_path / name)
    _change(tmp_path / "changed", _ROLLED, 2)
    setting.services.refresh(tmp_path / "changed")
    assert _best(setting, tmp_path / "changed", "blue") == ("/blue", "rolled-colours")
    assert _best(setting, tmp_path / "kept", "blue") == ("/blue", "colours")
    assert len(setting.encoders) == 2


def test_no_query_fails_or_is_mixed_while_the_model_changes_back_and_forth(
    setting: _Setting, tmp_path: Path
) -> None:
    _publish(tmp_path, _COLOURS)
    # Another index keeps both models in use, so that what is open of this one is forgotten.
    for model in _MODELS:
        _publish(tmp_path / model.name, model)
        setting.services.refresh(tmp_path / model.name)
    is_over = threading.Event()
    faults: list[str] = []

    def ask() -> None:
        while not is_over.is_set():
            for text in _TEXTS:
                try:
                    found, _ = _best(setting, tmp_path, text)
                except Exception as error:  # Whatever it is, the test tells it.
                    faults.append(repr(error))
                    continue
                if found != f"/{text}":
                    faults.append(f"{found} for {text}")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2, 14):
        _change(tmp_path, _MODELS[(number + 1) % 2], number)
        setting.services.refresh(tmp_path)
    is_over.set()
    for thread in threads:
        thread.join()
    assert faults == []
