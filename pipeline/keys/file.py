"""The network key: its file, and the keys derived from it.

All nodes of an overlay hold one network key; everything else (the CURVE key pair of the control links) is derived from
it, and each node's random sender key travels on those links only.  This file knows files and HKDF, not what the
derived keys are used for.

The file is text: comments (#), then one key a line, 32 random bytes in base64.  The first key is the active one; a
second one is let in beside it while an overlay moves from one to the other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from pipeline.errors import ConfigError, PermissionDeniedError, PipelineError

KEY_BYTES = 32
"""A network key has the strength of the strongest key derived from it (AES-256, Curve25519)."""

KEYS_MAX = 2
"""The active one and the one before it, or one that is to follow: more at once help nobody and let more in."""

FILE_BYTES_MAX = 65536
"""A file above this is no key file; nothing else of it is read."""

_HEAD = "# network key of mcast-pipeline: copy this file to every node of the overlay and show it to nobody\n"


def new_key_text() -> str:
    """The content of a key file with one new random key."""
    return _HEAD + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n"


def write_network_key(path: Path) -> None:
    """Make a key file with a new random key, mode 0600; a file that exists is never touched."""
    # O_EXCL with the mode given at creation: at no moment is there a key that others can read, nor half an old one.
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise PipelineError(f"{path}: exists already; remove it first if its network no longer needs it") from None
    except PermissionError as error:
        raise PermissionDeniedError(f"{path}: {_reason(error)}") from error
    except OSError as error:
        raise PipelineError(f"{path}: {_reason(error)}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            file.write(new_key_text())
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise PipelineError(f"{path}: {_reason(error)}") from error


def rotate_network_key(path: Path) -> None:
    """Put a new random key before the present ones, of which the first stays: nodes that hold either can still talk."""
    present = load_network_keys(path)
    _rewrite(path, [secrets.token_bytes(KEY_BYTES), present[0]])


def retire_network_keys(path: Path) -> None:
    """Take out all keys but the first: who holds only an old one is out."""
    _rewrite(path, load_network_keys(path)[:1])


def _rewrite(path: Path, network_keys: list[bytes]) -> None:
    """Replaces a key file in one step, same owner, mode 0600: at no moment is there half a file."""
    text = _HEAD + "".join(base64.b64encode(key).decode() + "\n" for key in network_keys)
    new = path.with_name(f".{path.name}.new")
    try:
        owner = path.stat()
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, 0o600)
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        kind = PermissionDeniedError if isinstance(error, PermissionError) else PipelineError
        raise kind(f"{path}: {_reason(error)}") from error


def load_network_key(path: Path | str) -> bytes:
    """The active key (32 bytes) of a key file; ConfigError if that is missing, malformed or readable by others."""
    return load_network_keys(Path(path))[0]


def load_network_keys(path: Path | str) -> list[bytes]:
    """All keys of a key file, the active one first; errors as `load_network_key`."""
    path = Path(path)
    try:
        # Without O_NONBLOCK a FIFO of that name would have us wait for whoever writes to it.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{path}: not a regular file, so no key file")
            if status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise ConfigError(f"{path}: others can read this key (mode {mode:04o}); mend it: chmod 600 {path}")
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such key file; make one: pipeline keygen {path}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the key: {_reason(error)}") from error
    return _parse(path, data)


def _parse(path: Path, data: bytes) -> list[bytes]:
    keys = []
    for number, line in enumerate(data[:FILE_BYTES_MAX].splitlines(), start=1):
        word = line.strip()
        if not word or word.startswith(b"#"):
            continue
        try:
            key = base64.b64decode(word, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise ConfigError(f"{path}: line {number} is no key (32 bytes in base64); make one: pipeline keygen")
        keys.append(key)
    if not keys or len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: holds no key; make one: pipeline keygen")
    if len(keys) > KEYS_MAX:
        raise ConfigError(f"{path}: holds {len(keys)} keys, {KEYS_MAX} are the limit: pipeline keygen --retire {path}")
    return keys


def derive(key: bytes, purpose: str, n: int = 32) -> bytes:
    """`n` bytes for one purpose, by HKDF-SHA256 (RFC 5869, no salt); those of other purposes reveal nothing of them."""
    if not 0 < n <= 255 * 32:
        raise ValueError(f"HKDF-SHA256 gives 1 to {255 * 32} bytes, not {n}")
    pseudorandom = hmac.digest(bytes(32), key, hashlib.sha256)
    info = b"mcast-pipeline/" + purpose.encode()
    output = block = b""
    for counter in range(1, -(-n // 32) + 1):
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), hashlib.sha256)
        output += block
    return output[:n]


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
