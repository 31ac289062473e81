"""Transmitter: composes a node's messages and queues them, encoded, for an endpoint.

It knows how each kind of message is composed, and in which protocol a peer receives it.  sessions.py and
directory_view.py decide when one is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from pipeline import endpoint as endpoints
from pipeline import limits, messages
from pipeline.address import derive_unsigned_node_id
from pipeline.messages import (
    AnyNodeMessage,
    DirectorySummary,
    DirectoryUpdate,
    Goodbye,
    Heartbeat,
    Hello,
    NodeRecord,
    Refusal,
    RefusalReason,
    Revocations,
)
from pipeline.overlay import records
from pipeline.overlay.directory import Directory
from pipeline.overlay.envelopes import Envelopes
from pipeline.overlay.peer import Peer

NOWHERE = "127.0.0.1:9"
"""Last endpoint of an id for nodes of protocol 1: the discard port of each.  They call an id for two minutes after its
Goodbye, in messages that name no receiver, and would so take down the link to the next id at its real endpoint.  They
also take packets of the next id for packets of the first one there, and nemo then sends them back."""


class Transmitter:
    """Queue of the messages that one node sends, with the counter that numbers them."""

    def __init__(self, directory: Directory, envelopes: Envelopes) -> None:
        self._directory = directory
        self._envelopes = envelopes
        self.transmits: deque[tuple[str, bytes]] = deque()
        """(endpoint, message)."""
        self.number = 0
        """Number of the last message."""

    def header(self) -> messages.Header:
        """Return the fields with which every message of this node begins."""
        own = self._directory.own
        return {"sender": own.node_id, "incarnation": own.incarnation, "endpoint": own.endpoint}

    # ---- to an endpoint

    def greet(self, endpoint: str, *, dialled: str = "") -> None:
        """Send this node's record to an endpoint whose node is not known; `dialled` as in Greeting."""
        self._queue(endpoint, self._envelopes.greeting(self._directory.own, dialled))

    def call_unsigned(self, endpoint: str, *, dialled: str = "") -> None:
        """Send this node's record, with its sender key, to an endpoint whose node may speak protocol 1 only."""
        own = records.unsigned(self._directory.own)
        self._retire_former_id(endpoint)
        hello = Hello(number=self._next_number(), record=own, dialled=dialled, **self.header())
        self._queue(endpoint, messages.encode_unsigned(hello))

    def refuse(self, stranger: NodeRecord, reason: RefusalReason, held: NodeRecord | None, detail: str = "") -> None:
        """Send the reason for which a verified record is not taken to its node; `held` is the record in the way."""
        attached = [held] if held is not None and held.is_signed else []
        refusal = Refusal(reason=reason, detail=detail[: limits.REFUSAL_DETAIL_MAX], **self.header())
        self._seal(stranger, stranger.endpoint, msgspec.structs.replace(refusal, records=attached))

    def show_revocations(self, stranger: NodeRecord, revocation_list: bytes) -> None:
        """Send the authority's revocation list to a node that it excludes."""
        self._seal(stranger, stranger.endpoint, Revocations(revocation_list=revocation_list, **self.header()))

    # ---- to a peer

    def send(self, peer: Peer, message: AnyNodeMessage, endpoint: str = "") -> None:
        """Queue a message for a peer, at another endpoint than its own if one is given."""
        if peer.record.is_signed:
            self._seal(peer.record, endpoint or peer.endpoint, message)
        else:
            self._queue(endpoint or peer.endpoint, messages.encode_unsigned(message))

    def send_hello(self, peer: Peer, now: float, *, dialled_by_peer: str = "", endpoint: str = "") -> None:
        """Send this node's record to a peer, and note in its session that the record is under way."""
        own = self._directory.own
        if not peer.record.is_signed and peer.acked_stamp is None:
            self._retire_former_id(endpoint or peer.endpoint)
        hello = Hello(
            number=self._next_number(),
            record=own if peer.record.is_signed else records.unsigned(own),
            acked_stamp=peer.stamp_to_ack,
            dialled_by_peer=dialled_by_peer,
            **self.header(),
        )
        self.send(peer, hello, endpoint)
        peer.hello_sent(own.stamp, now)

    def send_heartbeat(self, peer: Peer) -> None:
        """Acknowledge the held version of the peer's record as a sign of life, and show the directory's digest."""
        number, digest = self._next_number(), self._directory.digest
        heartbeat = Heartbeat(number=number, acked_stamp=peer.stamp_to_ack, directory_digest=digest, **self.header())
        self.send(peer, heartbeat)

    def send_goodbye(self, peer: Peer) -> None:
        """Announce that this node stops, or goes on with another id."""
        if not peer.record.is_signed:
            self._retire(peer.endpoint, records.unsigned(self._directory.own))
            return
        self.send(peer, Goodbye(number=self._next_number(), **self.header()))

    def send_goodbyes(self, peers: Iterable[Peer]) -> None:
        """Announce to all peers that are alive that this node stops, or goes on with another id."""
        for peer in peers:
            if peer.is_alive:
                self.send_goodbye(peer)

    def send_summary(self, peer: Peer, *, is_reply_requested: bool) -> None:
        """Send the stamps of all records; `is_reply_requested`: the peer then sends its own summary."""
        entries = self._directory.summary()
        summary = DirectorySummary(entries=entries, is_reply_requested=is_reply_requested, **self.header())
        self.send(peer, summary)

    def send_records(self, peer: Peer, of_others: list[NodeRecord]) -> None:
        """Send records, in as many messages as they need.  Unsigned ones go to peers of protocol 1 only."""
        if peer.record.is_signed:
            sendable = [record for record in of_others if record.is_signed and record.has_keys]
        else:
            sendable = [records.unsigned(record) for record in of_others if record.has_keys]
        for start in range(0, len(sendable), limits.RECORDS_PER_MESSAGE_MAX):
            part = sendable[start : start + limits.RECORDS_PER_MESSAGE_MAX]
            self.send(peer, DirectoryUpdate(records=part, **self.header()))

    def report_clone(self, peer: Peer, clone: NodeRecord) -> None:
        """Send a peer the record of a clone of it."""
        self.send(peer, DirectoryUpdate(records=[clone], **self.header()))

    def send_revocations(self, peer: Peer, revocation_list: bytes) -> None:
        """Send the authority's revocation list; peers of protocol 1 have no use for it."""
        if peer.record.is_signed:
            self.send(peer, Revocations(revocation_list=revocation_list, **self.header()))

    # ---- ids that end, for nodes of protocol 1

    def _retire_former_id(self, endpoint: str) -> None:
        """Move the id that this node had before its upgrade away from its endpoint."""
        own = records.unsigned(self._directory.own)
        former_id = derive_unsigned_node_id(own.name)
        if self._directory.get(former_id) is None and former_id != own.node_id:
            self._retire(endpoint, msgspec.structs.replace(own, node_id=former_id, addresses=()))

    def _retire(self, endpoint: str, record: NodeRecord) -> None:
        last = msgspec.structs.replace(record, version=record.version + 1, endpoint=NOWHERE)
        header = messages.Header(sender=last.node_id, incarnation=last.incarnation, endpoint=NOWHERE)
        for message in (
            Hello(number=self._next_number(), record=last, **header),
            Goodbye(number=self._next_number(), **header),
        ):
            self._queue(endpoint, messages.encode_unsigned(message))

    # ---- encoding

    def _seal(self, receiver: NodeRecord, endpoint: str, message: AnyNodeMessage) -> None:
        number = message.number if isinstance(message, Hello | Heartbeat | Goodbye) else self._next_number()
        self._queue(endpoint, self._envelopes.seal(self._directory.own, receiver, number, message))

    def _queue(self, endpoint: str, data: bytes) -> None:
        """Queue a message; one for a wildcard endpoint is dropped, as nothing can be sent there."""
        if not endpoints.is_wildcard(endpoint):
            self.transmits.append((endpoint, data))

    def _next_number(self) -> int:
        self.number += 1
        return self.number
