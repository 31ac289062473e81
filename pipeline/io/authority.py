"""Files of an authority: its signing key, its public key, its register and its revocation list.

    NAME.key            secret (0600): the seed of the key pair that signs
    NAME.pub            public key, for `[security] authority` of every node
    NAME.register       certificates and revocations (JSON)
    NAME.revocations    the last revocation list, for any node of the network

They stand in one directory, on any host: nodes need no connection to it.  A command holds a lock on the key file while
it changes the register, so that no serial number is given twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.errors import ConfigError, PipelineError
from pipeline.io import credentials
from pipeline.keys import storage
from pipeline.keys.identity import SEED_BYTES, Identity, new_seed
from pipeline.keys.register import SCHEMA, Register
from pipeline.keys.revocation import RevocationList

DEFAULT = "authority.key"
REGISTER_BYTES_MAX = 64 << 20
"""Size above which a file is refused as a register: ten times that of a full one."""

_TAG = "signing-key"
_COMMENT = "signing key of an authority of mcast-pipeline: keep it offline, with its register, and show it to nobody"


def key_path(text: str) -> Path:
    """Return the path of a signing key that is named by its file or its directory."""
    path = Path(text)
    return path / DEFAULT if path.is_dir() else path


def beside(key: Path, kind: str) -> Path:
    """Return the path of another file of the same authority: "pub", "register" or "revocations"."""
    return key.with_name(f"{key.name.removesuffix('.key')}.{kind}")


def make(key: Path) -> list[Path]:
    """Make a new authority and return its files; PipelineError if one of them exists."""
    seed = new_seed()
    public_key = Identity(seed).public_key
    content = {
        beside(key, "register"): (_register_text(Register(authority=public_key)), 0o600),
        beside(key, "pub"): (credentials.public_key_text("authority", public_key), 0o644),
        key: (storage.to_text(_COMMENT, seed, tag=_TAG), 0o600),
    }
    for path in content:
        if path.exists():
            raise PipelineError(f"{path}: exists already: give another name, or remove it if no network needs it")
    for path, (text, mode) in content.items():
        storage.create(path, text, mode=mode)
    return list(content)


@contextlib.contextmanager
def opened(key: Path) -> Iterator[Authority]:
    """Give an authority to one command, and save its register at the end unless the command has failed."""
    seed = _load_seed(key)
    lock = os.open(key, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        authority = Authority(key, Identity(seed))
        yield authority
        authority.save()
    finally:
        os.close(lock)


class Authority:
    """An authority: its key pair and its register."""

    def __init__(self, key: Path, signer: Identity) -> None:
        self._path = beside(key, "register")
        self._text = ""
        self.revocations_path = beside(key, "revocations")
        self.signer = signer
        self.register = self._load()

    def _load(self) -> Register:
        remedy = "restore it; without it serial numbers would begin again"
        data = storage.read(self._path, noun="register", remedy=remedy, bytes_max=REGISTER_BYTES_MAX)
        try:
            register = msgspec.json.decode(data, type=Register)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._path}: not a register of an authority: {error}") from error
        if register.schema != SCHEMA:
            raise ConfigError(f"{self._path}: of another version of this program (schema {register.schema})")
        if register.authority != self.signer.public_key:
            raise ConfigError(f"{self._path}: the register of another signing key")
        self._text = _register_text(register)
        return register

    def save(self) -> None:
        """Write the register if it has changed."""
        text = _register_text(self.register)
        if text != self._text:
            storage.replace(self._path, text)
            self._text = text

    def write_revocations(self, path: Path, now: int) -> RevocationList:
        """Write the present revocation list, after the register, so that no version is issued twice."""
        self.save()
        revocations, data = self.register.revocation_list(self.signer, now)
        storage.replace(path, credentials.revocations_text(revocations, data), mode=0o644)
        return revocations


def _load_seed(path: Path) -> bytes:
    data = storage.read(path, noun="signing key", remedy=f"make one with pipeline authority init {path}")
    seed = b""
    with contextlib.suppress(ValueError):
        seed = storage.from_text(data, tag=_TAG)
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"{path}: not a signing key: restore it")
    return seed


def _register_text(register: Register) -> str:
    return msgspec.json.format(msgspec.json.encode(register), indent=1).decode("ascii") + "\n"
