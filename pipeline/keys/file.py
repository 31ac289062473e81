"""The network key: its file, and the keys derived from it.

All nodes of an overlay have the same network key.  Other keys, such as the CURVE key pair of the control links, are
derived from it; each node's random sender key is sent on those links only.  This module knows its file and HKDF, but
not the use of the derived keys.

The file is text: comments (#), then one key in each line, 32 random bytes in base64.  The first key is the active one.
A second key is accepted beside it while an overlay moves from one key to the other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.keys import storage

KEY_BYTES = 32
"""Length of a network key: as strong as the strongest key derived from it (AES-256, Curve25519)."""

KEYS_MAX = 2
"""Keys in a file: the active one, and the previous or the next one.  More would only admit more old keys."""

_HEAD = "# network key of mcast-pipeline: copy this file to every node of the overlay and show it to nobody\n"


def new_key_text() -> str:
    """Return the content of a key file with one new random key."""
    return _HEAD + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n"


def write_network_key(path: Path) -> None:
    """Make a key file with a new random key and mode 0600; an existing file is never changed."""
    storage.create(path, new_key_text(), in_use="remove it first if no network needs it")


def add_network_key(path: Path) -> None:
    """Put a new random key before the active one, which stays: nodes with either of the two can still be linked."""
    present = load_network_keys(path)
    _rewrite(path, [secrets.token_bytes(KEY_BYTES), present[0]])


def retire_network_keys(path: Path) -> None:
    """Remove all keys but the first; nodes that have only an old key are excluded."""
    _rewrite(path, load_network_keys(path)[:1])


def _rewrite(path: Path, network_keys: list[bytes]) -> None:
    storage.replace(path, _HEAD + "".join(base64.b64encode(key).decode() + "\n" for key in network_keys))


def load_network_key(path: Path | str) -> bytes:
    """Return the active key of a key file; ConfigError if the file is missing, malformed or readable by others."""
    return load_network_keys(Path(path))[0]


def load_network_keys(path: Path | str) -> list[bytes]:
    """Return all keys of a key file, the active one first; errors as in `load_network_key`."""
    path = Path(path)
    return _parse(path, storage.read(path, noun="key", remedy=f"make one with pipeline keygen {path}"))


def _parse(path: Path, data: bytes) -> list[bytes]:
    keys = []
    for number, line in enumerate(data[: storage.FILE_BYTES_MAX].splitlines(), start=1):
        word = line.strip()
        if not word or word.startswith(b"#"):
            continue
        try:
            key = base64.b64decode(word, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise ConfigError(f"{path}: line {number} is not a key (32 bytes in base64): use pipeline keygen")
        keys.append(key)
    if not keys or len(data) > storage.FILE_BYTES_MAX:
        raise ConfigError(f"{path}: no key in this file: make one with pipeline keygen")
    if len(keys) > KEYS_MAX:
        raise ConfigError(f"{path}: {len(keys)} keys, {KEYS_MAX} are the limit: run pipeline keygen --retire {path}")
    return keys


def derive(key: bytes, purpose: str, n: int = 32) -> bytes:
    """Return `n` bytes for one purpose by HKDF-SHA256 (RFC 5869, no salt).

    Bytes for one purpose reveal nothing of those for another.
    """
    if not 0 < n <= 255 * 32:
        raise ValueError(f"HKDF-SHA256 gives 1 to {255 * 32} bytes, not {n}")
    pseudorandom = hmac.digest(bytes(32), key, hashlib.sha256)
    info = b"mcast-pipeline/" + purpose.encode()
    output = block = b""
    for counter in range(1, -(-n // 32) + 1):
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), hashlib.sha256)
        output += block
    return output[:n]
