"""Members of a network with an authority: nodes with a valid certificate that no list revokes.

The certificate travels in the node's record.  The authority's newest revocation list travels to all nodes; each keeps
the one with the highest version.  This module knows no files and no sessions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from pipeline.address import Address, show_prefix
from pipeline.errors import WireError
from pipeline.keys import certificate as certificates
from pipeline.keys import revocation
from pipeline.keys.certificate import Certificate
from pipeline.keys.revocation import RevocationList
from pipeline.messages import NodeRecord, RefusalReason
from pipeline.overlay.members import UNKNOWN_RANK, Members, Objection


class CertifiedMembers(Members):
    """The rules of a network with an authority."""

    accepts_unsigned = False

    def __init__(self, authority: bytes, *, clock: Callable[[], float], revocation_list: bytes = b"") -> None:
        """Use the public key of the authority, and a clock that returns seconds since 1970."""
        self._authority = authority
        self._clock = clock
        self._revocations: RevocationList | None = None
        if revocation_list:
            self.take_revocations(revocation_list)

    def take_revocations(self, revocation_list: bytes) -> bool:
        """Take a list if it is newer than the present one; WireError if the authority has not signed it."""
        if revocation_list == self.revocation_list:
            return False
        revocations = revocation.decode(revocation_list)
        if revocations.authority != self._authority:
            return False
        if self._revocations is not None and revocations.version <= self._revocations.version:
            return False
        self._revocations, self.revocation_list = revocations, revocation_list
        return True

    def objection(self, record: NodeRecord) -> Objection | None:
        """Return what is wrong with a node's certificate."""
        if not record.is_signed:
            return Objection(RefusalReason.CERTIFICATE, "it has no identity, as it is of an older version: upgrade it")
        if not record.certificate:
            return Objection(RefusalReason.CERTIFICATE, "it has no certificate of this network's authority")
        certificate = _decode(record.certificate)
        if certificate is None:
            return Objection(RefusalReason.CERTIFICATE, "its certificate is malformed")
        reason = certificates.check(
            certificate,
            authority=self._authority,
            public_key=record.public_key,
            name=record.name,
            addresses=[address for address, _ in record.addresses] if _lists_addresses(certificate) else (),
            now=self._clock(),
        )
        if not reason and self.is_revoked(record):
            reason = "its certificate is revoked"
        return Objection(RefusalReason.CERTIFICATE, reason) if reason else None

    def is_revoked(self, record: NodeRecord) -> bool:
        """Return whether the authority has revoked the node's certificate."""
        certificate = _decode(record.certificate)
        if certificate is None or self._revocations is None or certificate.public_key != record.public_key:
            return False
        return certificate.authority == self._authority and self._revocations.revokes(certificate)

    def note_link(self, record: NodeRecord) -> None:
        """Do nothing: the certificate says what belongs to the node."""

    def rank(self, record: NodeRecord, address: Address) -> int:  # noqa: ARG002
        """Return the same for all claims: each is certified."""
        return UNKNOWN_RANK

    def certified(self, record: NodeRecord) -> tuple[str, ...]:
        """Return the addresses and prefixes in the node's certificate."""
        certificate = _decode(record.certificate)
        if certificate is None:
            return ()
        own = (show_prefix(address, 8 * len(address)) for address, _ in certificate.addresses)
        return (*own, *(show_prefix(*prefix) for prefix in certificate.prefixes))


def _lists_addresses(certificate: Certificate) -> bool:
    """Return whether a certificate says which addresses a node has; without any it may derive one from its name."""
    return bool(certificate.addresses or certificate.prefixes)


@functools.lru_cache(maxsize=4096)
def _decode(data: bytes) -> Certificate | None:
    try:
        return certificates.decode(data)
    except WireError:
        return None
