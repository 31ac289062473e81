"""Transmitter: composes a node's messages and queues them, encoded, for an endpoint.

It knows how each kind of message is composed.  sessions.py and directory_view.py decide when one is sent.
"""

from __future__ import annotations

from collections import deque

from pipeline import endpoint as endpoints
from pipeline import limits, messages
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


class Transmitter:
    """Queue of the messages that one node sends, with the counter that numbers them."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.transmits: deque[tuple[str, bytes]] = deque()
        """(endpoint, message)."""
        self.number = 0
        """Number of the last Hello, Heartbeat or Goodbye."""

    def header(self) -> messages.Header:
        """Return the fields with which every message of this node begins."""
        own = self._directory.own
        return {"sender": own.node_id, "incarnation": own.incarnation, "endpoint": own.endpoint}

    def send(self, endpoint: str, message: AnyNodeMessage) -> None:
        """Queue a message; one for a wildcard endpoint is dropped, as nothing can be sent there."""
        if not endpoints.is_wildcard(endpoint):
            self.transmits.append((endpoint, messages.encode_node(message)))

    def call(self, endpoint: str, *, dialled: str = "") -> None:
        """Send a Hello to an endpoint whose node is not known; `dialled` as in Hello."""
        self._send_hello(endpoint, acked_stamp=None, dialled=dialled)

    def send_hello(self, peer: Peer, now: float, *, dialled_by_peer: str = "") -> None:
        """Send this node's record to a peer, and note in its session that the record is under way."""
        self._send_hello(peer.record.endpoint, acked_stamp=peer.stamp_to_ack, dialled_by_peer=dialled_by_peer)
        peer.hello_sent(self._directory.own.stamp, now)

    def _send_hello(
        self, endpoint: str, *, acked_stamp: Stamp | None, dialled: str = "", dialled_by_peer: str = ""
    ) -> None:
        hello = Hello(
            number=self._next_number(),
            record=self._directory.own,
            acked_stamp=acked_stamp,
            dialled=dialled,
            dialled_by_peer=dialled_by_peer,
            **self.header(),
        )
        self.send(endpoint, hello)

    def send_heartbeat(self, peer: Peer) -> None:
        """Acknowledge the held version of the peer's record as a sign of life, and show the directory's digest."""
        number, digest = self._next_number(), self._directory.digest
        heartbeat = Heartbeat(number=number, acked_stamp=peer.stamp_to_ack, directory_digest=digest, **self.header())
        self.send(peer.record.endpoint, heartbeat)

    def send_goodbye(self, peer: Peer) -> None:
        """Announce that this node stops."""
        self.send(peer.record.endpoint, Goodbye(number=self._next_number(), **self.header()))

    def send_summary(self, peer: Peer, *, is_reply_requested: bool) -> None:
        """Send the stamps of all records; `is_reply_requested`: the peer then sends its own summary."""
        entries = self._directory.summary()
        summary = DirectorySummary(entries=entries, is_reply_requested=is_reply_requested, **self.header())
        self.send(peer.record.endpoint, summary)

    def send_records(self, endpoint: str, records: list[NodeRecord]) -> None:
        """Send records of other nodes, in as many messages as they need."""
        for start in range(0, len(records), limits.RECORDS_PER_MESSAGE_MAX):
            part = records[start : start + limits.RECORDS_PER_MESSAGE_MAX]
            self.send(endpoint, DirectoryUpdate(records=part, **self.header()))

    def _next_number(self) -> int:
        self.number += 1
        return self.number
