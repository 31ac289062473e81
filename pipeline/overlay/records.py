"""Records on the wire: signed by their node, verified by every receiver, forwarded as they were signed.

    NodeRecord ──sign──▶ RecordBody in bytes, signature ──▶ SignedRecord ──verify──▶ NodeRecord

The sender keys of a record travel beside its body, which holds their digests: only nodes that may receive are sent
them, whoever forwards them cannot change them, and a record without them can be shown to anybody.

This module knows no directory and decides nothing about members.
"""

from __future__ import annotations

import hashlib

import msgspec

from pipeline import endpoint as endpoints
from pipeline.address import derive_node_id
from pipeline.keys.identity import Signer
from pipeline.messages import UNSIGNED_ONLY, NodeRecord, RecordBody, SignedRecord

PURPOSE = b"record"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RecordBody)


def sign(record: NodeRecord, signer: Signer) -> NodeRecord:
    """Return this node's own record with its signature."""
    body = _encoder.encode(
        RecordBody(
            public_key=record.public_key,
            id_attempt=record.id_attempt,
            name=record.name,
            incarnation=record.incarnation,
            version=record.version,
            addresses=record.addresses,
            explicit_addresses=record.explicit_addresses,
            endpoint=record.endpoint,
            lanes=record.lanes,
            engine=record.engine,
            protocols=record.protocols,
            key_epoch=record.key_epoch,
            key_digest=key_digest(record.sender_key),
            second_epoch=record.second_epoch,
            second_digest=key_digest(record.second_key),
            is_kept=record.is_kept,
            certificate=record.certificate,
        )
    )
    return msgspec.structs.replace(record, body=body, signature=signer.sign(PURPOSE, body))


def verify(signed: SignedRecord, signer: Signer) -> NodeRecord | None:
    """Return the record of these bytes, without sender keys; None if its node has not signed it."""
    body = _decode(signed.body)
    if body is None or not signer.is_signed(body.public_key, PURPOSE, signed.body, signed.signature):
        return None
    return NodeRecord(
        node_id=derive_node_id(body.public_key, body.id_attempt),
        name=body.name,
        incarnation=body.incarnation,
        version=body.version,
        addresses=body.addresses,
        endpoint=body.endpoint,
        lanes=body.lanes,
        key_epoch=body.key_epoch,
        sender_key=b"",
        second_epoch=body.second_epoch,
        engine=body.engine,
        explicit_addresses=body.explicit_addresses,
        public_key=body.public_key,
        id_attempt=body.id_attempt,
        protocols=body.protocols,
        is_sealing=bool(body.key_digest),
        is_kept=body.is_kept,
        certificate=body.certificate,
        body=signed.body,
        signature=signed.signature,
    )


def with_keys(record: NodeRecord, keys: tuple[bytes, bytes]) -> NodeRecord | None:
    """Return a verified record with the keys that travelled beside it; None if they are others than it names."""
    body = _decode(record.body)
    if body is None or not _are_keys(body, keys):
        return None
    return msgspec.structs.replace(record, sender_key=keys[0], second_key=keys[1])


def with_endpoint_seen(record: NodeRecord, seen: str) -> NodeRecord:
    """Return the record with the endpoint at which another node sees it, if its own text names no address."""
    if not seen or not endpoints.is_wildcard(record.endpoint):
        return record
    return msgspec.structs.replace(record, endpoint=seen)


def on_wire(record: NodeRecord, *, has_keys: bool) -> SignedRecord:
    """Return a signed record for the wire."""
    if not has_keys:
        return SignedRecord(record.body, record.signature, seen=record.endpoint)
    return SignedRecord(record.body, record.signature, record.sender_key, record.second_key, record.endpoint)


def unsigned(record: NodeRecord) -> NodeRecord:
    """Return a record as nodes of protocol 1 know it."""
    return msgspec.structs.replace(
        record, public_key=b"", id_attempt=0, protocols=UNSIGNED_ONLY, is_sealing=False, is_kept=True,
        certificate=b"", body=b"", signature=b"",
    )  # fmt: skip


def key_digest(key: bytes) -> bytes:
    """Return the digest of a sender key as a record names it; empty for no key."""
    return hashlib.blake2b(key, digest_size=32, person=b"sender key").digest() if key else b""


def _are_keys(body: RecordBody, keys: tuple[bytes, bytes]) -> bool:
    # A record in a sealing network names one key, or two in a rotation.
    return (key_digest(keys[0]), key_digest(keys[1])) == (body.key_digest, body.second_digest)


def _decode(data: bytes) -> RecordBody | None:
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
