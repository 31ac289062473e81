"""Goal: a decoded message equals the encoded one, and any other bytes are refused with a reason word.

Method: every kind encoded and decoded; truncated, extended and random bytes; values out of their bounds.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import limits, messages
from pipeline.drop_reasons import MessageRefusal
from pipeline.errors import WireError
from pipeline.messages import (
    DirectorySummary,
    DirectoryUpdate,
    EngineMessage,
    Goodbye,
    Header,
    Heartbeat,
    Hello,
    NodeRecord,
    Punt,
    Reply,
    Request,
)

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
    EngineMessage(engine="mesh", body=b"abc", **HEADER),
]
LOCAL_MESSAGES = [
    Punt(lane=0, kind=1, packet=b"abc"),
    Request("show", "links"),
    Reply(ok=True, value=[{"peer": "a"}]),
    Reply(ok=False, error="no"),
]


@pytest.mark.parametrize("message", NODE_MESSAGES, ids=lambda message: type(message).__name__)
def test_node_message_is_decoded_as_encoded(message: messages.AnyNodeMessage) -> None:
    """Goal: decoding is the inverse of encoding.  Method: a message of each kind between nodes."""
    assert messages.decode_node(messages.encode_node(message)) == message


@pytest.mark.parametrize("message", LOCAL_MESSAGES, ids=repr)
def test_local_message_is_decoded_as_encoded(message: messages.AnyLocalMessage) -> None:
    """Goal: decoding is the inverse of encoding.  Method: a message of each kind between processes."""
    assert messages.decode_local(messages.encode_local(message)) == message


@pytest.mark.parametrize("message", NODE_MESSAGES, ids=lambda message: type(message).__name__)
def test_truncated_or_extended_message_is_refused(message: messages.AnyNodeMessage) -> None:
    """Goal: only whole messages are accepted.  Method: every prefix, and one byte too many."""
    data = messages.encode_node(message)
    for end in range(len(data)):
        with pytest.raises(WireError, match=MessageRefusal.MESSAGE_MALFORMED):
            messages.decode_node(data[:end])
    with pytest.raises(WireError, match=MessageRefusal.MESSAGE_MALFORMED):
        messages.decode_node(data + b"\0")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    """Goal: no bytes raise another error than WireError.  Method: hypothesis."""
    with pytest.raises(WireError):
        messages.decode_node(bytes([messages.PROTOCOL_VERSION]) + data)
    with pytest.raises(WireError):
        messages.decode_local(data)


def test_another_protocol_version_has_a_reason_of_its_own() -> None:
    """Goal: an operator can distinguish another version from garbage.  Method: the first byte changed."""
    data = messages.encode_node(NODE_MESSAGES[2])
    with pytest.raises(WireError, match=MessageRefusal.PROTOCOL_VERSION):
        messages.decode_node(bytes([messages.PROTOCOL_VERSION + 1]) + data[1:])


def test_too_long_message_is_refused_before_decoding() -> None:
    """Goal: a huge message costs no decoding.  Method: one byte above the bound."""
    with pytest.raises(WireError, match=MessageRefusal.MESSAGE_TOO_LONG):
        messages.decode_node(bytes([messages.PROTOCOL_VERSION]) + bytes(limits.MESSAGE_BYTES_MAX))


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
        messages.decode_node(messages.encode_node(bad))


def test_fields_have_the_names_of_protocol_version_1() -> None:
    """Goal: a renamed attribute does not change the wire format.  Method: the encoded maps of all kinds by name."""
    names = [list(msgspec.msgpack.decode(messages.encode_node(each)[1:])) for each in NODE_MESSAGES]
    header = ["sender", "incarnation", "endpoint"]
    assert names == [
        ["type", "number", "record", "known", "to", "reached", *header],
        ["type", "number", "known", "directory", *header],
        ["type", "number", *header],
        ["type", "entries", "asked", *header],
        ["type", "records", *header],
        ["type", "engine", "body", *header],
    ]


def test_unknown_field_is_refused() -> None:
    """Goal: a message with further fields is malformed.  Method: a Goodbye with one."""
    fields = {"type": "goodbye", **HEADER, "number": 1, "surprise": 1}
    with pytest.raises(WireError, match=MessageRefusal.MESSAGE_MALFORMED):
        messages.decode_node(bytes([messages.PROTOCOL_VERSION]) + msgspec.msgpack.encode(fields))
