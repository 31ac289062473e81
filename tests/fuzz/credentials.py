"""Fuzz targets of certificates and revocation lists: any bytes in, and invariants that must hold.

    certificate, revocations    a decoder: it returns a value or raises WireError; a value is encoded and decoded alike

The bytes are decoded as they are, and as a body with a correct signature, which random bytes never have.  Half of the
mutations keep the msgpack well formed, as others hardly ever pass the decoder.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import msgspec

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


# ---------------------------------------------------------------- mutation


def twisted(rng: random.Random, data: bytes) -> bytes:
    """Return a body with one value changed, removed or added; any other bytes unchanged."""
    try:
        value = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # values that JSON-like types cannot hold
        return msgspec.msgpack.encode(_twist(rng, value))
    return data


def _twist(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {name: each for name, each in value.items() if name != key}
            case 1:
                return value | {rng.choice(("send_groups", "receive_groups", "more")): _value(rng)}
            case _:
                return value | {key: _twist(rng, value[key])}
    if isinstance(value, list) and rng.random() < 0.9:
        at = rng.randrange(len(value) + 1)
        match rng.randrange(4):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + value[at:] * rng.choice((2, 20)) + [_value(rng)]
            case _ if at < len(value):
                return [*value[:at], _twist(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, bytes) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return value[:at] + rng.randbytes(1) + value[at + 1 :]
    if isinstance(value, int) and rng.random() < 0.8:
        return value + rng.choice((-1, 1, 8, -8, 1 << 32))
    return _value(rng)


def _value(rng: random.Random) -> Any:
    """Return a value of any type, as a rule near a bound."""
    number = rng.choice((0, 1, 7, 16, 24, 32, 64, 128, 129, 1 << 31, limits.TIME_MAX, (1 << 63) - 1, (1 << 64) - 1))
    network = [rng.randbytes(rng.choice((4, 4, 16, 5))), rng.choice((0, 8, 32, 64, 128))]
    entry = [AUTHORITY.public_key, number, number, "lost"]
    texts = ("", "a", "n" * 64, "\u0430", "\x1b[2J", "a b")
    return rng.choice((None, True, number, -number, rng.choice(texts), rng.randbytes(32), [], [network], network,
                       [entry], entry, {"a": number}, 1.5))  # fmt: skip
