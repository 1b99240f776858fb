"""The bounded memory of what was used last."""

from __future__ import annotations

from imagedex.core.cache import LruCache


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    cache = LruCache[str, int](max_entries=2, max_weight=100)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_heavy_values_leave_less_room() -> None:
    cache = LruCache[str, int](max_entries=10, max_weight=10)
    cache.put("a", 1, weight=4)
    cache.put("b", 2, weight=4)
    cache.put("c", 3, weight=4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (None, 2, 3)
    cache.put("d", 4, weight=11)
    assert cache.get("d") is None
    assert len(cache) == 2


def test_a_value_that_is_replaced_weighs_once() -> None:
    cache = LruCache[str, int](max_entries=10, max_weight=10)
    for value in range(5):
        cache.put("a", value, weight=5)
    cache.put("b", 9, weight=5)
    assert (cache.get("a"), cache.get("b")) == (4, 9)


def test_a_cache_without_entries_keeps_none() -> None:
    cache = LruCache[str, int](max_entries=0, max_weight=10)
    cache.put("a", 1)
    assert cache.get("a") is None
    assert len(cache) == 0
