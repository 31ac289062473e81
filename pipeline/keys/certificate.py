"""Certificates: what an authority allows a node to be.  The format is described byte by byte in README.md.

    authority sign ─▶ encode ─▶ file ─▶ record of the node ─▶ decode ─▶ check against that record and the time

A certificate names a public key, a name, addresses, prefixes and a period.  `decode` returns what the authority named
in it has signed (signed.py); `check` compares that with the claims of a node.  This module knows no files and no clock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from pipeline import limits
from pipeline.address import Address, is_multicast, is_within, show, show_prefix, spans_special_addresses
from pipeline.drop_reasons import MessageRefusal
from pipeline.keys.identity import PUBLIC_KEY_BYTES
from pipeline.keys.signed import SignedCodec
from pipeline.messages import Name, Packed, Prefix

PURPOSE = b"certificate"
"""Purpose of the signature, which is valid for nothing else that the same key signs."""

Key: TypeAlias = Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
Serial: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
Time: TypeAlias = Annotated[int, Meta(ge=0, le=limits.TIME_MAX)]
"""Seconds since 1970."""
Prefixes: TypeAlias = Annotated[tuple[tuple[Packed, Prefix], ...], Meta(max_length=limits.CERTIFICATE_PREFIXES_MAX)]


class Certificate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an authority has signed about one node; fields are encoded in this order."""

    authority: Key
    public_key: Key
    serial: Serial
    """Number of the certificate, which the authority gives once."""
    name: Name
    addresses: Annotated[tuple[tuple[Packed, Prefix], ...], Meta(max_length=limits.ADDRESSES_PER_NODE_MAX)]
    """Overlay addresses of the node, each with the length of its subnet's prefix."""
    prefixes: Prefixes
    """Networks behind the node; every address in them belongs to it as well."""
    relay: bool
    """The node may relay for others."""
    not_before: Time
    not_after: Time
    send_groups: Prefixes | None = None
    """Groups to which the node may send; None: all.  This version does not enforce it."""
    receive_groups: Prefixes | None = None
    """Groups that the node may receive; None: all.  This version does not enforce it."""

    def holds(self, address: Address) -> bool:
        """Return whether an address belongs to the node."""
        return any(address == each for each, _ in self.addresses) or self.holds_prefix(address, 8 * len(address))

    def holds_prefix(self, prefix: Address, length: int) -> bool:
        """Return whether a prefix is one of the node's, or a part of one."""
        return any(length >= bits and is_within(prefix, each, bits) for each, bits in self.prefixes)


def _is_sound(certificate: Certificate) -> bool:
    """Check what the types cannot express: addresses and prefixes are canonical, and the period is not empty."""
    return (
        certificate.not_before < certificate.not_after
        and all(
            _is_prefix(each) and not spans_special_addresses(each[0], 8 * len(each[0]))
            for each in certificate.addresses
        )
        and all(_is_network(each) and not spans_special_addresses(*each) for each in certificate.prefixes)
        and all(
            _is_network(each) and is_multicast(each[0])
            for groups in (certificate.send_groups, certificate.receive_groups)
            for each in groups or ()
        )
    )


def _is_prefix(prefix: tuple[Address, int]) -> bool:
    return len(prefix[0]) in (4, 16) and prefix[1] <= 8 * len(prefix[0])


def _is_network(prefix: tuple[Address, int]) -> bool:
    """Return whether the bits after the prefix are 0."""
    address, length = prefix
    return _is_prefix(prefix) and int.from_bytes(address) & ((1 << (8 * len(address) - length)) - 1) == 0


_codec = SignedCodec(
    Certificate,
    purpose=PURPOSE,
    bytes_max=limits.CERTIFICATE_BYTES_MAX,
    is_sound=_is_sound,
    refusal=MessageRefusal.CERTIFICATE_MALFORMED,
)
encode, decode = _codec.encode, _codec.decode


# ---------------------------------------------------------------- a node's claims


def check(
    certificate: Certificate,
    *,
    authority: bytes,
    public_key: bytes,
    name: str,
    addresses: Iterable[Address],
    prefixes: Iterable[tuple[Address, int]] = (),
    now: float,
) -> str:
    """Return why a node with these claims is no member of the authority's network now; empty if it is one."""
    return check_claims(
        certificate, authority=authority, public_key=public_key, name=name, addresses=addresses, prefixes=prefixes
    ) or check_time(certificate, now)


def check_claims(
    certificate: Certificate,
    *,
    authority: bytes,
    public_key: bytes,
    name: str,
    addresses: Iterable[Address],
    prefixes: Iterable[tuple[Address, int]] = (),
) -> str:
    """Return which claim the certificate does not allow, at whatever time; empty if it allows all."""
    if certificate.authority != authority:
        return "certificate of another authority"
    if certificate.public_key != public_key:
        return "certificate of another key"
    if certificate.name != name:
        return f"certificate for the name {certificate.name}"
    for address in addresses:
        if not certificate.holds(address):
            return f"certificate without the address {show(address)}"
    for prefix, length in prefixes:
        if not certificate.holds_prefix(prefix, length):
            return f"certificate without the prefix {show_prefix(prefix, length)}"
    return ""


def check_time(certificate: Certificate, now: float) -> str:
    """Return why the certificate is not accepted at a time, in seconds since 1970; empty if it is.

    It is accepted for CERTIFICATE_GRACE_S before and after its period.
    """
    return _check_period(certificate, now, limits.CERTIFICATE_GRACE_S)


def describe_grace(certificate: Certificate, now: float) -> str:
    """Return why a certificate is not in its period, accepted or not; empty if it is."""
    return _check_period(certificate, now, 0)


def _check_period(certificate: Certificate, now: float, grace_s: int) -> str:
    if now < certificate.not_before - grace_s:
        return f"certificate that begins at {show_time(certificate.not_before)}"
    if now > certificate.not_after + grace_s:
        return f"certificate that expired at {show_time(certificate.not_after)}"
    return ""


def latest_time(clock: float, *signed_at: int) -> float:
    """Return the time by a clock that may be years behind: not earlier than any time at which an authority has signed.

    `signed_at` are beginnings of certificates and times of revocation lists.  So a host that starts in 1970 accepts the
    certificates of its peers.  No signature helps against a clock that is ahead.
    """
    return max(clock, *signed_at) if signed_at else clock


def show_time(time: float) -> str:
    """Return a time in seconds since 1970 as text, such as "2026-11-29 12:00 UTC"."""
    return dt.datetime.fromtimestamp(time, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
