"""A token bucket: the limit on the rate of anything that has a cost.  Reads no clock."""

from __future__ import annotations

ROUNDING_S = 1e-6
"""Time that may be lost to rounding: a clock of seconds since the start of the host is exact to a nanosecond."""


class TokenBucket:
    """Bucket that is full at first, and gains `rate_per_s` tokens each second up to `burst`.

    A cost that is known beforehand is taken by `take`; one that is known only afterwards is allowed by `level` and
    charged by `charge`.
    """

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "_updated")

    def __init__(self, *, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def level(self, now: float) -> float:
        """Return the tokens in the bucket; a negative number is a debt."""
        refill = (now - self._updated) * self._rate_per_s
        if refill > 0:
            self._tokens = min(self._burst, self._tokens + refill)
            self._updated = now
        return self._tokens

    def take(self, tokens: float, now: float) -> bool:
        """Take the tokens if the bucket holds them, or if it is full; return whether they were taken.

        A full bucket admits one request that is larger than `burst`; the debt is paid before the next one.
        """
        level = self.level(now)
        if tokens > level and level < self._burst:
            return False
        self._tokens = level - tokens
        return True

    def charge(self, tokens: float, now: float) -> None:
        """Take the tokens, whether or not the bucket holds them."""
        self._tokens = self.level(now) - tokens

    def time_until_paid(self, now: float) -> float:
        """Return the seconds until no debt is left; 0 without a debt, or with one of rounding."""
        time_s = -self.level(now) / self._rate_per_s
        return time_s if time_s > ROUNDING_S else 0.0
