"""Test vectors of pipeline/keys/README.md.  Goal: the page describes the bytes that this program writes.

Method: seeds and values of the page are encoded, and compared with its bytes; its tables with the types.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from pipeline import limits
from pipeline.address import parse_prefix
from pipeline.keys import certificate as certificates
from pipeline.keys import revocation
from pipeline.keys.certificate import Certificate
from pipeline.keys.identity import Identity, is_signed
from pipeline.keys.revocation import Revocation, RevocationList

PAGE = (Path(__file__).resolve().parents[2] / "pipeline" / "keys" / "README.md").read_text()
SEEDS = [bytes.fromhex(text) for text in re.findall(r"seed of the \w+ +([0-9a-f]{64})", PAGE)]
PUBLIC_KEYS = [bytes.fromhex(text) for text in re.findall(r"its public key +([0-9a-f]{64})", PAGE)]
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
AUTHORITY, NODE = map(Identity, SEEDS)
CERTIFICATE = Certificate(
    authority=AUTHORITY.public_key,
    public_key=NODE.public_key,
    serial=1,
    name="studio",
    addresses=(parse_prefix("10.77.0.1/16"), parse_prefix("fd77::1/64")),
    prefixes=(parse_prefix("192.0.2.0/24"),),
    relay=True,
    not_before=1_700_000_000,
    not_after=1_731_536_000,
)
REVOCATIONS = RevocationList(
    authority=AUTHORITY.public_key,
    version=2,
    issued_at=1_700_086_400,
    entries=(
        Revocation(public_key=NODE.public_key, revoked_at=1_700_086_400, reason="stolen"),
        Revocation(serial=1),
    ),
)


def bytes_of(block: str) -> bytes:
    """Return the bytes of a block, whose lines have position, hexadecimal digits and meaning."""
    data = b""
    for line in block.splitlines():
        position, digits = re.fullmatch(r" *(\d+)  ((?:[0-9a-f]{2})+)(?: .*)?", line).groups()  # type: ignore[union-attr]
        assert int(position) == len(data), line
        data += bytes.fromhex(digits)
    return data


def test_public_keys_follow_from_the_seeds() -> None:
    """Goal: another implementation can begin with the seeds.  Method: two key pairs."""
    assert [AUTHORITY.public_key, NODE.public_key] == PUBLIC_KEYS


def test_certificate_has_the_bytes_of_the_page() -> None:
    """Goal: each byte is described.  Method: encode and decode; the signature by the library alone."""
    data = bytes_of(BLOCKS[0])
    assert certificates.encode(CERTIFICATE, AUTHORITY) == data
    assert certificates.decode(data) == CERTIFICATE
    assert is_signed(AUTHORITY.public_key, b"certificate", data[64:], data[:64])


def test_revocation_list_has_the_bytes_of_the_page() -> None:
    """Goal: each byte is described.  Method: as for the certificate; the list revokes that."""
    data = bytes_of(BLOCKS[1])
    assert revocation.encode(REVOCATIONS, AUTHORITY) == data
    assert revocation.decode(data) == REVOCATIONS and REVOCATIONS.revokes(CERTIFICATE)
    assert is_signed(AUTHORITY.public_key, b"revocations", data[64:], data[:64])


def test_tables_name_all_fields_in_their_order() -> None:
    """Goal: no field lacks a line.  Method: the keys of both tables, compared with the structs."""
    keys = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)))
    structs = (Certificate, RevocationList)
    assert keys == [field.encode_name for struct in structs for field in msgspec.structs.fields(struct)]


def test_numbers_of_the_page_are_the_limits() -> None:
    """Goal: the bounds on the page are those of the program.  Method: the numbers with a name in limits.py."""
    for number in (
        f"At most {limits.CERTIFICATE_BYTES_MAX:,} bytes",
        f"At most {limits.REVOCATION_LIST_BYTES_MAX:,} bytes and {limits.REVOCATIONS_MAX:,} entries",
        f"at most {limits.REVOCATION_REASON_LENGTH_MAX} printable",
        f"array of at most {limits.CERTIFICATE_PREFIXES_MAX}",
        f"for {limits.CERTIFICATE_GRACE_S // 3600} hours before and after",
        f"left out {limits.REVOCATION_KEPT_S // 86_400} days after",
    ):
        assert number in " ".join(PAGE.split()), number
