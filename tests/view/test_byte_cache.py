"""The cache counts bytes, and drops what was used least recently."""

import random

from liif_core.view.byte_cache import ByteCache


def test_the_least_recently_used_is_dropped():
    cache = ByteCache(100)
    for key in "abc":
        cache.put(key, key.upper(), 30)
    assert cache.get("a") == "A"
    cache.put("d", "D", 30)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert cache.held == 90


def test_a_value_that_is_too_large_is_not_kept_and_replaces():
    cache = ByteCache(100)
    cache.put("a", 1, 60)
    cache.put("b", 2, 101)
    assert (cache.get("a"), cache.get("b")) == (1, None)
    cache.put("a", 3, 101)  # the old value does not hold any more
    assert cache.get("a") is None and cache.held == 0


def test_it_never_holds_more_than_its_limit():
    choose, cache, sizes = random.Random(0), ByteCache(1000), {}
    for _ in range(2000):
        key, size = choose.randrange(40), choose.randrange(300)
        cache.put(key, size, size)
        sizes[key] = size
        there = [key for key in sizes if cache.has(key)]
        assert cache.held == sum(sizes[key] for key in there) <= 1000
    cache.remove(lambda key: key % 2 == 0)
    assert not any(cache.has(key) for key in range(0, 40, 2))
    assert cache.held == sum(sizes[key] for key in sizes if cache.has(key))
