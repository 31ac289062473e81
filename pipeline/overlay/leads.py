"""Leads: endpoints in records of protocol 1, at which a node with an identity may be.

During an upgrade two nodes with identities may have only nodes of protocol 1 in common, whose reports prove nothing.
So each greets the endpoints that it is sent, a few times.  A node of protocol 1 there calls by itself before that.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from pipeline import limits
from pipeline.messages import NodeRecord
from pipeline.overlay.peer_table import PeerTable
from pipeline.overlay.transmitter import NOWHERE, Transmitter


class Leads:
    """Endpoints to greet, with the attempts that are left for each; their times are deadlines of the peer table."""

    def __init__(self, peer_table: PeerTable, transmitter: Transmitter, seeds: Container[str]) -> None:
        self._peer_table = peer_table
        self._transmitter = transmitter
        self._seeds = seeds
        self._attempts: dict[str, int] = {}

    def add(self, reported: Iterable[NodeRecord], now: float) -> None:
        """Add the endpoints of these records, as far as no peer is reached there, and as far as there is room."""
        known = self._reached() | self._attempts.keys()
        for endpoint in dict.fromkeys(record.endpoint for record in reported):
            is_new = endpoint not in known and endpoint not in self._seeds
            if is_new and len(self._attempts) < limits.LEADS_MAX:
                self._attempts[endpoint] = limits.LEAD_ATTEMPTS_MAX
                self._peer_table.deadlines.set(endpoint, now + limits.LEAD_INTERVAL_S)

    def call(self, endpoint: str, now: float) -> None:
        """Greet an endpoint that is due, or drop it after the last attempt."""
        left = self._attempts.pop(endpoint)
        if left and endpoint not in self._reached():
            self._attempts[endpoint] = left - 1
            self._transmitter.greet(endpoint, dialled=endpoint)
            self._peer_table.deadlines.set(endpoint, now + limits.LEAD_INTERVAL_S)

    def _reached(self) -> set[str]:
        alive = (peer.record.endpoint for peer in self._peer_table.peers.values() if peer.is_alive)
        return {NOWHERE, self._peer_table.own.endpoint, *alive}
