"""Goal: a decoded message equals the encoded one, any other bytes are refused with a reason word, and what a later
version adds is ignored.

Method: every kind encoded and decoded, in protocol 1, as the content of a sealed message, and every frame of protocol
2; truncated, extended and random bytes; values out of their bounds; further fields and kinds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import limits, messages
from pipeline.drop_reasons import MessageRefusal
from pipeline.errors import WireError
from pipeline.messages import (
    SIGNED_PROTOCOL,
    UNSIGNED_PROTOCOL,
    Content,
    DirectorySummary,
    DirectoryUpdate,
    EngineMessage,
    Goodbye,
    Greeting,
    Header,
    Heartbeat,
    Hello,
    NodeRecord,
    Punt,
    Refusal,
    RefusalReason,
    Reply,
    Request,
    Revocations,
    SealedMessage,
    SignedRecord,
)
from pipeline.overlay import records
from tests.unit.overlay_net import Forger

HEADER: Header = {"sender": 7, "incarnation": 9, "endpoint": "192.0.2.1:4747"}


def record(**changes: Any) -> NodeRecord:
    base = NodeRecord(
        node_id=7,
        name="a",
        incarnation=9,
        version=1,
        addresses=((b"\x0a\x4d\0\1", 16), (b"\xfd\x77" + bytes(14), 64)),
        endpoint="192.0.2.1:4747",
        lanes=1,
        key_epoch=0,
        sender_key=bytes(32),
        engine="mesh",
        explicit_addresses=False,
    )
    return msgspec.structs.replace(base, **changes)


NODE_MESSAGES: list[messages.AnyNodeMessage] = [
    Hello(number=1, record=record(), acked_stamp=(3, 4), dialled="x", dialled_by_peer="y", **HEADER),
    Heartbeat(number=2, acked_stamp=None, directory_digest=bytes(8), **HEADER),
    Goodbye(number=3, **HEADER),
    DirectorySummary(entries=[(1, 2, 3)], is_reply_requested=True, **HEADER),
    DirectoryUpdate(records=[record()], **HEADER),
    Refusal(reason=RefusalReason.CERTIFICATE, detail="its certificate has expired", **HEADER),
    Revocations(revocation_list=b"list", **HEADER),
    EngineMessage(engine="mesh", body=b"abc", **HEADER),
]
SIGNED = SignedRecord(b"body", bytes(64), bytes(32), bytes(32), "192.0.2.1:4747")
FRAMES: list[messages.AnyFrame] = [
    Greeting(SIGNED, "192.0.2.1:4747"),
    SealedMessage(7, 9, 8, 3, 1, "192.0.2.1:4747", b"sealed", SIGNED),
    SealedMessage(7, 9, 8, 3, 2, "192.0.2.1:4747", b"sealed"),
]
LOCAL_MESSAGES = [
    Punt(lane=0, kind=1, packet=b"abc"),
    Request("show", "links"),
    Reply(ok=True, value=[{"peer": "a"}]),
    Reply(ok=False, error="no"),
]


CODECS: list[tuple[Callable[[Any], bytes], Callable[[bytes], Any], list[Any]]] = [
    (messages.encode_unsigned, messages.decode_unsigned, NODE_MESSAGES),
    (messages.encode_message, messages.decode_message, NODE_MESSAGES),
    (messages.encode_frame, messages.decode_frame, FRAMES),
]
CASES = [
    pytest.param(encode, decode, value, id=f"{decode.__name__}-{type(value).__name__}")
    for encode, decode, values in CODECS
    for value in values
]


@pytest.mark.parametrize(("encode", "decode", "value"), CASES)
def test_message_between_nodes_is_decoded_as_encoded(
    encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], value: Any
) -> None:
    """Goal: decoding is the inverse of encoding.  Method: a message of each kind, and each frame."""
    assert decode(encode(value)) == value


@pytest.mark.parametrize("message", LOCAL_MESSAGES, ids=repr)
def test_local_message_is_decoded_as_encoded(message: messages.AnyLocalMessage) -> None:
    """Goal: decoding is the inverse of encoding.  Method: a message of each kind between processes."""
    assert messages.decode_local(messages.encode_local(message)) == message


@pytest.mark.parametrize(("encode", "decode", "value"), CASES)
def test_truncated_or_extended_message_is_refused(
    encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], value: Any
) -> None:
    """Goal: only whole messages are accepted.  Method: every prefix, and one byte too many."""
    data = encode(value)
    for end in range(len(data)):
        with pytest.raises(WireError, match=MessageRefusal.MESSAGE_MALFORMED):
            decode(data[:end])
    with pytest.raises(WireError, match=MessageRefusal.MESSAGE_MALFORMED):
        decode(data + b"\0")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    """Goal: no bytes raise another error than WireError.  Method: hypothesis."""
    with pytest.raises(WireError):
        messages.decode_unsigned(bytes([UNSIGNED_PROTOCOL]) + data)
    with pytest.raises(WireError):
        messages.decode_frame(bytes([SIGNED_PROTOCOL]) + data)
    with contextlib.suppress(WireError):  # a kind of a later version is none
        assert messages.decode_message(data) is None
    with pytest.raises(WireError):
        messages.decode_local(data)


@pytest.mark.parametrize("protocol", [0, UNSIGNED_PROTOCOL, SIGNED_PROTOCOL, SIGNED_PROTOCOL + 1, 255])
def test_another_protocol_version_has_a_reason_of_its_own(protocol: int) -> None:
    """Goal: an operator can distinguish another version from garbage, and no message is read in the form of another
    version.  Method: the first byte changed."""
    unsigned, frame = messages.encode_unsigned(NODE_MESSAGES[2]), messages.encode_frame(FRAMES[0])
    for own, decode, data in (
        (UNSIGNED_PROTOCOL, messages.decode_unsigned, unsigned),
        (SIGNED_PROTOCOL, messages.decode_frame, frame),
    ):
        assert messages.protocol_of(data) == own
        if protocol != own:
            with pytest.raises(WireError, match=MessageRefusal.PROTOCOL_VERSION):
                decode(bytes([protocol]) + data[1:])


def test_too_long_message_is_refused_before_decoding() -> None:
    """Goal: a huge message costs no decoding.  Method: one byte above the bound."""
    for protocol, decode in ((UNSIGNED_PROTOCOL, messages.decode_unsigned), (SIGNED_PROTOCOL, messages.decode_frame)):
        with pytest.raises(WireError, match=MessageRefusal.MESSAGE_TOO_LONG):
            decode(bytes([protocol]) + bytes(limits.MESSAGE_BYTES_MAX))


@pytest.mark.parametrize(
    "changes",
    [
        {"node_id": 0},
        {"node_id": 1 << 32},
        {"name": ""},
        {"name": "x" * 64},
        {"version": -1},
        {"lanes": 0},
        {"lanes": limits.LANES_MAX + 1},
        {"sender_key": bytes(33)},
        {"addresses": ((b"12345", 16),)},
        {"addresses": ((b"1234", 33),)},
        {"addresses": ((b"1234", 16),) * 17},
        {"endpoint": "x" * 65},
        {"node_id": 8},
        {"incarnation": 8},
    ],
    ids=repr,
)
def test_record_out_of_bounds_is_refused(changes: dict[str, Any]) -> None:
    """Goal: no field of a record exceeds its bound or contradicts the header.  Method: one fault each."""
    bad = Hello(number=1, record=record(**changes), **HEADER)
    with pytest.raises(WireError, match=MessageRefusal.MESSAGE_MALFORMED):
        messages.decode_unsigned(messages.encode_unsigned(bad))


@pytest.mark.parametrize(
    "bad",
    [
        Greeting(msgspec.structs.replace(SIGNED, body=bytes(limits.RECORD_BYTES_MAX + 1))),
        Greeting(msgspec.structs.replace(SIGNED, signature=bytes(63))),
        Greeting(msgspec.structs.replace(SIGNED, signature=bytes(65))),
        Greeting(msgspec.structs.replace(SIGNED, sender_key=bytes(33))),
        Greeting(msgspec.structs.replace(SIGNED, second_key=bytes(33))),
        Greeting(msgspec.structs.replace(SIGNED, seen="x" * 65)),
        Greeting(SIGNED, "x" * 65),
        SealedMessage(0, 9, 8, 3, 1, "", b""),
        SealedMessage(1 << 32, 9, 8, 3, 1, "", b""),
        SealedMessage(7, limits.INCARNATION_MAX + 1, 8, 3, 1, "", b""),
        SealedMessage(7, 9, 8, limits.INCARNATION_MAX + 1, 1, "", b""),
        SealedMessage(7, 9, 0, 3, 1, "", b""),
        SealedMessage(7, 9, 8, 3, -1, "", b""),
        SealedMessage(7, 9, 8, 3, 1 << 63, "", b""),
        SealedMessage(7, 9, 8, 3, 1, "x" * 65, b""),
    ],
    ids=repr,
)
def test_frame_out_of_bounds_is_refused(bad: messages.AnyFrame) -> None:
    """Goal: no field of a frame exceeds its bound.  Method: one fault each."""
    with pytest.raises(WireError, match=MessageRefusal.MESSAGE_MALFORMED):
        messages.decode_frame(messages.encode_frame(bad))


HEAD = ["sender", "incarnation", "endpoint"]
FIELDS = [
    ["type", "number", "record", "known", "to", "reached", *HEAD],
    ["type", "number", "known", "directory", *HEAD],
    ["type", "number", *HEAD],
    ["type", "entries", "asked", *HEAD],
    ["type", "records", *HEAD],
    ["type", "reason", "detail", "records", *HEAD],
    ["type", "list", *HEAD],
    ["type", "engine", "body", *HEAD],
]


def test_fields_have_the_names_of_the_protocol() -> None:
    """Goal: a renamed attribute does not change the wire format.  Method: the encoded maps of all kinds by name."""
    assert [list(msgspec.msgpack.decode(messages.encode_unsigned(each)[1:])) for each in NODE_MESSAGES] == FIELDS


def test_record_of_protocol_1_has_the_fields_that_those_nodes_accept() -> None:
    """Goal: nodes of the previous version, which refuse unknown fields, accept the records that they are sent.
    Method: the encoded map of a record with all fields of protocol 2, as it is sent to them."""
    sent = records.unsigned(Forger("a", second_epoch=1, second_key=bytes(32), certificate=b"x").record)
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(sent))
    assert list(fields) == [
        "node_id", "name", "incarnation", "version", "addresses", "endpoint", "lanes", "key_epoch", "sender_key",
        "second_epoch", "second_key", "engine", "explicit_addresses",
    ]  # fmt: skip


@pytest.mark.parametrize(("message", "fields"), list(zip(NODE_MESSAGES, FIELDS, strict=True)), ids=repr)
def test_unknown_field_is_ignored(message: messages.AnyNodeMessage, fields: list[str]) -> None:
    """Goal: a later version can add a field.  Method: one further field in each kind, and in its record."""
    values = msgspec.msgpack.decode(messages.encode_message(message)) | {"surprise": [1, {"a": b""}]}
    for each in (values.get("record"), *values.get("records", ())):
        if each is not None:
            each["surprise"] = 1
    data = msgspec.msgpack.encode(values)
    assert messages.decode_message(data) == message
    assert messages.decode_unsigned(bytes([UNSIGNED_PROTOCOL]) + data) == message


@pytest.mark.parametrize("frame", FRAMES, ids=repr)
def test_further_fields_of_a_frame_are_ignored(frame: messages.AnyFrame) -> None:
    """Goal: a later version can add a field to frames and records.  Method: one further value at the end of each."""
    values = msgspec.msgpack.decode(messages.encode_frame(frame)[1:])
    for each in values:
        if isinstance(each, list):
            each.append("surprise")
    data = bytes([SIGNED_PROTOCOL]) + msgspec.msgpack.encode([*values, "surprise"])
    assert messages.decode_frame(data) == frame
    content = Content(msgspec.Raw(messages.encode_message(NODE_MESSAGES[0])), [SIGNED], (b"a", b"b"))
    further = [*msgspec.msgpack.decode(msgspec.msgpack.encode(content)), "surprise"]
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(further), type=Content)
    assert messages.decode_message(decoded.message) == NODE_MESSAGES[0]
    assert (decoded.records, decoded.keys) == (content.records, content.keys)


def test_unknown_kind_of_message_is_ignored_and_a_malformed_known_one_is_not() -> None:
    """Goal: a later version can add a kind of message.  Method: such a kind, and a known one without its fields."""
    assert messages.decode_message(msgspec.msgpack.encode({"type": "surprise", "sender": 7})) is None
    with pytest.raises(WireError, match=MessageRefusal.MESSAGE_MALFORMED):
        messages.decode_message(msgspec.msgpack.encode({"type": "goodbye", "sender": 7}))
    with pytest.raises(WireError, match=MessageRefusal.MESSAGE_MALFORMED):
        messages.decode_message(msgspec.msgpack.encode({"sender": 7}))
