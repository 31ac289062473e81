"""Revocation lists.  Goal: a list excludes what its authority has named, and nobody else can make one.

Method: lists of two authorities, changed bytes, and certificates beside those that are named.
"""

from __future__ import annotations

import msgspec
import pytest

from pipeline import limits
from pipeline.errors import WireError
from pipeline.keys import certificate as certificates
from pipeline.keys import revocation
from pipeline.keys.certificate import Certificate
from pipeline.keys.identity import SIGNATURE_BYTES, Identity
from pipeline.keys.revocation import Revocation, RevocationList

AUTHORITY, STRANGER, NODE, OTHER = (Identity(bytes([number]) * 32) for number in range(4))
NOW = 1_700_000_000
LOST = Revocation(public_key=NODE.public_key, revoked_at=NOW, reason="stolen")
WRONG = Revocation(serial=7)


def make(*entries: Revocation, **changes: object) -> RevocationList:
    values: dict[str, object] = {"authority": AUTHORITY.public_key, "version": 3, "issued_at": NOW, "entries": entries}
    return RevocationList(**(values | changes))  # type: ignore[arg-type]


def certificate(node: Identity, serial: int) -> Certificate:
    return Certificate(authority=AUTHORITY.public_key, public_key=node.public_key, serial=serial, name="a",
                       addresses=(), prefixes=(), relay=True, not_before=NOW, not_after=NOW + 1)  # fmt: skip


def sign(value: object, signer: Identity = AUTHORITY, purpose: bytes = revocation.PURPOSE) -> bytes:
    """Return any value with a signature."""
    body = msgspec.msgpack.encode(value)
    return signer.sign(purpose, body) + body


def assert_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        revocation.decode(data)


def test_list_survives_encoding_with_the_same_bytes() -> None:
    """Goal: equal values give equal bytes, and these give the values.  Method: lists with and without entries."""
    for revocations in (make(), make(LOST, WRONG)):
        data = revocation.encode(revocations, AUTHORITY)
        assert revocation.decode(data) == revocations
        assert revocation.encode(revocations, AUTHORITY) == data


def test_key_and_serial_are_revoked_apart() -> None:
    """Goal: a node is excluded with all its certificates, or one certificate alone.
    Method: certificates of two keys against a list of one key and one serial number."""
    revocations = make(LOST, WRONG)
    assert revocations.revokes(certificate(NODE, 1)) and revocations.revokes(certificate(NODE, 99))
    assert revocations.revokes(certificate(OTHER, 7)) and not revocations.revokes(certificate(OTHER, 8))
    assert revocations.revokes_key(NODE.public_key) and not revocations.revokes_key(OTHER.public_key)
    assert not make().revokes(certificate(NODE, 1))


def test_every_changed_bit_is_noticed() -> None:
    """Goal: nobody removes an entry or lowers a version.  Method: each bit of a list, and each length."""
    data = revocation.encode(make(LOST, WRONG), AUTHORITY)
    for position in range(8 * len(data)):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        assert_refused(bytes(changed))
    for length in range(len(data)):
        assert_refused(data[:length])


def test_unknown_fields_are_ignored_but_signed() -> None:
    """Goal: a later version may add fields to a list and to an entry.  Method: one more of each."""
    fields = msgspec.msgpack.decode(revocation.encode(make(LOST), AUTHORITY)[SIGNATURE_BYTES:])
    fields["entries"][0].append("more")
    assert revocation.decode(sign(fields | {"colour": "green"})) == make(LOST)


def test_list_of_another_signer_is_refused() -> None:
    """Goal: only the authority excludes nodes, and only by a list.  Method: a stranger's signature in its name; a
    certificate's signature; a certificate in place of a list."""
    assert_refused(sign(make(LOST), STRANGER))
    assert_refused(sign(make(LOST), purpose=certificates.PURPOSE))
    assert_refused(certificates.encode(certificate(NODE, 1), AUTHORITY))


@pytest.mark.parametrize(
    "value",
    [
        make(version=0),
        make(issued_at=-1),
        make(Revocation()),
        make(Revocation(public_key=bytes(31))),
        make(Revocation(public_key=bytes(31), serial=1)),
        make(Revocation(serial=1, reason="\x1b[2J")),
        make(Revocation(serial=1, reason="gestohlen\u202e")),
        make(Revocation(serial=1, reason="r" * 65)),
        make(*[WRONG] * (limits.REVOCATIONS_MAX + 1)),
    ],
)
def test_value_out_of_its_bounds_is_refused_although_it_is_signed(value: RevocationList) -> None:
    """Goal: no list harms a log, a terminal or a table.  Method: one wrong value in a signed list."""
    assert_refused(sign(value))


def test_largest_list_fits_and_a_larger_one_is_refused() -> None:
    """Goal: the size is bounded, and the bound holds every list.  Method: a full list; one more field beyond it."""
    entry = Revocation(public_key=NODE.public_key, serial=(1 << 63) - 1, revoked_at=limits.TIME_MAX, reason="r" * 64)
    data = revocation.encode(make(*[entry] * limits.REVOCATIONS_MAX), AUTHORITY)
    assert len(data) <= limits.REVOCATION_LIST_BYTES_MAX
    fields = msgspec.msgpack.decode(data[SIGNATURE_BYTES:])
    assert_refused(sign(fields | {"more": bytes(limits.REVOCATION_LIST_BYTES_MAX)}))
