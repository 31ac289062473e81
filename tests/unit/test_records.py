"""Goal: a record is what its node has signed; nobody else can change it, its keys, or the node id that it stands for.

Method: records are signed, changed in every part and verified.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import limits
from pipeline.address import derive_node_id, parse
from pipeline.messages import NodeRecord, SignedRecord
from pipeline.overlay import records
from tests.unit.overlay_net import Forger, identity_of, key_of

READER = identity_of("reader")
FULL = Forger(
    "a", at="192.0.2.1:4747", incarnation=7, version=3, addresses=((parse("10.77.0.1"), 16), (parse("fd77::1"), 64)),
    explicit_addresses=True, lanes=4, engine="nemo", key_epoch=9, second_epoch=10, second_key=key_of("second"),
    is_kept=False, certificate=b"certificate",
).record  # fmt: skip
WIRE = records.on_wire(FULL, has_keys=True)


def read(signed: SignedRecord) -> NodeRecord | None:
    """Return the record with its keys as a receiver reads it."""
    record = records.verify(signed, READER)
    return record and records.with_keys(record, (signed.sender_key, signed.second_key))


def test_record_is_read_as_it_was_signed() -> None:
    """Goal: all fields arrive.  Method: a record with each field set."""
    assert read(WIRE) == FULL


def test_every_changed_byte_of_a_body_or_signature_is_noticed() -> None:
    """Goal: nobody can change a record of another node.  Method: each byte of body and signature changed, and cut."""
    for field, data in (("body", WIRE.body), ("signature", WIRE.signature)):
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 1
            assert records.verify(msgspec.structs.replace(WIRE, **{field: bytes(changed)}), READER) is None
    for end in range(len(WIRE.body)):
        assert records.verify(msgspec.structs.replace(WIRE, body=WIRE.body[:end]), READER) is None


def test_signature_of_another_identity_or_purpose_is_none() -> None:
    """Goal: a record with another's public key cannot be signed, and no signature of another kind is one of a record.
    Method: the body signed by another identity; the same bytes signed by the node for another purpose."""
    other, own = identity_of("m"), identity_of("a")
    for signature in (other.sign(records.PURPOSE, FULL.body), own.sign(b"certificate", FULL.body)):
        assert records.verify(msgspec.structs.replace(WIRE, signature=signature), READER) is None
    assert records.verify(msgspec.structs.replace(WIRE, signature=own.sign(records.PURPOSE, FULL.body)), READER)


def test_node_id_follows_from_the_public_key() -> None:
    """Goal: nobody can sign a record with the node id of another.
    Method: a record that claims another id is read with its own one; the attempt number gives the next ids."""
    for attempt in (0, 1, limits.NODE_ID_ATTEMPTS_MAX - 1):
        claimed = msgspec.structs.replace(FULL, node_id=1234, id_attempt=attempt)
        record = read(records.on_wire(records.sign(claimed, identity_of("a")), has_keys=True))
        assert record is not None
        assert record.node_id == derive_node_id(FULL.public_key, attempt)


@pytest.mark.parametrize(
    "keys",
    [
        (key_of("x"), key_of("second")),
        (FULL.sender_key, key_of("x")),
        (key_of("second"), FULL.sender_key),
        (FULL.sender_key, b""),
        (b"", key_of("second")),
        (b"", b""),
        (FULL.sender_key + b"\0", key_of("second")),
    ],
    ids=str,
)
def test_keys_that_the_digest_does_not_name_are_refused(keys: tuple[bytes, bytes]) -> None:
    """Goal: whoever forwards the keys of a node cannot change, swap or remove one.  Method: other keys."""
    record = records.verify(WIRE, READER)
    assert record is not None
    assert records.with_keys(record, keys) is None
    assert records.with_keys(record, (FULL.sender_key, FULL.second_key)) == FULL


def test_record_without_keys_names_none() -> None:
    """Goal: a record that anybody may see reveals no sender key.
    Method: its bytes; the keys do not occur in them, and only their digests tell that the node seals."""
    bare = records.on_wire(FULL, has_keys=False)
    data = msgspec.msgpack.encode(bare)
    for key in (FULL.sender_key, FULL.second_key):
        assert key not in data
    record = records.verify(bare, READER)
    assert record is not None
    assert (record.sender_key, record.is_sealing, record.has_keys) == (b"", True, False)


@pytest.mark.parametrize(
    ("endpoint", "seen", "expected"),
    [
        ("192.0.2.1:4747", "192.0.2.99:4747", "192.0.2.1:4747"),
        ("0.0.0.0:4747", "192.0.2.1:4747", "192.0.2.1:4747"),
        ("[::]:4747", "[2001:db8::1]:4747", "[2001:db8::1]:4747"),
        ("0.0.0.0:4747", "", "0.0.0.0:4747"),
    ],
)
def test_reporter_adds_an_endpoint_only_where_the_node_names_none(endpoint: str, seen: str, expected: str) -> None:
    """Goal: a reporter cannot move a node that names its address.  Method: endpoints that were signed and seen."""
    record = msgspec.structs.replace(FULL, endpoint=endpoint)
    assert records.with_endpoint_seen(record, seen).endpoint == expected


def test_fields_of_a_later_version_are_forwarded() -> None:
    """Goal: a record of a later version is read, and a relay of this version loses nothing of it.
    Method: a body with one field more, signed by its node; then it is forwarded."""
    body = msgspec.msgpack.encode(msgspec.msgpack.decode(FULL.body) | {"later": {"a": 1}})
    signed = SignedRecord(body, identity_of("a").sign(records.PURPOSE, body), FULL.sender_key, FULL.second_key)
    record = read(signed)
    assert record is not None
    assert (record.name, record.protocols) == ("a", FULL.protocols)
    again = records.on_wire(record, has_keys=True)
    assert (again.body, again.signature) == (body, signed.signature)


@pytest.mark.parametrize(
    "changes",
    [
        {"public_key": b"short"},
        {"id_attempt": limits.NODE_ID_ATTEMPTS_MAX},
        {"id_attempt": -1},
        {"name": "x\n"},
        {"incarnation": limits.INCARNATION_MAX + 1},
        {"version": 1 << 63},
        {"lanes": 0},
        {"protocols": [0, 1]},
        {"protocols": [1, 256]},
        {"key_digest": bytes(33)},
        {"key_epoch": 256},
        {"certificate": bytes(limits.CERTIFICATE_BYTES_MAX + 1)},
        {"addresses": [[b"1234", 16]] * (limits.ADDRESSES_PER_NODE_MAX + 1)},
    ],
    ids=str,
)
def test_body_out_of_bounds_is_no_record(changes: dict[str, Any]) -> None:
    """Goal: a node's own signature does not make a record valid that exceeds a bound.  Method: one fault each."""
    body = msgspec.msgpack.encode(msgspec.msgpack.decode(FULL.body) | changes)
    signed = SignedRecord(body, identity_of("a").sign(records.PURPOSE, body))
    assert records.verify(signed, READER) is None


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_random_bytes_are_no_record(data: bytes) -> None:
    """Goal: no bytes raise an error.  Method: hypothesis, each signed."""
    assert records.verify(SignedRecord(data, identity_of("a").sign(records.PURPOSE, data)), READER) is None
