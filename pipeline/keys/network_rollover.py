"""Network-key rollover: the time at which the old network key ends.

    reload with a new first key ─▶ both keys are valid ─▶ grace after the last peer that moved ─▶ the old key ends

Each peer that moves to the new key starts the grace again.  So no node is cut off while a person or a script goes from
host to host, if no step takes longer than the grace.  Nodes that have not received the new key are excluded at its end.
A node without linked peers starts the grace at once.  This module knows neither a clock nor keys.
"""

from __future__ import annotations


class NetworkKeyRollover:
    """Rollover from one network key to the next."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._ends_at: float | None = None
        """End of the old key; None while no peer has moved."""
        self.is_under_way = False

    def begin(self, now: float, *, is_alone: bool) -> None:
        """Begin with a new key beside the old one; `is_alone`: no peer is linked."""
        self.is_under_way = True
        self._ends_at = now + self._grace_s if is_alone else None

    def cancel(self) -> None:
        """End the rollover without waiting for the grace."""
        self.is_under_way = False

    def handle_peer_moved(self, now: float) -> None:
        """Start the grace again: a peer has proved for the first time that it has the new key."""
        self._ends_at = now + self._grace_s

    def expire(self, now: float) -> bool:
        """Return True, once, when the old key is to end."""
        if not self.is_under_way or self._ends_at is None or now < self._ends_at:
            return False
        self.is_under_way = False
        return True
