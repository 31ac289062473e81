"""Admission of peers' messages: a rate for each connection, and connections that are cut off for a violation.

It sees connections and reasons, never the content of a message.
"""

from __future__ import annotations

import structlog

from pipeline.drop_reasons import MessageRefusal
from pipeline.io.peers import MessageRates

CUT_OFF_MAX = 1024
"""Connections that stay cut off.  Beyond it the oldest is admitted again, and cut off at its next violation."""

log = structlog.get_logger()


class PeerAdmission:
    """Filter before the overlay node, with a counter for each reason of refusal."""

    def __init__(self) -> None:
        self.refusals: dict[str, int] = dict.fromkeys(map(str, MessageRefusal), 0)
        """Messages that were refused, by reason; those of a connection that is cut off already are not counted."""
        self._rates = MessageRates()
        self._cut_off: dict[bytes, None] = {}

    def admits(self, connection: bytes, peer: str, now: float) -> bool:
        """Return whether a message of that connection may be read; `peer` is its address, for the log."""
        if connection in self._cut_off:
            return False
        if self._rates.allows(connection, now):
            return True
        self._count(MessageRefusal.MESSAGE_RATE)
        log.warning("peer sends too many messages", peer=peer)
        return False

    def cut_off(self, connection: bytes, peer: str, reason: str) -> None:
        """Read no more messages of a connection that has sent one which violates the protocol."""
        self._count(reason)
        while len(self._cut_off) >= CUT_OFF_MAX:
            del self._cut_off[next(iter(self._cut_off))]
        self._cut_off[connection] = None
        log.warning("peer cut off", peer=peer, reason=reason)

    def _count(self, reason: str) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1
