"""A token bucket: how many reports a second are taken before the rest is counted and dropped.

Knows neither packets nor a clock.
"""

from __future__ import annotations


class TokenBucket:
    """`rate_per_s` tokens come back each second, up to `burst`; it starts full."""

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "_updated")

    def __init__(self, *, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def take(self, tokens: float, now: float) -> bool:
        """Whether that many were there; they are taken only if so, or if the bucket is full (a single giant)."""
        refill = (now - self._updated) * self._rate_per_s
        if refill > 0:
            self._tokens = min(self._burst, self._tokens + refill)
            self._updated = now
        if tokens > self._tokens and self._tokens < self._burst:
            return False
        self._tokens -= tokens
        return True
