"""Which index prefixes a request may name."""

from pathlib import Path

import pytest

from imagedex.core.errors import InvalidRequest, OutsideIndexRoots
from imagedex.indexing import IndexLocations


@pytest.fixture
def locations(tmp_path: Path) -> IndexLocations:
    (tmp_path / "indexes").mkdir()
    return IndexLocations(tmp_path / "home" / "index", (tmp_path / "indexes",))


def test_no_prefix_means_the_default_index(locations: IndexLocations, tmp_path: Path) -> None:
    assert locations.resolve(None) == tmp_path / "home" / "index"


def test_the_default_index_may_be_named(locations: IndexLocations, tmp_path: Path) -> None:
    default = tmp_path / "home" / "index"
    assert locations.resolve(str(default)) == default
    assert locations.resolve(f"{default}/../index/") == default


def test_a_prefix_below_an_index_root_is_allowed(locations: IndexLocations, tmp_path: Path) -> None:
    prefix = tmp_path / "indexes" / "holidays"
    assert locations.resolve(f"{tmp_path}/indexes/./holidays") == prefix


@pytest.mark.parametrize("prefix", ["", "relative/index", "/with\0nul", "~/index"])
def test_nonsense_is_an_invalid_request(locations: IndexLocations, prefix: str) -> None:
    with pytest.raises(InvalidRequest, match="absolute path"):
        locations.resolve(prefix)


@pytest.mark.parametrize("prefix", ["indexes", "elsewhere/index", "indexes/../elsewhere", "link/x"])
def test_a_prefix_elsewhere_is_refused(
    locations: IndexLocations, tmp_path: Path, prefix: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutsideIndexRoots, match="IMAGEDEX_INDEX_ROOTS"):
        locations.resolve(str(tmp_path / prefix))


def test_a_link_below_an_index_root_does_not_lead_out(
    locations: IndexLocations, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "indexes" / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutsideIndexRoots):
        locations.resolve(str(tmp_path / "indexes" / "out" / "index"))
