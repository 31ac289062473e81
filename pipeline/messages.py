"""Messages between processes: between nodes, from workers to control, between command line and control.

Messages are tagged msgspec structs in msgpack; an unknown field or tag is an error, and so is a value out of its
bounds.  Messages between nodes begin with one byte, the protocol's version, so that a node of another version is
recognised before its fields are read.  Fields travel by name: `field(name=…)` gives the name on the wire where it
differs from the attribute.  This module knows no sockets and no keys, and does not act on a message.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, TypeAlias, TypedDict

import msgspec
from msgspec import Meta, field

from pipeline import limits
from pipeline.address import Address, NodeId, is_unicast
from pipeline.drop_reasons import MessageRefusal
from pipeline.endpoint import is_endpoint
from pipeline.errors import WireError

PROTOCOL_VERSION = 1
"""Raised when nodes of the old and the new version cannot read each other's messages."""

KEY_BYTES = 32
"""Length of a sender key, as MP_KEY_BYTES."""

Id: TypeAlias = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Incarnation: TypeAlias = Annotated[int, Meta(ge=0, le=limits.INCARNATION_MAX)]
Name: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=limits.NAME_LENGTH_MAX, pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
]
"""The names that the configuration allows: no name of a node puts control characters into a log or a terminal."""
Endpoint: TypeAlias = Annotated[str, Meta(max_length=limits.ENDPOINT_LENGTH_MAX)]
Packed: TypeAlias = Annotated[bytes, Meta(min_length=4, max_length=16)]
Prefix: TypeAlias = Annotated[int, Meta(ge=0, le=128)]
Stamp: TypeAlias = tuple[Count, Count]
"""(incarnation, version) of a record; the greater tuple is the newer record."""


class NodeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Description of a node for the other nodes.  Only the node itself makes a new version of it."""

    node_id: Id
    name: Name
    incarnation: Incarnation
    """Grows with each start of the node; a restarted control process keeps it."""
    version: Count
    addresses: Annotated[tuple[tuple[Packed, Prefix], ...], Meta(max_length=limits.ADDRESSES_PER_NODE_MAX)]
    endpoint: Endpoint
    """"ADDR:PORT" or "[ADDR]:PORT", for control (TCP) and for data (UDP)."""
    lanes: Annotated[int, Meta(ge=1, le=limits.LANES_MAX)]
    key_epoch: Annotated[int, Meta(ge=0, le=255)]
    sender_key: Annotated[bytes, Meta(max_length=32)]
    """Empty if the node does not seal (`--insecure`)."""
    second_epoch: Annotated[int, Meta(ge=0, le=255)] | None = None
    """During a sender-key rotation: the epoch of the next key, or of the previous one."""
    second_key: Annotated[bytes, Meta(max_length=32)] = b""
    engine: Name
    explicit_addresses: bool

    @property
    def stamp(self) -> Stamp:
        """(incarnation, version) of this record."""
        return self.incarnation, self.version


class NodeMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Fields of every message between nodes: the sender, its incarnation, and the endpoint for replies."""

    sender: Id
    incarnation: Count
    endpoint: Endpoint


class Header(TypedDict):
    """The fields of NodeMessage as arguments for any of its kinds."""

    sender: NodeId
    incarnation: int
    endpoint: str


class Hello(NodeMessage, frozen=True, tag="hello"):
    """Opens a link, and renews it when the sender's record has changed; it is answered at once."""

    number: Count
    """Grows with each Hello, Heartbeat and Goodbye of the sender: a message that was overtaken is ignored."""
    record: NodeRecord
    acked_stamp: Stamp | None = field(default=None, name="known")
    """Acknowledges this version of the receiver's record.  None: the sender has no link to the receiver."""
    dialled: Endpoint = field(default="", name="to")
    """The endpoint this Hello was sent to, if the sender knows nothing else of the receiver."""
    dialled_by_peer: Endpoint = field(default="", name="reached")
    """`dialled` of the Hello that this one answers."""


class Heartbeat(NodeMessage, frozen=True, tag="heartbeat"):
    """Keeps a link up, acknowledges the receiver's record and shows whether the two directories agree."""

    number: Count
    acked_stamp: Stamp | None = field(name="known")
    directory_digest: Annotated[bytes, Meta(max_length=16)] = field(name="directory")


class Goodbye(NodeMessage, frozen=True, tag="goodbye"):
    """The sender stops: take the link down without waiting for the timeout."""

    number: Count


class DirectorySummary(NodeMessage, frozen=True, tag="summary"):
    """Versions of all the sender's records.  The receiver sends the records of which it has newer ones."""

    entries: Annotated[list[tuple[Id, Count, Count]], Meta(max_length=2 * limits.NODES_MAX + 1)]
    is_reply_requested: bool = field(name="asked")
    """The receiver then also sends its own summary, if it lacks records."""


class DirectoryUpdate(NodeMessage, frozen=True, tag="directory"):
    """Records that the receiver lacks."""

    records: Annotated[list[NodeRecord], Meta(max_length=limits.RECORDS_PER_MESSAGE_MAX)]


class EngineMessage(NodeMessage, frozen=True, tag="engine"):
    """Message of an overlay engine to the same engine of another node."""

    engine: Name
    body: bytes


AnyNodeMessage: TypeAlias = Hello | Heartbeat | Goodbye | DirectorySummary | DirectoryUpdate | EngineMessage


class Punt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="punt"):
    """A packet that a worker passes to control; `kind` is a shm.punt.PuntKind."""

    lane: Annotated[int, Meta(ge=0, lt=limits.LANES_MAX)]
    kind: Annotated[int, Meta(ge=0, le=255)]
    packet: bytes


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="request"):
    """Request of the command line to a running node, as Request("show", "links")."""

    verb: Annotated[str, Meta(max_length=32)]
    noun: Annotated[str, Meta(max_length=32)] = ""
    arguments: dict[str, str] = {}


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="reply"):
    """Reply to a Request: `value` is printed by `--json`; `error` is one line if not `ok`."""

    ok: bool
    error: str = ""
    value: Any = None


AnyLocalMessage: TypeAlias = Punt | Request | Reply

_encoder = msgspec.msgpack.Encoder()
_node_decoder = msgspec.msgpack.Decoder(AnyNodeMessage)
_local_decoder = msgspec.msgpack.Decoder(AnyLocalMessage)
_VERSION_BYTE = bytes([PROTOCOL_VERSION])


def encode_node(message: AnyNodeMessage) -> bytes:
    """Return the bytes of a message to another node; one that is too long is a bug of ours."""
    data = _VERSION_BYTE + _encoder.encode(message)
    assert len(data) <= limits.MESSAGE_BYTES_MAX, f"{type(message).__name__} of {len(data)} bytes"
    return data


def decode_node(data: bytes) -> AnyNodeMessage:
    """Return the message in these bytes; WireError with a reason word if there is none."""
    if len(data) > limits.MESSAGE_BYTES_MAX:
        raise WireError(MessageRefusal.MESSAGE_TOO_LONG)
    if not data:
        raise WireError(MessageRefusal.MESSAGE_MALFORMED)
    if data[0] != PROTOCOL_VERSION:
        raise WireError(MessageRefusal.PROTOCOL_VERSION)
    try:
        message: AnyNodeMessage = _node_decoder.decode(data[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(MessageRefusal.MESSAGE_MALFORMED) from error
    if not _is_sound(message):
        raise WireError(MessageRefusal.MESSAGE_MALFORMED)
    return message


def records_of(message: AnyNodeMessage) -> list[NodeRecord]:
    """Return the records that a message carries."""
    match message:
        case Hello(record=record):
            return [record]
        case DirectoryUpdate(records=records):
            return records
        case _:
            return []


def encode_local(message: AnyLocalMessage) -> bytes:
    """Return the bytes of a message within the host."""
    return _encoder.encode(message)


def decode_local(data: bytes) -> AnyLocalMessage:
    """Return the message in these bytes; WireError with a reason word if there is none."""
    if len(data) > limits.LOCAL_MESSAGE_BYTES_MAX:
        raise WireError(MessageRefusal.MESSAGE_TOO_LONG)
    try:
        message: AnyLocalMessage = _local_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(MessageRefusal.MESSAGE_MALFORMED) from error
    return message


def _is_sound(message: AnyNodeMessage) -> bool:
    """Check what the types cannot express: a Hello describes its sender, and records fit into shared memory."""
    match message:
        case Hello(record=record):
            return (record.node_id, record.incarnation) == (message.sender, message.incarnation) and _is_usable(record)
        case DirectoryUpdate(records=records):
            return all(_is_usable(record) for record in records)
        case _:
            return True


def _is_usable(record: NodeRecord) -> bool:
    """Check that keys have their full length, the endpoint is numeric and the addresses are unicast.

    A host name as endpoint would let any member choose the name server that this node queries.
    """
    second = len(record.sender_key) if record.second_epoch is not None else 0
    return (
        len(record.sender_key) in (0, KEY_BYTES)
        and len(record.second_key) == second
        and is_endpoint(record.endpoint)
        and _are_addresses(record.addresses)
    )


@functools.lru_cache(maxsize=4096)
def _are_addresses(addresses: tuple[tuple[Address, int], ...]) -> bool:
    return all(
        len(address) in (4, 16) and prefix <= 8 * len(address) and is_unicast(address) for address, prefix in addresses
    )
