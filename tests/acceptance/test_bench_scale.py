"""The benchmark of large indexes runs, at a size that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.scale import appending, searching, serving
from bench.scale.__main__ import main


def test_a_small_run_gives_all_figures_and_keeps_the_index_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_SECONDS", 0.2)
    monkeypatch.setattr(serving, "_STARTS", 1)
    monkeypatch.setattr(serving, "_QUERIES", 20)
    monkeypatch.setattr(serving, "_MORE_QUERIES", 20)
    monkeypatch.setattr(appending, "_TIMES", 2)
    folder = tmp_path / "kept"
    folder.mkdir()
    output = tmp_path / "figures.json"
    options = ["--rows", "3000", "--dim", "16", "--folder", str(folder), "--output", str(output)]
    main([*options, *(f"--only={name}" for name in ("rebuild", "search", "serve", "append"))])
    figures = {figure["name"]: figure for figure in json.loads(output.read_text())["figures"]}
    assert figures["recall@10, queries like texts"]["value"] == 1.0
    assert figures["rebuild, peak memory of the server"]["value"] > 0
    assert figures["resident memory after 20 queries"]["value"] > 0
    assert figures["append of 1,000 to 3,000"]["unit"] == "s"
    assert figures["append of 1,000 to 30, written"]["value"] > 0
    assert all(figure["promised"] for figure in figures.values())
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["30", "300", "3000"]
    main([*options, "--only=search"])
    again = {figure["name"] for figure in json.loads(output.read_text())["figures"]}
    assert "search p50" in again
    assert again < set(figures)
