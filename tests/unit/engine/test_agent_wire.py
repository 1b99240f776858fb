"""What controller and agent say to each other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagedex.engine._agent_wire import (
    MAX_LINE_BYTES,
    Begin,
    Exit,
    Hello,
    Lines,
    WireError,
    line_of,
    read_line,
)
from imagedex.engine._credentials import Credentials
from imagedex.engine._release import Release, own_release

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

BEGIN = Begin(
    host="gpu1",
    installation="0123",
    start=2,
    scheduler_address="tls://[::1]:8786",
    credentials=Credentials("certificate", "key", "trusted"),
    workers=3,
    threads=0,
    gpus=(0, 2),
    paths=(("/srv/a b", "/data\n"),),
    ports="8790:8849",
)


def over_the_wire(kind: str, fields: dict[str, Any]) -> Any:
    [line] = Lines().feed(line_of(kind, fields))
    found, content = read_line(line)
    assert found == kind
    return content


def test_what_is_said_arrives_as_it_was() -> None:
    assert Begin.from_fields(over_the_wire("begin", BEGIN.to_fields())) == BEGIN
    hello = Hello(own_release(), 8, 42)
    assert Hello.from_fields(over_the_wire("hello", hello.to_fields())) == hello
    exit_ = Exit("gpu1-1", 1, "was killed", "its\nlast words\u2028")
    assert Exit.from_fields(over_the_wire("exit", exit_.to_fields())) == exit_


def test_the_longest_last_words_fit_into_a_line() -> None:
    exit_ = Exit("gpu1-1", 1, "was killed", "\U0001f600" * 100_000)
    assert len(line_of("exit", exit_.to_fields())) < MAX_LINE_BYTES + 40_000
    [line] = Lines().feed(line_of("exit", Exit("w", 1, "h", "\0" * 100_000).to_fields()))
    assert read_line(line)[0] == "exit"


@given(JSON)
def test_whatever_is_said_in_place_of_a_message_is_a_wire_error(content: Any) -> None:
    for kind in (Hello, Exit, Begin):
        try:
            kind.from_fields(content)
        except WireError:
            continue


@given(st.binary(max_size=300))
def test_whatever_comes_in_place_of_a_line_is_a_wire_error(data: bytes) -> None:
    try:
        kind, _ = read_line(data)
    except WireError:
        return
    assert isinstance(kind, str)


def test_a_line_that_nests_too_deep_is_a_wire_error() -> None:
    with pytest.raises(WireError):
        read_line(b'{"hello":' + b"[" * 50_000)


@given(st.lists(st.binary(max_size=50).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_arrive_whole_in_whatever_pieces(lines: list[bytes], data: st.DataObject) -> None:
    sent = b"".join(line + b"\n" for line in lines)
    reader, found = Lines(), []
    while sent:
        size = data.draw(st.integers(1, len(sent)))
        found += reader.feed(sent[:size])
        sent = sent[size:]
    assert found == lines


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    reader = Lines()
    assert reader.feed(b"x" * MAX_LINE_BYTES) == []
    with pytest.raises(WireError, match="longer"):
        reader.feed(b"x")


def test_an_error_about_a_message_tells_nothing_of_its_key() -> None:
    fields = {**BEGIN.to_fields(), "gpus": ["no number"]}
    fields["credentials"]["key"] = "-----BEGIN PRIVATE KEY-----"
    with pytest.raises(WireError) as caught:
        Begin.from_fields(json.loads(json.dumps(fields)))
    assert "PRIVATE" not in str(caught.value)


def test_releases_differ_by_what_chunks_depend_on() -> None:
    ours = Release("1.0", "aa", "3.11", "2026.8.0")
    assert ours.difference(ours) is None
    assert ours.difference(Release("1.0", "bb", "3.11", "2026.8.0")) == (
        "other code of Imagedex 1.0 than the controller's"
    )
    told = ours.difference(Release("1.1", "bb", "3.12", "2026.8.0"))
    assert told == "Imagedex 1.1 where 1.0 is needed and Python 3.12 where 3.11 is needed"
    assert own_release() == own_release()
