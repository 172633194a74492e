"""The prompt cache gives back what was encoded, forgets the oldest first, and is never larger than its limit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gen.text import Encoded, PromptCache

ONE = 400  # bytes of an encoded prompt here


def _encoded(value: float = 0.0) -> Encoded:
    return torch.full((50,), value), torch.full((50,), -value)


def _never() -> Encoded:
    raise AssertionError("the prompt was encoded again")


def test_a_prompt_is_encoded_once() -> None:
    cache = PromptCache(10 * ONE)
    made = cache.encode("a fox", "t5", _encoded)
    assert cache.encode("a fox", "t5", _never) is made


def test_another_encoder_encodes_anew() -> None:
    cache = PromptCache(10 * ONE)
    cache.encode("a fox", "t5 float8", lambda: _encoded(1))
    assert cache.encode("a fox", "t5 bfloat16", lambda: _encoded(2))[0][0] == 2


def test_the_least_recently_used_goes_first() -> None:
    cache = PromptCache(2 * ONE)
    for prompt in ("a", "b", "a", "c"):
        cache.encode(prompt, "t5", _encoded)
    cache.encode("a", "t5", _never)
    with pytest.raises(AssertionError, match="encoded again"):
        cache.encode("b", "t5", _never)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 300)), max_size=40), st.integers(0, 3000))
def test_it_is_never_larger_than_its_limit_and_knows_its_size(asked: list[tuple[int, int]], limit: int) -> None:
    cache = PromptCache(limit)
    for prompt, numbers in asked:
        cache.encode(str(prompt), "t5", lambda numbers=numbers: (torch.zeros(numbers),))  # type: ignore[misc]
        assert 0 <= cache.size_bytes <= limit
    cache.clear()
    assert (cache.size_bytes, len(cache)) == (0, 0)


def test_what_is_larger_than_the_limit_is_returned_and_not_kept() -> None:
    cache = PromptCache(ONE - 1)
    assert cache.encode("a", "t5", lambda: _encoded(3))[0][0] == 3
    assert len(cache) == 0


def test_a_view_counts_with_all_that_it_keeps_alive() -> None:
    cache = PromptCache(10_000)
    cache.encode("a", "t5", lambda: (torch.zeros(1000)[:1],))
    assert cache.size_bytes == 4000


def test_an_encoder_that_fails_leaves_nothing() -> None:
    cache = PromptCache(10 * ONE)
    with pytest.raises(AssertionError):
        cache.encode("a", "t5", _never)
    assert len(cache) == 0


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="0 bytes or more; it is -1"):
        PromptCache(-1)
