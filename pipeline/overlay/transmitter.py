"""What a node says to others: messages with its header and number, encoded and queued for their endpoints.

It knows how things are said, not when or why: sessions.py decides that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pipeline import endpoint as endpoints
from pipeline import limits, messages
from pipeline.address import NodeId
from pipeline.messages import (
    AnyNodeMessage,
    DirectorySummary,
    DirectoryUpdate,
    Goodbye,
    Heartbeat,
    Hello,
    NodeRecord,
    Stamp,
)
from pipeline.overlay.directory import Directory
from pipeline.overlay.peer import Peer

TOLD_MAX = 64
"""Remembered of one peer; beyond it what would be told again anyway is forgotten."""


class Transmitter:
    """The voice of one node."""

    def __init__(self, registry: Directory) -> None:
        self._registry = registry
        self.transmits: deque[tuple[str, bytes]] = deque()
        """(endpoint, message)."""
        self.number = 0
        """Of the last Hello, Heartbeat or Goodbye."""

    def header(self) -> messages.Header:
        """What every message of this node begins with."""
        own = self._registry.own
        return {"sender": own.node_id, "incarnation": own.incarnation, "endpoint": own.endpoint}

    def send(self, endpoint: str, message: AnyNodeMessage) -> None:
        """Any message; nothing can be sent to a wildcard."""
        if not endpoints.is_wildcard(endpoint):
            self.transmits.append((endpoint, messages.encode_node(message)))

    def hello(self, endpoint: str, *, known: Stamp | None, to: str = "", reached: str = "") -> None:
        """This node's record; `known`, `to` and `reached` as in the message."""
        number, own = self._next_number(), self._registry.own
        self.send(endpoint, Hello(number=number, record=own, known=known, to=to, reached=reached, **self.header()))

    def heartbeat(self, peer: Peer) -> None:
        """That this node lives, and what it holds of the peer and of all."""
        number, digest = self._next_number(), self._registry.digest
        message = Heartbeat(number=number, known=peer.known_to_peer, directory=digest, **self.header())
        self.send(peer.record.endpoint, message)

    def goodbye(self, peer: Peer) -> None:
        """That this node ends."""
        self.send(peer.record.endpoint, Goodbye(number=self._next_number(), **self.header()))

    def summary(self, peer: Peer, *, asked: bool) -> None:
        """The directory in brief; `asked`: the peer is to send its own."""
        message = DirectorySummary(entries=self._registry.summary(), asked=asked, **self.header())
        self.send(peer.record.endpoint, message)

    def records(self, endpoint: str, records: list[NodeRecord]) -> None:
        """Records of others, in as many messages as they need."""
        for start in range(0, len(records), limits.RECORDS_PER_MESSAGE_MAX):
            part = records[start : start + limits.RECORDS_PER_MESSAGE_MAX]
            self.send(endpoint, DirectoryUpdate(records=part, **self.header()))

    def tell_of(self, peer: Peer, nodes: Iterable[NodeId], now: float, *, again_s: float) -> None:
        """The records of nodes that the peer has not been told of, as they are now, within `again_s`."""
        news = []
        for node_id in nodes:
            record = self._registry.get(node_id)
            told = peer.told.get(node_id)
            if record is None or (told is not None and told[0] is record and now < told[1]):
                continue
            if len(peer.told) >= limits.NODES_MAX:
                peer.told.clear()
            peer.told[node_id] = record, now + again_s
            news.append(record)
        if news and len(peer.told) > TOLD_MAX:
            peer.told = {node_id: told for node_id, told in peer.told.items() if now < told[1]}
        self.records(peer.record.endpoint, news)

    def _next_number(self) -> int:
        self.number += 1
        return self.number
