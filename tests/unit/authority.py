"""An authority for tests: certificates of nodes by name, and revocation lists."""

from __future__ import annotations

from pipeline.keys import certificate as certificates
from pipeline.keys import revocation
from pipeline.keys.certificate import Certificate
from pipeline.keys.identity import Identity
from pipeline.keys.revocation import Revocation, RevocationList
from pipeline.overlay.certified_members import CertifiedMembers
from tests.unit.overlay_net import identity_of

AUTHORITY, STRANGER = Identity(bytes(32)), Identity(b"\1" * 32)
"""The authority of the network, and one of another network."""
NOW = 1_800_000_000
"""Time of the tests in seconds since 1970."""


def certificate_of(name: str, *addresses: bytes, signer: Identity = AUTHORITY, **changes: object) -> bytes:
    """Return a certificate that is valid at NOW, for the identity that a node of this name has."""
    values: dict[str, object] = {
        "authority": signer.public_key, "public_key": identity_of(name).public_key, "serial": 1, "name": name,
        "addresses": tuple((address, 16) for address in addresses), "prefixes": (), "relay": True,
        "not_before": NOW - 1000, "not_after": NOW + 1000,
    }  # fmt: skip
    return certificates.encode(Certificate(**(values | changes)), signer)  # type: ignore[arg-type]


def revocation_list(version: int, *names: str, signer: Identity = AUTHORITY) -> bytes:
    """Return a list that revokes all certificates of these nodes."""
    entries = tuple(Revocation(public_key=identity_of(name).public_key) for name in names)
    made = RevocationList(authority=signer.public_key, version=version, issued_at=NOW, entries=entries)
    return revocation.encode(made, signer)


def certified_members(now: float = NOW, revoked: bytes = b"") -> CertifiedMembers:
    """Return the rules of the authority's network at a time, with a revocation list."""
    return CertifiedMembers(AUTHORITY.public_key, clock=lambda: now, revocation_list=revoked)
