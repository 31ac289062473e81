"""When the old network key ends: a grace after the last peer that was seen to move to the new one.

    `pipeline reload`, new first key ──▶ both are good ──each peer that moves begins the grace anew──▶ the old one ends

So nobody is cut off while a person or a script goes from host to host, as long as no step takes longer than the
grace; and the nodes that were not given the new key are out when it is over.  A node whose peers are all away need not
wait for any.  It knows no clock and no keys.
"""

from __future__ import annotations


class NetworkKeyRollover:
    """Of one network key by the next."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._ends: float | None = None
        self.is_under_way = False

    def begin(self, now: float, *, is_alone: bool) -> None:
        """There is a new key beside the old one."""
        self.is_under_way = True
        self._ends = now + self._grace_s if is_alone else None

    def handle_peer_moved(self, now: float) -> None:
        """A peer has proved for the first time that it knows the new key."""
        self._ends = now + self._grace_s

    def expire(self, now: float) -> bool:
        """Whether the old key is to end now; True once."""
        if not self.is_under_way or self._ends is None or now < self._ends:
            return False
        self.is_under_way = False
        return True
