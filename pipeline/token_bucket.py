"""A token bucket: the limit on the rate of anything that has a cost.  Reads no clock."""

from __future__ import annotations


class TokenBucket:
    """Bucket that is full at first, and gains `rate_per_s` tokens each second up to `burst`."""

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "_updated")

    def __init__(self, *, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def take(self, tokens: float, now: float) -> bool:
        """Take the tokens if the bucket holds them, or if it is full; return whether they were taken.

        A full bucket admits one request that is larger than `burst`; the debt is paid before the next one.
        """
        refill = (now - self._updated) * self._rate_per_s
        if refill > 0:
            self._tokens = min(self._burst, self._tokens + refill)
            self._updated = now
        if tokens > self._tokens and self._tokens < self._burst:
            return False
        self._tokens -= tokens
        return True
