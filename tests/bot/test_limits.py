"""GCRA against a token bucket counted by brute force, in exact fractions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from bot.queue.limits import take

START = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class TokenBucket:
    """The obvious limiter: `burst` tokens, one more per `every`, never more than `burst`."""

    def __init__(self, *, every: timedelta, burst: int) -> None:
        self.every, self.burst = every, burst
        self.tokens, self.seen = Fraction(burst), START

    def take(self, now: datetime) -> bool:
        refill = Fraction((now - self.seen) // MICROSECOND, self.every // MICROSECOND)
        self.tokens, self.seen = min(Fraction(self.burst), self.tokens + refill), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


seconds = st.integers(min_value=1, max_value=5_000_000).map(lambda count: timedelta(microseconds=count))
pauses = st.lists(
    st.one_of(st.just(timedelta()), st.integers(0, 12_000_000).map(lambda n: n * MICROSECOND)), max_size=60
)


@given(every=seconds, burst=st.integers(1, 12), pauses=pauses)
def test_it_decides_as_a_token_bucket_does(every: timedelta, burst: int, pauses: list[timedelta]) -> None:
    bucket, arrival, now = TokenBucket(every=every, burst=burst), None, START
    for pause in pauses:
        now += pause
        verdict = take(arrival, now=now, every=every, burst=burst)
        assert (verdict.retry_at is None) == bucket.take(now)
        arrival = verdict.arrival


@given(every=seconds, burst=st.integers(1, 12), pauses=pauses)
def test_coming_back_at_retry_at_works_and_a_microsecond_before_does_not(
    every: timedelta, burst: int, pauses: list[timedelta]
) -> None:
    arrival, now = None, START
    for pause in pauses:
        now += pause
        verdict = take(arrival, now=now, every=every, burst=burst)
        if verdict.retry_at is not None:
            early = take(verdict.arrival, now=verdict.retry_at - MICROSECOND, every=every, burst=burst)
            then = take(verdict.arrival, now=verdict.retry_at, every=every, burst=burst)
            assert early.retry_at == verdict.retry_at
            assert then.retry_at is None
        arrival = verdict.arrival


def test_a_refusal_does_not_move_the_theoretical_arrival() -> None:
    arrival = None
    for _ in range(3):
        arrival = take(arrival, now=START, every=timedelta(minutes=2), burst=3).arrival
    refused = take(arrival, now=START, every=timedelta(minutes=2), burst=3)
    assert refused.retry_at == START + timedelta(minutes=2)
    assert refused.arrival == arrival


def test_a_clock_set_back_by_a_day_locks_nobody_out_for_a_day() -> None:
    tomorrow = take(None, now=START + timedelta(days=1), every=timedelta(minutes=2), burst=3).arrival
    verdict = take(tomorrow, now=START, every=timedelta(minutes=2), burst=3)
    assert verdict.retry_at == START + timedelta(minutes=2)
