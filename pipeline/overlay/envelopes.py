"""Envelopes: messages sealed for one node, and opened by it.

    key      pair key of the two identities ─▶ one key in each direction, for these two incarnations
    number   grows with each message; the receiver's window takes each number once
    header   sender, receiver and both incarnations, sealed together with the message

So a message is from its sender in this start, for its receiver in this start, and new.  A third member that forwards
it, changes it, sends it twice or sends it to another node reaches nothing.  Message keys and probe keys change with
each start of one of the two nodes.

This module knows no sessions: which record belongs to a sender is decided by its caller.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pipeline import limits, messages
from pipeline.address import NodeId
from pipeline.drop_reasons import MessageRefusal
from pipeline.errors import WireError
from pipeline.keys.identity import Signer, derive_key
from pipeline.messages import AnyNodeMessage, Content, Greeting, NodeRecord, SealedMessage
from pipeline.overlay import records

MESSAGE, PROBE = b"message", b"probe"
_encoder = msgspec.msgpack.Encoder()
_content_decoder = msgspec.msgpack.Decoder(Content)


class ReplayWindow:
    """Numbers of one sender's messages that were received: the highest, and which of those below it.

    Messages travel on TCP, but on several connections during a change of keys or addresses.
    """

    __slots__ = ("_highest", "_received")

    def __init__(self) -> None:
        self._highest = -1
        self._received = 0
        """Bit n: the number `_highest` - n was received."""

    @property
    def highest(self) -> int:
        """The highest number received, or -1."""
        return self._highest

    def restart(self, highest: int) -> None:
        """Take no number up to this one."""
        self._highest, self._received = highest, (1 << limits.MESSAGE_WINDOW) - 1

    def take(self, number: int) -> bool:
        """Return whether a number is received for the first time, and note it."""
        ahead = number - self._highest
        if ahead > 0:
            kept = self._received << ahead if ahead < limits.MESSAGE_WINDOW else 0
            self._received = (kept | 1) & ((1 << limits.MESSAGE_WINDOW) - 1)
            self._highest = number
            return True
        if -ahead >= limits.MESSAGE_WINDOW or self._received >> -ahead & 1:
            return False
        self._received |= 1 << -ahead
        return True


class _Keys(NamedTuple):
    """Message keys with one node, and what they were derived for."""

    context: tuple[NodeId, int, NodeId, int, bytes]
    send: bytes
    receive: bytes


class Envelopes:
    """Seals and opens messages of one node."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer
        self._pair_keys: dict[bytes, bytes | None] = {}
        """By public key, least recently made first."""
        self._keys: dict[NodeId, _Keys] = {}

    def greeting(self, own: NodeRecord, dialled: str) -> bytes:
        """Return a Greeting for an endpoint."""
        return messages.encode_frame(Greeting(records.on_wire(own, has_keys=False), dialled))

    def seal(
        self,
        own: NodeRecord,
        receiver: NodeRecord,
        number: int,
        message: AnyNodeMessage,
    ) -> bytes:
        """Return a message sealed for a node.

        The records in it travel in signed form: with their sender keys, except to a node that is refused.
        """
        record, keys = None, (b"", b"")
        has_keys = not isinstance(message, messages.Refusal)
        attached = [records.on_wire(each, has_keys=has_keys) for each in messages.records_of(message)]
        match message:
            case messages.Hello():
                message = msgspec.structs.replace(message, record=None)
                record, attached = records.on_wire(own, has_keys=False), []
                keys = own.sender_key, own.second_key
            case messages.Refusal():
                message, record = msgspec.structs.replace(message, records=[]), records.on_wire(own, has_keys=False)
            case messages.DirectoryUpdate():
                message = msgspec.structs.replace(message, records=[])
            case messages.Revocations():
                record = records.on_wire(own, has_keys=False)
        content = Content(msgspec.Raw(messages.encode_message(message)), attached, keys)
        header = own.node_id, own.incarnation, receiver.node_id, receiver.incarnation, number, own.endpoint
        key = self._keys_with(own, receiver).send
        sealed = self.signer.seal(key, _encoder.encode(content), _encoder.encode(header))
        return messages.encode_frame(SealedMessage(*header, sealed, record))

    def open(self, own: NodeRecord, sender: NodeRecord, frame: SealedMessage) -> Content | None:
        """Return what a node has sealed for this one; None if it has not, WireError if that is malformed."""
        header = (
            frame.sender, frame.incarnation, frame.receiver, frame.receiver_incarnation, frame.number, frame.endpoint
        )  # fmt: skip
        if header[:4] != (sender.node_id, sender.incarnation, own.node_id, own.incarnation):
            return None
        text = self.signer.open(self._keys_with(own, sender).receive, frame.sealed, _encoder.encode(header))
        try:
            return None if text is None else _content_decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(MessageRefusal.MESSAGE_MALFORMED) from error

    def probe_keys(self, own: NodeRecord, peer: NodeRecord) -> tuple[bytes, bytes]:
        """Return the keys of probes to a node and from it."""
        pair_key = self._pair_key(peer.public_key)
        return _directed(pair_key, PROBE, own, peer), _directed(pair_key, PROBE, peer, own)

    def forget(self, node_id: NodeId) -> None:
        """Drop the keys with a node."""
        self._keys.pop(node_id, None)

    def can_pair(self, public_key: bytes) -> bool:
        """Return whether there can be messages between this node and the owner of a public key."""
        return self._shared(public_key) is not None

    def _keys_with(self, own: NodeRecord, peer: NodeRecord) -> _Keys:
        context = own.node_id, own.incarnation, peer.node_id, peer.incarnation, peer.public_key
        held = self._keys.get(peer.node_id)
        if held is None or held.context != context:
            pair_key = self._pair_key(peer.public_key)
            send, receive = _directed(pair_key, MESSAGE, own, peer), _directed(pair_key, MESSAGE, peer, own)
            held = _Keys(context, send, receive)
            if len(self._keys) >= 2 * limits.NODES_MAX:
                del self._keys[next(iter(self._keys))]
            self._keys[peer.node_id] = held
        return held

    def _pair_key(self, public_key: bytes) -> bytes:
        pair_key = self._shared(public_key)
        assert pair_key is not None, "records of such keys are refused"
        return pair_key

    def _shared(self, public_key: bytes) -> bytes | None:
        if public_key not in self._pair_keys:
            if len(self._pair_keys) >= 2 * limits.NODES_MAX:
                del self._pair_keys[next(iter(self._pair_keys))]
            self._pair_keys[public_key] = self.signer.pair_key(public_key)
        return self._pair_keys[public_key]


def _directed(pair_key: bytes, purpose: bytes, sender: NodeRecord, receiver: NodeRecord) -> bytes:
    ends = [each.node_id.to_bytes(4) + each.incarnation.to_bytes(8) for each in (sender, receiver)]
    return derive_key(pair_key, purpose, *ends)
