"""Files of keys and of what is signed with them: read with checks, created once, replaced in one step.

    read      a regular file of bounded size; a private one only if others have no rights to it
    create    a complete file or none, never in place of another one, whatever fails and whoever else tries
    replace   the same name, owner and mode; readers find the old content or the new one

The files are text: comments (#), then base64, of keys after a tag.  This module does not know what the bytes are.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import stat
from pathlib import Path

from pipeline.errors import ConfigError, PermissionDeniedError, PipelineError

FILE_BYTES_MAX = 65536
"""Size above which a file is refused as a key file; no more of it is read."""
LINE_LENGTH = 76
"""Characters of a line of base64, as in MIME: no mail program breaks them."""


def read(path: Path, *, noun: str, remedy: str, is_private: bool = True, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """Return at most `bytes_max` + 1 bytes of a file; ConfigError if it cannot be used.

    `noun` and `remedy` are for the error: what the file is, and what to do if it is missing.
    """
    try:
        # Without O_NONBLOCK the open of a FIFO would block until another process writes to it.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{path}: not a regular file")
            if is_private and status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise ConfigError(f"{path}: others can read this {noun} (mode {mode:04o}): run chmod 600 {path}")
            return file.read(bytes_max + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such {noun} file: {remedy}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the {noun}: {reason(error)}") from error


def create(path: Path, text: str, *, mode: int = 0o600, in_use: str = "remove it first if nothing needs it") -> None:
    """Make a file; an existing one is never changed.  PipelineError if it cannot be made."""
    try:
        new = _written(path, text, mode)
        try:
            os.link(new, path)
        finally:
            new.unlink()
        _sync_directory(path)
    except FileExistsError:
        raise PipelineError(f"{path}: exists already: {in_use}") from None
    except OSError as error:
        raise _failure(path, error) from error


def replace(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a file in one step, with the owner of the present one if there is one; PipelineError if that fails."""
    try:
        new = _written(path, text, mode)
        try:
            with contextlib.suppress(FileNotFoundError):
                owner = path.stat()
                if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                    os.chown(new, owner.st_uid, owner.st_gid)
            new.replace(path)
        except OSError:
            new.unlink()
            raise
        _sync_directory(path)
    except OSError as error:
        raise _failure(path, error) from error


def _written(path: Path, text: str, mode: int) -> Path:
    """Return a new file beside `path` with this content, which has reached the disk."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    # The mode at creation: the content is never readable by others.
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        new.unlink()
        raise
    return new


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(path: Path, error: OSError) -> PipelineError:
    kind = PermissionDeniedError if isinstance(error, PermissionError) else PipelineError
    return kind(f"{path}: {reason(error)}")


def reason(error: OSError) -> str:
    """Return the reason of a failed system call as text."""
    return (error.strerror or str(error)).lower()


# ---------------------------------------------------------------- text


def to_text(comment: str, data: bytes, *, tag: str = "") -> str:
    """Return the content of a file: a comment, which may have several lines, and the bytes in base64 after the tag.

    The tag is a word that names the kind of a key, so that no secret is taken for a public key.
    """
    code = tagged(tag, data)
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [code[start : start + LINE_LENGTH] for start in range(0, len(code), LINE_LENGTH)]
    return "\n".join(lines) + "\n"


def tagged(tag: str, data: bytes) -> str:
    """Return bytes as text: the tag, a colon, base64; the last alone if the tag is empty."""
    return (f"{tag}:" if tag else "") + base64.b64encode(data).decode()


def from_text(text: bytes, *, tag: str = "") -> bytes:
    """Return the bytes in the content of a file; ValueError if it has another tag, or no base64."""
    lines = (line.strip() for line in text.splitlines())
    code = b"".join(line for line in lines if not line.startswith(b"#"))
    prefix = f"{tag}:".encode() if tag else b""
    if not code.startswith(prefix):
        raise ValueError(f"no {tag}")
    try:
        return base64.b64decode(code.removeprefix(prefix), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
