"""Revocation lists: the nodes that an authority has excluded.  The format is described byte by byte in README.md.

A node keeps the list with the highest version of its authority, and passes it on.  A list always contains all
revocations that still matter: a newer one replaces an older one.  This module knows no files and no clock.
"""

from __future__ import annotations

import functools
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from pipeline import limits
from pipeline.drop_reasons import MessageRefusal
from pipeline.keys.certificate import Certificate, Key, Time
from pipeline.keys.identity import PUBLIC_KEY_BYTES
from pipeline.keys.signed import SignedCodec

PURPOSE = b"revocations"
"""Purpose of the signature, which is valid for nothing else that the same key signs."""

Reason: TypeAlias = Annotated[str, Meta(max_length=limits.REVOCATION_REASON_LENGTH_MAX, pattern=r"\A[ -~]*\Z")]
"""Printable ASCII: no reason puts control characters into a log or a terminal."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Exclusion of a node (`public_key`) or of a single certificate (`serial`); encoded as an array in this order."""

    public_key: Annotated[bytes, Meta(max_length=PUBLIC_KEY_BYTES)] = b""
    """Every certificate of this key is revoked; empty: that of `serial` only."""
    serial: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    """Certificate that is revoked; 0: all of `public_key`."""
    revoked_at: Time = 0
    reason: Reason = ""


class RevocationList(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Revocations of one authority; fields are encoded in this order."""

    authority: Key
    version: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
    """Grows with each list of the authority, whatever its clock shows."""
    issued_at: Time
    entries: Annotated[tuple[Revocation, ...], Meta(max_length=limits.REVOCATIONS_MAX)]

    def revokes(self, certificate: Certificate) -> bool:
        """Return whether a certificate of the same authority is revoked."""
        return certificate.public_key in self._keys or certificate.serial in self._serials

    def revokes_key(self, public_key: bytes) -> bool:
        """Return whether every certificate of a key is revoked."""
        return public_key in self._keys

    @functools.cached_property
    def _keys(self) -> frozenset[bytes]:
        return frozenset(entry.public_key for entry in self.entries if entry.public_key)

    @functools.cached_property
    def _serials(self) -> frozenset[int]:
        return frozenset(entry.serial for entry in self.entries if not entry.public_key)


def _is_sound(revocations: RevocationList) -> bool:
    """Check what the types cannot express: each entry names a whole key, or a serial number."""
    return all(
        len(entry.public_key) == PUBLIC_KEY_BYTES or (not entry.public_key and entry.serial)
        for entry in revocations.entries
    )


_codec = SignedCodec(
    RevocationList,
    purpose=PURPOSE,
    bytes_max=limits.REVOCATION_LIST_BYTES_MAX,
    is_sound=_is_sound,
    refusal=MessageRefusal.REVOCATIONS_MALFORMED,
)
encode, decode = _codec.encode, _codec.decode
