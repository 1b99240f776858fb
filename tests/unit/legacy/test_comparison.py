"""How far two rankings agree."""

from __future__ import annotations

import pytest

from imagedex.legacy.comparison import AgreementReport, compare_rankings


@pytest.mark.parametrize(
    ("old", "new", "overlap", "is_same_first", "correlation"),
    [
        ("abcd", "abcd", 1.0, True, 1.0),
        ("abcd", "dcba", 1.0, False, -1.0),
        ("abcd", "abdc", 1.0, True, pytest.approx(4 / 6)),
        ("abcd", "axyb", 0.5, True, 1.0),
        ("abcd", "bxya", 0.5, False, -1.0),
        ("abcd", "awxy", 0.25, True, None),
        ("abcd", "wxyz", 0.0, False, None),
        ("abcd", "", 0.0, False, None),
        ("ab", "abcd", 1.0, True, 1.0),
        ("", "abcd", 0.0, False, None),
    ],
)
def test_rankings_are_compared(
    old: str, new: str, overlap: float, is_same_first: bool, correlation: float | None
) -> None:
    found = compare_rankings("a dog", list(old), list(new))
    assert (found.text, found.overlap, found.is_same_first) == ("a dog", overlap, is_same_first)
    assert found.rank_correlation == correlation


def test_the_report_has_the_means() -> None:
    report = AgreementReport(
        top_k=2,
        old_images=9,
        new_images=8,
        queries=tuple(compare_rankings(new, ["a", "b"], list(new)) for new in ("ab", "ba", "ax")),
    )
    assert report.overlap == pytest.approx(2.5 / 3)
    assert report.same_first == pytest.approx(2 / 3)
    assert report.rank_correlation == pytest.approx(0)
    alone = AgreementReport(2, 9, 8, (compare_rankings("x", ["a"], ["b"]),))
    assert alone.rank_correlation is None
