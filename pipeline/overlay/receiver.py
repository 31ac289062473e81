"""Receiver: from the bytes that arrive to a message whose sender is known.

    protocol 2   Greeting       ──signature─────────────────────────▶ Greeted: the record of a node, of any age
                 SealedMessage  ──receiver, seal, number, records──▶ the message, which is new and for this node
    protocol 1   message        ──no identity has this node id─────▶ the message

A message for another node, or of a node that is not known, is answered with this node's own record, so that its sender
drops what it knew; so is a Greeting of an excluded node, which then calls with a Hello.  Violations raise WireError:
the driver cuts the connection off.  sessions.py acts on messages.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec

from pipeline import endpoint as endpoints
from pipeline import limits, messages
from pipeline.drop_reasons import MessageRefusal
from pipeline.errors import WireError
from pipeline.messages import (
    AnyNodeMessage,
    Content,
    DirectoryUpdate,
    Greeting,
    Hello,
    NodeRecord,
    Refusal,
    Revocations,
    SealedMessage,
    SignedRecord,
)
from pipeline.overlay import records
from pipeline.overlay.envelopes import Envelopes
from pipeline.overlay.members import Members
from pipeline.overlay.peer_table import PeerTable
from pipeline.overlay.transmitter import Transmitter
from pipeline.token_bucket import TokenBucket


class Greeted(NamedTuple):
    """A Greeting with a verified record.  Anybody may have sent it, and may have kept it for long."""

    record: NodeRecord
    dialled: str


Received: TypeAlias = AnyNodeMessage | Greeted


class Receiver:
    """Reads what arrives at one node."""

    def __init__(
        self, peer_table: PeerTable, transmitter: Transmitter, envelopes: Envelopes, members: Members, *, now: float
    ) -> None:
        self._peer_table = peer_table
        self._transmitter = transmitter
        self._envelopes = envelopes
        self._members = members
        self._verified: dict[tuple[bytes, bytes], NodeRecord] = {}
        """Records that were verified, without sender keys, by body and signature; the oldest first."""
        self._greetings = TokenBucket(rate_per_s=limits.GREETINGS_PER_S, burst=limits.GREETINGS_PER_S, now=now)
        self.replays = 0
        """Sealed messages that were received before."""

    def read(self, data: bytes, hint: str, now: float) -> Received | None:
        """Return what was received, or None if there is nothing to act on.

        `hint` is the address from which the bytes came, or empty.  WireError with a reason word after a violation.
        """
        received = self._read(data, hint, now)
        records_received = [received.record] if isinstance(received, Greeted) else messages.records_of(received)
        if any(_is_sealing(each) is not _is_sealing(self._peer_table.own) for each in records_received):
            # Without a sender key in its record, anybody could send packets in the name of that node.
            raise WireError(MessageRefusal.RECORD_UNSEALED)
        return received

    def _read(self, data: bytes, hint: str, now: float) -> Received | None:
        if messages.protocol_of(data) == messages.UNSIGNED_PROTOCOL:
            return self._read_unsigned(data)
        frame = messages.decode_frame(data)
        if isinstance(frame, Greeting):
            record = self._verify(frame.record)
            endpoint = endpoints.fill_in(record.endpoint, hint)
            if self._peer_table.is_excluded(record.node_id):
                self._show_own_record(record.endpoint, hint, now)
                return None
            is_admitted = self._peer_table.directory.admits_endpoint(endpoint, hint)
            return Greeted(record, frame.dialled) if is_admitted else None
        return self._read_sealed(frame, hint, now)

    # ---- protocol 2

    def _read_sealed(self, frame: SealedMessage, hint: str, now: float) -> AnyNodeMessage | None:
        own = self._peer_table.own
        sender = self._sender_of(frame)
        if sender is None or (frame.receiver, frame.receiver_incarnation) != (own.node_id, own.incarnation):
            self._show_own_record(frame.endpoint, hint, now)
            return None
        content = self._envelopes.open(own, sender, frame)
        if content is None and frame.record is None:
            # This node holds another record of that id: of another start, or of another identity.
            self._show_own_record(frame.endpoint, hint, now)
            return None
        if content is None:
            raise WireError(MessageRefusal.SEAL)
        peer = self._peer_table.peers.get(frame.sender)
        if peer is not None and (peer.record.public_key, peer.record.incarnation) == (
            sender.public_key, sender.incarnation
        ) and not peer.window.take(frame.number):  # fmt: skip
            self.replays += 1
            return None
        message = messages.decode_message(content.message)
        if message is None:
            return None
        if (message.sender, message.incarnation) != (frame.sender, frame.incarnation):
            raise WireError(MessageRefusal.MESSAGE_MALFORMED)
        return self._with_records(message, sender, content)

    def _sender_of(self, frame: SealedMessage) -> NodeRecord | None:
        """Return the record that holds the sender's public key: the one in the frame, or that of a peer."""
        if frame.record is not None:
            record = self._verify(frame.record)
            if (record.node_id, record.incarnation) != (frame.sender, frame.incarnation):
                raise WireError(MessageRefusal.MESSAGE_MALFORMED)
            return record
        peer = self._peer_table.peers.get(frame.sender)
        if peer is None or not peer.record.is_signed or peer.record.incarnation != frame.incarnation:
            return None
        return peer.record

    def _with_records(self, message: AnyNodeMessage, sender: NodeRecord, content: Content) -> AnyNodeMessage:
        """Return the message with the records that travelled beside it."""
        match message:
            case Hello():
                record = records.with_keys(sender, content.keys)
                if record is None:
                    raise WireError(MessageRefusal.RECORD_SIGNATURE)
                if not messages.is_usable(record):
                    raise WireError(MessageRefusal.MESSAGE_MALFORMED)
                return msgspec.structs.replace(message, record=record)
            case DirectoryUpdate() | Refusal():
                verified = [self._verify(each) for each in content.records]
                return msgspec.structs.replace(message, records=verified)
            case _:
                return message

    def _verify(self, signed: SignedRecord) -> NodeRecord:
        """Return the record; WireError if its node has not signed it."""
        record = self._verified.get((signed.body, signed.signature))
        if record is None:
            record = records.verify(signed, self._envelopes.signer)
            if record is None or not self._envelopes.can_pair(record.public_key):
                raise WireError(MessageRefusal.RECORD_SIGNATURE)
            if len(self._verified) >= 2 * limits.NODES_MAX:
                del self._verified[next(iter(self._verified))]
            self._verified[signed.body, signed.signature] = record
        if signed.sender_key:
            keyed = records.with_keys(record, (signed.sender_key, signed.second_key))
            if keyed is None:
                raise WireError(MessageRefusal.RECORD_SIGNATURE)
            record = keyed
        record = records.with_endpoint_seen(record, signed.seen)
        if not messages.is_usable(record):
            raise WireError(MessageRefusal.MESSAGE_MALFORMED)
        return record

    def _show_own_record(self, listens: str, hint: str, now: float) -> None:
        endpoint = endpoints.fill_in(listens, hint)
        if self._peer_table.directory.admits_endpoint(endpoint, hint) and self._greetings.take(1, now):
            self._transmitter.greet(endpoint)

    # ---- protocol 1

    def _read_unsigned(self, data: bytes) -> AnyNodeMessage | None:
        if not self._members.accepts_unsigned:
            raise WireError(MessageRefusal.PROTOCOL_VERSION)
        message = messages.decode_unsigned(data)
        peer = self._peer_table.peers.get(message.sender)
        if message.sender == self._peer_table.own.node_id or (peer is not None and peer.record.is_signed):
            raise WireError(MessageRefusal.IDENTITY)
        match message:
            case Hello(record=record) if record is not None:
                return msgspec.structs.replace(message, record=records.unsigned(record))
            case Refusal() | Revocations():
                return None
            case _:
                return message


def _is_sealing(record: NodeRecord) -> bool:
    return record.is_sealing if record.is_signed else bool(record.sender_key)
