"""Credentials of a node: the authority of its network, its certificate, and the authority's revocation list.

    [security] authority = FILE      public key of the authority: only nodes with its certificates are members
    [node] certificate = FILE        default: `certificate` in the state directory, if it is there
    [security] revocations = FILE    default: `revocations` in the state directory, where the node keeps newer lists

Without an authority the network is open: a certificate is then sent to the other nodes, some of which may have one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline import limits
from pipeline.address import parse_prefix, show_prefix
from pipeline.config import Config
from pipeline.errors import ConfigError, WireError
from pipeline.io import state
from pipeline.keys import certificate as certificates
from pipeline.keys import revocation, storage
from pipeline.keys.certificate import Certificate
from pipeline.keys.identity import PUBLIC_KEY_BYTES
from pipeline.keys.revocation import RevocationList

PUBLIC_KEY = "public-key"
"""Tag of public keys as text."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the files contain; each structure as a value, and as the bytes that other nodes get."""

    authority: bytes = b""
    """Public key; empty in an open network."""
    certificate: Certificate | None = None
    certificate_data: bytes = b""
    revocations: RevocationList | None = None
    revocations_data: bytes = b""

    def now(self, clock: float) -> float:
        """Return the time by a clock that may be years behind (`certificate.latest_time`)."""
        signed_at = [self.certificate.not_before] if self.certificate else []
        signed_at += [self.revocations.issued_at] if self.revocations else []
        return certificates.latest_time(clock, *signed_at)

    def time_warning(self, clock: float) -> str:
        """Return why other nodes refuse this one soon, or already do; empty within the period of its certificate."""
        return certificates.describe_grace(self.certificate, clock) if self.certificate else ""


def load(config: Config, public_key: bytes | None = None) -> Credentials:
    """Return the credentials of a node; ConfigError if they cannot be used, whatever the clock shows.

    With the `public_key` of the node its certificate must be for that key, and must exist if it is configured or if
    there is an authority.  Without it a missing certificate is no error: a node is signed after its first start.
    """
    authority = load_public_key(Path(config.security.authority)) if config.security.authority else b""
    is_required = public_key is not None and bool(authority or config.node.certificate)
    certificate, certificate_data = _load_certificate(config, is_required=is_required)
    revocations, revocations_data = _load_revocations(config, authority)
    found = Credentials(authority, certificate, certificate_data, revocations, revocations_data)
    if certificate is None:
        return found
    path = certificate_path(config)
    reason = certificates.check_claims(
        certificate,
        authority=authority or certificate.authority,
        public_key=public_key or certificate.public_key,
        name=config.node.name,
        addresses=[parse_prefix(text)[0] for text in config.tun.addresses],
    )
    if reason:
        raise ConfigError(f"{path}: not for this node: {reason}")
    if revocations is not None and revocations.authority == certificate.authority and revocations.revokes(certificate):
        raise ConfigError(f"{path}: this certificate is revoked: ask the authority for another one")
    return found


def _is_there(path: Path) -> bool:
    """Return whether there is a file; a state directory that this user may not search has none."""
    with contextlib.suppress(OSError):
        return state.exists(path)
    return False


def _load_certificate(config: Config, *, is_required: bool) -> tuple[Certificate | None, bytes]:
    path = certificate_path(config)
    if not is_required and not _is_there(path):
        return None, b""
    return load_certificate(path)


def load_certificate(path: Path) -> tuple[Certificate, bytes]:
    """Return the certificate in a file, as a value and as bytes; ConfigError if there is none."""
    remedy = "have this node signed (pipeline identity show, then pipeline authority sign) and put it there"
    return _load(path, certificates.decode, "certificate", remedy, limits.CERTIFICATE_BYTES_MAX)


def _load_revocations(config: Config, authority: bytes) -> tuple[RevocationList | None, bytes]:
    """Return the revocation list if there is one: the node may not have received any yet."""
    path = revocations_path(config)
    if not authority or not _is_there(path):
        return None, b""
    limit = limits.REVOCATION_LIST_BYTES_MAX
    revocations, data = _load(path, revocation.decode, "revocation list", "", limit)
    if revocations.authority != authority:
        raise ConfigError(f"{path}: a revocation list of another authority: remove it")
    return revocations, data


def _load(path: Path, decode: Callable[[bytes], T], noun: str, remedy: str, bytes_max: int) -> tuple[T, bytes]:
    """Return a signed structure in a file, as a value and as bytes."""
    text = storage.read(path, noun=noun, remedy=remedy, is_private=False, bytes_max=2 * bytes_max)
    try:
        data = storage.from_text(text)
        return decode(data), data
    except (ValueError, WireError):
        raise ConfigError(f"{path}: not a {noun}, or changed after it was signed: copy it again") from None


def load_public_key(path: Path) -> bytes:
    """Return the public key in a file; ConfigError if there is none."""
    remedy = "pipeline authority init makes one"
    text = storage.read(path, noun="public key", remedy=remedy, is_private=False)
    try:
        return parse_public_key(text)
    except ValueError:
        raise ConfigError(f"{path}: not a public key") from None


def parse_public_key(text: bytes) -> bytes:
    """Return the public key in the content of a file; ValueError if there is none."""
    public_key = storage.from_text(text, tag=PUBLIC_KEY)
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ValueError("not 32 bytes")
    return public_key


def public_key_text(of: str, public_key: bytes) -> str:
    """Return the content of the file of a public key."""
    return storage.to_text(f"public key of mcast-pipeline: {of}", public_key, tag=PUBLIC_KEY)


def addresses_of(certificate: Certificate) -> tuple[str, ...]:
    """Return the addresses that a node takes if it is configured with none: the first of each family."""
    first = {len(address): show_prefix(address, length) for address, length in reversed(certificate.addresses)}
    return tuple(first[size] for size in sorted(first))


def save_revocations(config: Config, data: bytes) -> None:
    """Keep a newer revocation list for the next start; PipelineError if it cannot be written."""
    path = revocations_path(config)
    with contextlib.suppress(OSError):  # replace() has the reason
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    storage.replace(path, revocations_text(revocation.decode(data), data), mode=0o644)


def revocations_text(revocations: RevocationList, data: bytes) -> str:
    """Return the content of the file of a revocation list."""
    at = certificates.show_time(revocations.issued_at)
    return storage.to_text(f"revocation list of mcast-pipeline, version {revocations.version}, {at}", data)


def certificate_text(certificate: Certificate, data: bytes) -> str:
    """Return the content of the file of a certificate."""
    until = certificates.show_time(certificate.not_after)
    comment = f"certificate of mcast-pipeline: node {certificate.name}, serial {certificate.serial}, until {until}"
    return storage.to_text(comment, data)


def certificate_path(config: Config) -> Path:
    """Return the path of the node's certificate."""
    return Path(config.node.certificate or state.directory(config.node.name) / "certificate")


def revocations_path(config: Config) -> Path:
    """Return the path of the revocation list."""
    return Path(config.security.revocations or state.directory(config.node.name) / "revocations")
