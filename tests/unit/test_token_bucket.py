"""Token bucket.  Goal: the rate and the burst are limited.  Method: a clock by hand."""

from __future__ import annotations

from pipeline.token_bucket import TokenBucket


def test_burst_is_followed_by_the_rate() -> None:
    """Goal: a full bucket gives its burst, and then what a second adds."""
    bucket = TokenBucket(rate_per_s=10.0, burst=20.0, now=0.0)
    assert [bucket.take(10.0, 0.0) for _ in range(3)] == [True, True, False]
    assert bucket.take(10.0, 1.0)
    assert not bucket.take(10.0, 1.5)


def test_full_bucket_admits_a_large_request_once() -> None:
    """Goal: a request above the burst passes a full bucket, and the next one waits until the debt is paid."""
    bucket = TokenBucket(rate_per_s=10.0, burst=20.0, now=0.0)
    assert bucket.take(100.0, 0.0)
    assert not bucket.take(1.0, 8.0)
    assert bucket.take(1.0, 9.0)


def test_clock_that_stands_still_adds_nothing() -> None:
    """Goal: an earlier time does not take tokens away or add any."""
    bucket = TokenBucket(rate_per_s=10.0, burst=20.0, now=5.0)
    assert bucket.take(20.0, 5.0)
    assert not bucket.take(1.0, 4.0)
    assert bucket.take(10.0, 6.0)
