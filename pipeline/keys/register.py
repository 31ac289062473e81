"""Register of an authority: the certificates that it has signed and the revocations that it has issued.

    sign      a new serial number; names, keys, addresses and prefixes belong to one node at a time
    revoke    a node by its name, or one certificate by its serial number: the next version of the revocation list

An authority must not lose its register: serial numbers and versions would begin again.  This module knows no files and
no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from pipeline import limits
from pipeline.address import OVERLAY_V4, OVERLAY_V6, Address, derive_addresses, is_within, parse_prefix, show_prefix
from pipeline.errors import PipelineError
from pipeline.keys import certificate as certificates
from pipeline.keys import revocation
from pipeline.keys.certificate import Certificate
from pipeline.keys.identity import Signer
from pipeline.keys.revocation import Revocation, RevocationList

SCHEMA = 1


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate as the register keeps it: its values, with texts for addresses."""

    serial: int
    name: str
    public_key: bytes
    addresses: tuple[str, ...]
    prefixes: tuple[str, ...]
    relay: bool
    not_before: int
    not_after: int


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """A revocation as the register keeps it."""

    public_key: bytes = b""
    """Key of a node that is excluded; empty: one certificate."""
    serial: int = 0
    name: str
    revoked_at: int
    reason: str = ""
    until: int
    """End of the last certificate that it concerns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Contents of a certificate that is to be signed; None: as in the node's present certificate, or the default."""

    name: str
    public_key: bytes | None = None
    addresses: tuple[str, ...] | None = None
    prefixes: tuple[str, ...] | None = None
    relay: bool | None = None
    period_s: int
    replaces: bool = False
    """The node takes the place of another one with this name, which is revoked."""


class Register(msgspec.Struct, kw_only=True):
    """The register; it is kept as JSON."""

    schema: int = SCHEMA
    authority: bytes
    last_serial: int = 0
    version: int = 0
    """Version of the last revocation list."""
    certificates: list[Signed] = []
    revocations: list[Revoked] = []

    # ---------------------------------------------------------------- signing

    def sign(self, order: Order, authority: Signer, now: int) -> tuple[Certificate, bytes]:
        """Return a new certificate; PipelineError if what it names belongs to another node."""
        public_key = order.public_key or self._key_of(order.name)
        if self.has_excluded(public_key):
            raise PipelineError(f"this key of {order.name} is revoked: the node needs a new identity")
        self._settle_conflicts(order, public_key, now)
        present = self._latest(order.name, public_key)
        addresses = order.addresses
        if addresses is None:
            addresses = present.addresses if present else self._free_addresses(order.name, public_key, now)
        prefixes = order.prefixes
        if prefixes is None:
            prefixes = present.prefixes if present else ()
        certificate = Certificate(
            authority=self.authority,
            public_key=public_key,
            serial=self.last_serial + 1,
            name=order.name,
            addresses=tuple(map(parse_prefix, addresses)),
            prefixes=tuple(map(parse_prefix, prefixes)),
            relay=(present is None or present.relay) if order.relay is None else order.relay,
            not_before=now,
            not_after=now + order.period_s,
        )
        for network in _networks(certificate.addresses, certificate.prefixes):
            if (owner := self._owner(network, public_key, now)) is not None:
                raise PipelineError(f"{show_prefix(*network)} belongs to {owner.name} (serial {owner.serial}) already")
        data = certificates.encode(certificate, authority)
        self._make_room(now)
        self.last_serial += 1
        self.certificates.append(_signed(certificate))
        return certificate, data

    def _key_of(self, name: str) -> bytes:
        """Return the key of a node that is to be signed again."""
        for each in reversed(self.certificates):
            if each.name == name and not self.is_revoked(each):
                return each.public_key
        raise PipelineError(f"{name}: no certificate to renew: give the public key of the node")

    def _latest(self, name: str, public_key: bytes) -> Signed | None:
        """Return the last certificate of a node."""
        found = (each for each in reversed(self.certificates) if (each.name, each.public_key) == (name, public_key))
        return next(found, None)

    def _settle_conflicts(self, order: Order, public_key: bytes, now: int) -> None:
        """Revoke what the new certificate replaces; PipelineError if it is to replace nothing."""
        for each in self._live(now):
            has_name, has_key = each.name == order.name, each.public_key == public_key
            if has_name is has_key or self.is_revoked(each):
                continue
            if not order.replaces:
                whose = "another key has this name" if has_name else f"this key has the name {each.name}"
                raise PipelineError(f"{order.name}: {whose} (serial {each.serial}): --replace revokes it")
            if has_name:
                self._revoke_key(each.public_key, each.name, "replaced", now)
            else:
                self._revoke_serial(each.serial, each.name, each.not_after, "replaced", now)

    def _free_addresses(self, name: str, public_key: bytes, now: int) -> tuple[str, ...]:
        """Return the first addresses derived from the name that no other node has."""
        lengths = (OVERLAY_V4.prefixlen, OVERLAY_V6.prefixlen)
        for attempt in range(limits.ADDRESS_ATTEMPTS_MAX):
            addresses = tuple(zip(derive_addresses(name, attempt), lengths, strict=True))
            if not any(self._owner(network, public_key, now) for network in _networks(addresses, ())):
                return tuple(show_prefix(*each) for each in addresses)
        raise PipelineError(f"{name}: no free address in {OVERLAY_V4}: give --address")

    def _owner(self, network: Network, public_key: bytes, now: int) -> Signed | None:
        """Return another node that has a part of a network."""
        for each in self._live(now):
            if each.public_key == public_key:
                continue
            held = _networks(map(parse_prefix, each.addresses), map(parse_prefix, each.prefixes))
            if any(is_within(network[0], other[0], min(network[1], other[1])) for other in held):
                return each
        return None

    def _live(self, now: int) -> list[Signed]:
        """Return the certificates that nodes still accept."""
        revoked, end = self._revoked_among(self.certificates), now - limits.CERTIFICATE_GRACE_S
        return [each for each in self.certificates if each.not_after >= end and each.serial not in revoked]

    def _revoked_among(self, certificates: Iterable[Certificate | Signed]) -> set[int]:
        """Return the serial numbers of those that are revoked, alone or with their node."""
        keys = {each.public_key for each in self.revocations if each.public_key}
        serials = {each.serial for each in self.revocations if not each.public_key}
        return {each.serial for each in certificates if each.serial in serials or each.public_key in keys}

    def _make_room(self, now: int) -> None:
        """Forget expired certificates once the register is full."""
        if len(self.certificates) >= limits.REGISTER_CERTIFICATES_MAX:
            self.certificates = [each for each in self.certificates if each.not_after >= now - limits.REVOCATION_KEPT_S]
        if len(self.certificates) >= limits.REGISTER_CERTIFICATES_MAX:
            raise PipelineError(f"the register is full: {limits.REGISTER_CERTIFICATES_MAX} certificates are valid")

    # ---------------------------------------------------------------- revoking

    def revoke_node(self, name: str, reason: str, now: int) -> None:
        """Exclude every key with a certificate of a name; PipelineError if that has been done."""
        revoked = self._revoked_among(self.certificates)
        found = (each for each in self.certificates if each.name == name and each.serial not in revoked)
        keys = dict.fromkeys(each.public_key for each in found)
        if not keys:
            raise PipelineError(f"{name}: revoked already, in version {self.version} of the list")
        for key in keys:
            self._revoke_key(key, name, reason, now)

    def revoke_certificate(self, certificate: Certificate | Signed, reason: str, now: int) -> None:
        """Revoke one certificate; PipelineError if that has been done."""
        if self.is_revoked(certificate):
            raise PipelineError(f"serial {certificate.serial}: revoked already, in version {self.version} of the list")
        self._revoke_serial(certificate.serial, certificate.name, certificate.not_after, reason, now)

    def has_signed(self, name: str) -> bool:
        """Return whether a node of that name has had a certificate."""
        return any(each.name == name for each in self.certificates)

    def find(self, serial: int) -> Signed:
        """Return the certificate with a serial number; PipelineError if the register has none."""
        for each in self.certificates:
            if each.serial == serial:
                return each
        raise PipelineError(f"serial {serial}: no such certificate; the last one is {self.last_serial}")

    def is_revoked(self, certificate: Certificate | Signed) -> bool:
        """Return whether a certificate is revoked, alone or with its node."""
        return bool(self._revoked_among([certificate]))

    def has_excluded(self, public_key: bytes) -> bool:
        """Return whether a key is revoked with all its certificates."""
        return any(each.public_key == public_key for each in self.revocations)

    def remaining(self, certificate: Certificate | Signed, now: int) -> list[Signed]:
        """Return the certificates of the same key that nodes still accept."""
        return [each for each in self._live(now) if each.public_key == certificate.public_key]

    def _revoke_key(self, public_key: bytes, name: str, reason: str, now: int) -> None:
        until = max(each.not_after for each in self.certificates if each.public_key == public_key)
        self._add(Revoked(public_key=public_key, name=name, revoked_at=now, reason=reason, until=until), now)

    def _revoke_serial(self, serial: int, name: str, until: int, reason: str, now: int) -> None:
        self._add(Revoked(serial=serial, name=name, revoked_at=now, reason=reason, until=until), now)

    def _add(self, revoked: Revoked, now: int) -> None:
        """Add a revocation to the next version of the list, and remove those that no longer matter."""
        kept = [each for each in self.revocations if each.until >= now - limits.REVOCATION_KEPT_S]
        if len(kept) >= limits.REVOCATIONS_MAX:
            raise PipelineError(f"the revocation list is full ({limits.REVOCATIONS_MAX}): make a new authority")
        self.revocations = [*kept, revoked]
        self.version += 1

    def revocation_list(self, authority: Signer, now: int) -> tuple[RevocationList, bytes]:
        """Return the present revocation list."""
        entries = tuple(
            Revocation(public_key=each.public_key, serial=each.serial, revoked_at=each.revoked_at, reason=each.reason)
            for each in self.revocations
        )
        found = RevocationList(authority=self.authority, version=self.version, issued_at=now, entries=entries)
        return found, revocation.encode(found, authority)

    # ---------------------------------------------------------------- showing

    def states(self, now: int) -> list[tuple[Signed, str]]:
        """Return every certificate with its state: "valid", "expired" or "revoked"."""
        revoked = self._revoked_among(self.certificates)
        return [
            (each, "revoked" if each.serial in revoked else "valid" if now <= each.not_after else "expired")
            for each in self.certificates
        ]


Network: TypeAlias = tuple[Address, int]


def _networks(addresses: Iterable[Network], prefixes: Iterable[Network]) -> list[Network]:
    """Return addresses and prefixes as networks; that of an address is the address alone."""
    return [*((address, 8 * len(address)) for address, _ in addresses), *prefixes]


def _signed(certificate: Certificate) -> Signed:
    return Signed(
        serial=certificate.serial,
        name=certificate.name,
        public_key=certificate.public_key,
        addresses=tuple(show_prefix(*each) for each in certificate.addresses),
        prefixes=tuple(show_prefix(*each) for each in certificate.prefixes),
        relay=certificate.relay,
        not_before=certificate.not_before,
        not_after=certificate.not_after,
    )
