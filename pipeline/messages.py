"""Messages between processes: between nodes, from workers to control, between command line and control.

Messages are tagged msgspec structs in msgpack; a value out of its bounds is an error.  Messages between nodes begin
with one byte, the protocol's version; unknown fields and messages of a later version are ignored.

    protocol 1   1 ‖ message                        records are unsigned, whoever has the network key can send anything
    protocol 2   2 ‖ Greeting                       a signed record alone, for an endpoint whose node is not known
                 2 ‖ SealedMessage                  a message that only its receiver can open (overlay/envelopes.py)
                          └─ sealed: Content        the message, and the signed records that belong to it

Fields travel by name: `field(name=…)` gives the name on the wire where it differs from the attribute.  This module
knows no sockets and no keys, and does not act on a message.
"""

from __future__ import annotations

import enum
import functools
from typing import Annotated, Any, TypeAlias, TypedDict, get_args

import msgspec
from msgspec import Meta, field

from pipeline import limits
from pipeline.address import Address, NodeId, is_unicast
from pipeline.drop_reasons import MessageRefusal
from pipeline.endpoint import is_endpoint
from pipeline.errors import WireError

UNSIGNED_PROTOCOL, SIGNED_PROTOCOL = 1, 2
"""Versions of the protocol between nodes: records without and with signatures."""
PROTOCOLS = (UNSIGNED_PROTOCOL, SIGNED_PROTOCOL)
"""Oldest and newest version that this node speaks.  Two nodes use the newest version that both speak."""
UNSIGNED_ONLY = (UNSIGNED_PROTOCOL, UNSIGNED_PROTOCOL)
"""PROTOCOLS of a node without an identity: this object, as msgspec omits a default only if it is the same object."""

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


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Description of a node for the other nodes.  Only the node itself makes a new version of it.

    On the wire it stands in messages of protocol 1 only, without the fields from `public_key` on.
    """

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
    """Empty if the node does not seal (`--insecure`), or if its key is not known yet."""
    second_epoch: Annotated[int, Meta(ge=0, le=255)] | None = None
    """During a sender-key rotation: the epoch of the next key, or of the previous one."""
    second_key: Annotated[bytes, Meta(max_length=32)] = b""
    engine: Name
    explicit_addresses: bool
    public_key: bytes = b""
    """Public key of the node's identity; empty in records of protocol 1."""
    id_attempt: int = 0
    """Number of conflicts of node ids after which the node has its id."""
    protocols: tuple[int, int] = UNSIGNED_ONLY
    """Oldest and newest version of the protocol that the node speaks."""
    is_sealing: bool = False
    """True if the node seals its datagrams, so that its key must be known to open them."""
    is_kept: bool = True
    """False if the node's identity ends with its process, as its state directory cannot be written."""
    certificate: bytes = b""
    """Certificate of the network's authority (keys/certificate.py); empty in an open network."""
    body: bytes = b""
    """The RecordBody as the node has signed it."""
    signature: bytes = b""

    @property
    def stamp(self) -> Stamp:
        """(incarnation, version) of this record."""
        return self.incarnation, self.version

    @property
    def is_signed(self) -> bool:
        """True if the record was verified with its node's public key; False in protocol 1."""
        return bool(self.signature)

    @property
    def has_keys(self) -> bool:
        """True if all is known that the node's datagrams need to be opened."""
        return bool(self.sender_key) or not self.is_sealing


class RecordBody(msgspec.Struct, frozen=True, kw_only=True):
    """What a node signs of its record.  Unknown fields are ignored, and stay in the signed bytes."""

    public_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    id_attempt: Annotated[int, Meta(ge=0, lt=limits.NODE_ID_ATTEMPTS_MAX)]
    name: Name
    incarnation: Incarnation
    version: Count
    addresses: Annotated[tuple[tuple[Packed, Prefix], ...], Meta(max_length=limits.ADDRESSES_PER_NODE_MAX)]
    explicit_addresses: bool
    endpoint: Endpoint
    lanes: Annotated[int, Meta(ge=1, le=limits.LANES_MAX)]
    engine: Name
    protocols: tuple[Annotated[int, Meta(ge=1, le=255)], Annotated[int, Meta(ge=1, le=255)]]
    key_epoch: Annotated[int, Meta(ge=0, le=255)]
    key_digest: Annotated[bytes, Meta(max_length=32)]
    """Digest of the sender key, which travels beside the body; empty if the node does not seal."""
    second_epoch: Annotated[int, Meta(ge=0, le=255)] | None = None
    second_digest: Annotated[bytes, Meta(max_length=32)] = b""
    is_kept: bool = True
    certificate: Annotated[bytes, Meta(max_length=limits.CERTIFICATE_BYTES_MAX)] = b""


class SignedRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record on the wire of protocol 2: the signed body, and what other nodes may add to it."""

    body: Annotated[bytes, Meta(max_length=limits.RECORD_BYTES_MAX)]
    """A RecordBody in msgpack, forwarded as its node has made it."""
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]
    sender_key: Annotated[bytes, Meta(max_length=32)] = b""
    second_key: Annotated[bytes, Meta(max_length=32)] = b""
    seen: Endpoint = ""
    """The node's endpoint as the sender of this message knows it: the body of a node that listens on all addresses
    names none."""


class NodeMessage(msgspec.Struct, frozen=True, kw_only=True):
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
    record: NodeRecord | None = None
    """Record of the sender.  In protocol 2 it stands in the SealedMessage, and is put here when that is opened."""
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

    records: Annotated[list[NodeRecord], Meta(max_length=limits.RECORDS_PER_MESSAGE_MAX)] = []
    """In protocol 2 they stand in the Content, and are put here when that is opened."""


class RefusalReason(enum.StrEnum):
    """Reasons for which a node takes no record of another one."""

    CLONE = "clone"
    """A node with the same identity is alive; its record comes with the refusal."""
    OLDER = "older"
    """A newer record of the same node is known; it comes with the refusal."""
    NAME = "name"
    """A live node with another identity has the name; its record comes with the refusal."""
    PINNED = "pinned"
    """The name is pinned to another identity, whose node is away."""
    ID = "id"
    """A node with another identity has the node id; its record comes with the refusal."""
    CERTIFICATE = "certificate"
    """The network has an authority, and the certificate is missing or not valid; `detail` says why."""
    PROTOCOL = "protocol"
    """The two nodes have no version of the protocol in common."""


class Refusal(NodeMessage, frozen=True, tag="refusal"):
    """The sender does not take the receiver's record, so there is no link."""

    reason: Annotated[str, Meta(max_length=32)]
    """A RefusalReason; a later version may know others."""
    detail: Annotated[str, Meta(max_length=limits.REFUSAL_DETAIL_MAX)] = ""
    records: Annotated[list[NodeRecord], Meta(max_length=0)] = []
    """As in DirectoryUpdate: the record in the way, if any."""


class Revocations(NodeMessage, frozen=True, tag="revocations"):
    """The newest revocation list of the authority that the sender has (keys/certificate.py)."""

    revocation_list: Annotated[bytes, Meta(max_length=limits.REVOCATION_LIST_BYTES_MAX)] = field(name="list")


class EngineMessage(NodeMessage, frozen=True, tag="engine"):
    """Message of an overlay engine to the same engine of another node."""

    engine: Name
    body: Annotated[bytes, Meta(max_length=limits.ENGINE_BODY_BYTES_MAX)]


AnyNodeMessage: TypeAlias = (
    Hello | Heartbeat | Goodbye | DirectorySummary | DirectoryUpdate | Refusal | Revocations | EngineMessage
)


class Greeting(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """First message to an endpoint whose node is not known: the record of the sender, without its keys."""

    record: SignedRecord
    dialled: Endpoint = ""
    """The endpoint to which this Greeting was sent."""


class SealedMessage(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A message for one node, sealed with a key that only the two nodes have."""

    sender: Id
    incarnation: Incarnation
    receiver: Id
    receiver_incarnation: Incarnation
    number: Count
    """Grows with each message of the sender's incarnation; a receiver takes each number once."""
    endpoint: Endpoint
    """Endpoint for replies."""
    sealed: Annotated[bytes, Meta(max_length=limits.MESSAGE_BYTES_MAX)]
    """A Content, sealed together with the fields above."""
    record: SignedRecord | None = None
    """Record of the sender in a Hello, from which the receiver has the sender's public key; without sender keys."""


class Content(msgspec.Struct, frozen=True, array_like=True):
    """The sealed part of a SealedMessage."""

    message: msgspec.Raw
    """An AnyNodeMessage."""
    records: Annotated[list[SignedRecord], Meta(max_length=limits.RECORDS_PER_MESSAGE_MAX)] = []
    keys: tuple[bytes, bytes] = (b"", b"")
    """Sender key and second key of the record in the SealedMessage."""


AnyFrame: TypeAlias = Greeting | SealedMessage


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
_kind_decoder = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_frame_decoder = msgspec.msgpack.Decoder(AnyFrame)
_local_decoder = msgspec.msgpack.Decoder(AnyLocalMessage)
_KINDS = {_encoder.encode(kind.__struct_config__.tag) for kind in get_args(AnyNodeMessage)}


def protocol_of(data: bytes) -> int:
    """Return the version of the protocol in which a message between nodes is written; 0 if it is empty."""
    return data[0] if data else 0


def encode_unsigned(message: AnyNodeMessage) -> bytes:
    """Return the bytes of a message of protocol 1; one that is too long is a bug of ours."""
    return _with_version(UNSIGNED_PROTOCOL, _encoder.encode(message))


def decode_unsigned(data: bytes) -> AnyNodeMessage:
    """Return the message of protocol 1 in these bytes; WireError with a reason word if there is none."""
    message = _decode_message(_without_version(data, UNSIGNED_PROTOCOL))
    if message is None or not _is_sound(message):
        raise WireError(MessageRefusal.MESSAGE_MALFORMED)
    return message


def encode_frame(frame: AnyFrame) -> bytes:
    """Return the bytes of a frame of protocol 2; one that is too long is a bug of ours."""
    return _with_version(SIGNED_PROTOCOL, _encoder.encode(frame))


def decode_frame(data: bytes) -> AnyFrame:
    """Return the frame of protocol 2 in these bytes; WireError with a reason word if there is none."""
    frame: AnyFrame = _decode(_frame_decoder, _without_version(data, SIGNED_PROTOCOL))
    return frame


def encode_message(message: AnyNodeMessage) -> bytes:
    """Return the bytes of a message as they stand in a Content."""
    return _encoder.encode(message)


def decode_message(data: bytes | msgspec.Raw) -> AnyNodeMessage | None:
    """Return the message of a Content; None if a later version has added its kind, WireError if it is malformed."""
    return _decode_message(data)


def _with_version(protocol: int, data: bytes) -> bytes:
    assert len(data) < limits.MESSAGE_BYTES_MAX, f"a message of {len(data)} bytes"
    return bytes([protocol]) + data


def _without_version(data: bytes, protocol: int) -> memoryview:
    if len(data) > limits.MESSAGE_BYTES_MAX:
        raise WireError(MessageRefusal.MESSAGE_TOO_LONG)
    if not data:
        raise WireError(MessageRefusal.MESSAGE_MALFORMED)
    if data[0] != protocol:
        raise WireError(MessageRefusal.PROTOCOL_VERSION)
    return memoryview(data)[1:]


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes | memoryview | msgspec.Raw) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(MessageRefusal.MESSAGE_MALFORMED) from error


def _decode_message(data: bytes | memoryview | msgspec.Raw) -> AnyNodeMessage | None:
    try:
        message: AnyNodeMessage = _decode(_node_decoder, data)
    except WireError:
        kind = _decode(_kind_decoder, data).get("type")
        if kind is None or bytes(kind) in _KINDS:
            raise
        return None
    return message


def records_of(message: AnyNodeMessage | None) -> list[NodeRecord]:
    """Return the records that a message carries."""
    match message:
        case Hello(record=record) if record is not None:
            return [record]
        case DirectoryUpdate(records=records) | Refusal(records=records):
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
    if isinstance(message, Hello):
        record = message.record
        if record is None or (record.node_id, record.incarnation) != (message.sender, message.incarnation):
            return False
    return all(is_usable(record) for record in records_of(message))


def is_usable(record: NodeRecord) -> bool:
    """Return whether a record fits into shared memory.

    Keys have their full length, the endpoint is numeric and the addresses are unicast.  A host name as endpoint would
    let any member choose the name server that this node queries.
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
