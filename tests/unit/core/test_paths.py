"""Where the controller's directories lie on another machine."""

from __future__ import annotations

import pickle

import pytest

from imagedex.core.paths import PathMapping


def test_what_lies_below_a_directory_is_found_below_its_other_place() -> None:
    mapping = PathMapping([("/srv/photos", "/data/photos")])
    assert mapping.local("/srv/photos") == "/data/photos"
    assert mapping.local("/srv/photos/a/b.jpg") == "/data/photos/a/b.jpg"


def test_a_directory_that_only_begins_alike_stays() -> None:
    mapping = PathMapping([("/srv/photos", "/data/photos")])
    for path in ("/srv/photos2/a.jpg", "/srv/photo", "/srv", "/", "relative"):
        assert mapping.local(path) == path


def test_the_innermost_directory_counts_in_whatever_order_they_stand() -> None:
    pairs = [("/srv", "/a"), ("/srv/photos/raw", "/c"), ("/srv/photos", "/b")]
    for ordered in (pairs, pairs[::-1]):
        mapping = PathMapping(ordered)
        assert mapping.local("/srv/x") == "/a/x"
        assert mapping.local("/srv/photos/x") == "/b/x"
        assert mapping.local("/srv/photos/raw/x") == "/c/x"
        assert mapping == PathMapping(pairs)


def test_the_root_can_stand_on_either_side() -> None:
    assert PathMapping([("/", "/mnt")]).local("/a/b") == "/mnt/a/b"
    assert PathMapping([("/mnt", "/")]).local("/mnt/a") == "/a"
    assert PathMapping([("/mnt", "/")]).local("/mnt") == "/"


def test_directories_are_taken_however_they_are_spelt() -> None:
    mapping = PathMapping([("//srv//photos/", "/data/./photos/")])
    assert mapping.pairs == (("/srv/photos", "/data/photos"),)
    assert pickle.loads(pickle.dumps(mapping)) == mapping


@pytest.mark.parametrize("pair", [("srv", "/data"), ("/srv", "data"), ("", "/a"), ("/a\0", "/b")])
def test_only_absolute_directories_can_be_mapped(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="absolute"):
        PathMapping([pair])
