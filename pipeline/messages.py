"""Every message that crosses a process: between nodes, from workers to control, between command line and control.

Messages are tagged msgspec structs in msgpack; an unknown field or tag is an error, and so is a value out of its
bounds.  What nodes say to each other is prefixed by one byte, the protocol's version, so that a node of another
version is recognised before its fields are looked at.  Nothing here knows sockets, keys or what a message means.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import Annotated, Any, TypeAlias, TypedDict

import msgspec
from msgspec import Meta

from pipeline import limits
from pipeline.address import Address, NodeId, is_unicast
from pipeline.drop_reasons import MessageRefusal
from pipeline.errors import WireError

PROTOCOL_VERSION = 1
"""Raised when nodes of the old and the new version could not understand each other."""

KEY_BYTES = 32
"""Of a sender key, as MP_KEY_BYTES."""

Id: TypeAlias = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Incarnation: TypeAlias = Annotated[int, Meta(ge=0, le=limits.INCARNATION_MAX)]
Name: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=limits.NAME_LENGTH_MAX, pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
]
"""As the configuration allows it; no member's name gets control characters into a log or onto a terminal."""
Endpoint: TypeAlias = Annotated[str, Meta(max_length=limits.ENDPOINT_LENGTH_MAX)]
Packed: TypeAlias = Annotated[bytes, Meta(min_length=4, max_length=16)]
Prefix: TypeAlias = Annotated[int, Meta(ge=0, le=128)]
Stamp: TypeAlias = tuple[Count, Count]
"""(incarnation, version): the age of a record; tuples compare as ages do."""


class NodeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a node tells the others about itself.  Only the node itself makes a new version of it."""

    node_id: Id
    name: Name
    incarnation: Incarnation
    """Grows from start to start of the node; a restarted control process keeps it."""
    version: Count
    addresses: Annotated[tuple[tuple[Packed, Prefix], ...], Meta(max_length=limits.ADDRESSES_PER_NODE_MAX)]
    endpoint: Endpoint
    """"ADDR:PORT" or "[ADDR]:PORT", of control (TCP) and data (UDP) alike."""
    lanes: Annotated[int, Meta(ge=1, le=limits.LANES_MAX)]
    key_epoch: Annotated[int, Meta(ge=0, le=255)]
    sender_key: Annotated[bytes, Meta(max_length=32)]
    """Empty if the node does not seal (`--insecure`)."""
    second_epoch: Annotated[int, Meta(ge=0, le=255)] | None = None
    """While keys rotate: the epoch of the next key, or of the one before."""
    second_key: Annotated[bytes, Meta(max_length=32)] = b""
    engine: Name
    explicit_addresses: bool

    @property
    def stamp(self) -> Stamp:
        """The age of this record."""
        return self.incarnation, self.version


class NodeMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every message between nodes begins with: who sent it, in which life, and where it is to be answered."""

    sender: Id
    incarnation: Count
    endpoint: Endpoint


class Header(TypedDict):
    """The fields of NodeMessage, to be handed to any of its kinds."""

    sender: NodeId
    incarnation: int
    endpoint: str


class Hello(NodeMessage, frozen=True, tag="hello"):
    """Opens a link and renews it when the record has changed; it is answered at once."""

    number: Count
    """Grows with each Hello, Heartbeat and Goodbye of the sender: an overtaken one is not looked at."""
    record: NodeRecord
    known: Stamp | None = None
    """The receiver's record that the sender holds: an acknowledgement.  None: the sender has no link to it."""
    to: Endpoint = ""
    """The endpoint this was sent to, if that is all the sender knows of the receiver."""
    reached: Endpoint = ""
    """The `to` of the Hello that this one answers."""


class Heartbeat(NodeMessage, frozen=True, tag="heartbeat"):
    """Keeps a link up, acknowledges the receiver's record and tells whether the two directories agree."""

    number: Count
    known: Stamp | None
    directory: Annotated[bytes, Meta(max_length=16)]


class Goodbye(NodeMessage, frozen=True, tag="goodbye"):
    """The sender ends: take the link down without waiting for silence."""

    number: Count


class DirectorySummary(NodeMessage, frozen=True, tag="summary"):
    """The ages of all the sender's records.  The receiver sends what is newer, and its own summary if it is `asked`."""

    entries: Annotated[list[tuple[Id, Count, Count]], Meta(max_length=2 * limits.NODES_MAX + 1)]
    asked: bool


class DirectoryUpdate(NodeMessage, frozen=True, tag="directory"):
    """Records that the receiver lacks."""

    records: Annotated[list[NodeRecord], Meta(max_length=limits.RECORDS_PER_MESSAGE_MAX)]


class EngineMessage(NodeMessage, frozen=True, tag="engine"):
    """What the overlay engine says to the same engine of another node."""

    engine: Name
    body: bytes


AnyNodeMessage: TypeAlias = Hello | Heartbeat | Goodbye | DirectorySummary | DirectoryUpdate | EngineMessage


class Punt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="punt"):
    """A packet that a worker hands to control; `kind` is a shm.punt.PuntKind."""

    lane: Annotated[int, Meta(ge=0, lt=limits.LANES_MAX)]
    kind: Annotated[int, Meta(ge=0, le=255)]
    packet: bytes


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="request"):
    """What the command line asks of a running node: Request("show", "links")."""

    verb: Annotated[str, Meta(max_length=32)]
    noun: Annotated[str, Meta(max_length=32)] = ""
    arguments: dict[str, str] = {}


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="reply"):
    """The answer: `value` is what `--json` prints, `error` one line if not `ok`."""

    ok: bool
    error: str = ""
    value: Any = None


AnyLocalMessage: TypeAlias = Punt | Request | Reply

_encoder = msgspec.msgpack.Encoder()
_node_decoder = msgspec.msgpack.Decoder(AnyNodeMessage)
_local_decoder = msgspec.msgpack.Decoder(AnyLocalMessage)
_VERSION_BYTE = bytes([PROTOCOL_VERSION])


def encode_node(message: AnyNodeMessage) -> bytes:
    """The bytes of a message to another node; a message of ours that is too long is our bug."""
    data = _VERSION_BYTE + _encoder.encode(message)
    assert len(data) <= limits.MESSAGE_BYTES_MAX, f"{type(message).__name__} of {len(data)} bytes"
    return data


def decode_node(data: bytes) -> AnyNodeMessage:
    """The message in those bytes; WireError with a reason word if there is none."""
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
    """The records that a message tells."""
    match message:
        case Hello(record=record):
            return [record]
        case DirectoryUpdate(records=records):
            return records
        case _:
            return []


def encode_local(message: AnyLocalMessage) -> bytes:
    """The bytes of a message within the host."""
    return _encoder.encode(message)


def decode_local(data: bytes) -> AnyLocalMessage:
    """The message in those bytes; WireError with a reason word if there is none."""
    if len(data) > limits.LOCAL_MESSAGE_BYTES_MAX:
        raise WireError(MessageRefusal.MESSAGE_TOO_LONG)
    try:
        message: AnyLocalMessage = _local_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(MessageRefusal.MESSAGE_MALFORMED) from error
    return message


def _is_sound(message: AnyNodeMessage) -> bool:
    """What types cannot say: a Hello is about its sender, and records hold what shared memory has places for."""
    match message:
        case Hello(record=record):
            return (record.node_id, record.incarnation) == (message.sender, message.incarnation) and _is_usable(record)
        case DirectoryUpdate(records=records):
            return all(_is_usable(record) for record in records)
        case _:
            return True


def _is_usable(record: NodeRecord) -> bool:
    """A literal endpoint (a name would be looked up, by whom a member pleases), whole keys, addresses of hosts."""
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


@functools.lru_cache(maxsize=4096)
def is_endpoint(text: str) -> bool:
    """Whether this is "ADDR:PORT" or "[ADDR]:PORT" with the address of a host, or a wildcard, in figures."""
    host, _, port = text.rpartition(":")
    is_v6 = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_v6 else host)
    except ValueError:
        return False
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    return is_port and (address.version == 6) is is_v6 and not address.is_multicast
