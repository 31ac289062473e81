"""Fuzz targets of certificates and revocation lists: any bytes in, and invariants that must hold.

    certificate, revocations    a decoder: it returns a value or raises WireError; a value is encoded and decoded alike

The bytes are decoded as they are, and as a body with a correct signature, which random bytes never have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from pipeline import limits
from pipeline.errors import WireError
from pipeline.keys import certificate as certificates
from pipeline.keys import revocation
from pipeline.keys.certificate import Certificate
from pipeline.keys.identity import Identity
from pipeline.keys.revocation import RevocationList

AUTHORITY = Identity(bytes(range(32)))
"""The authority of the test vectors; the bodies in the corpus name it."""
TIMES = (0, 1_700_000_000, limits.TIME_MAX)


def fuzz_certificate(data: bytes) -> None:
    """Decode a certificate, and compare it with claims."""
    with contextlib.suppress(WireError):
        certificates.decode(data)
    with contextlib.suppress(WireError):
        _use_certificate(certificates.decode(AUTHORITY.sign(certificates.PURPOSE, data) + data))


def _use_certificate(certificate: Certificate) -> None:
    assert certificates.decode(certificates.encode(certificate, AUTHORITY)) == certificate
    assert certificate.name.isascii()
    claims = {
        "authority": certificate.authority,
        "public_key": certificate.public_key,
        "name": certificate.name,
        "addresses": [address for address, _ in certificate.addresses],
        "prefixes": certificate.prefixes,
    }
    assert certificates.check(certificate, **claims, now=certificate.not_after) == ""
    assert certificates.check(certificate, **claims | {"name": certificate.name + "x"}, now=certificate.not_after)
    for now in TIMES:
        reason = certificates.check_time(certificate, now)
        assert "\n" not in reason
        assert bool(certificates.describe_grace(certificate, now)) >= bool(reason)


def fuzz_revocations(data: bytes) -> None:
    """Decode a revocation list, and look for its entries."""
    with contextlib.suppress(WireError):
        revocation.decode(data)
    with contextlib.suppress(WireError):
        _use_revocations(revocation.decode(AUTHORITY.sign(revocation.PURPOSE, data) + data))


def _use_revocations(revocations: RevocationList) -> None:
    assert revocation.decode(revocation.encode(revocations, AUTHORITY)) == revocations
    for entry in revocations.entries:
        assert entry.reason.isprintable()
        certificate = Certificate(authority=revocations.authority, public_key=entry.public_key or bytes(32),
                                  serial=entry.serial or 1, name="a", addresses=(), prefixes=(), relay=True,
                                  not_before=0, not_after=1)  # fmt: skip
        assert revocations.revokes(certificate)
        assert not entry.public_key or revocations.revokes_key(entry.public_key)


TARGETS: dict[str, Callable[[bytes], None]] = {"certificate": fuzz_certificate, "revocations": fuzz_revocations}
