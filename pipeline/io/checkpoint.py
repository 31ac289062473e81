"""Checkpoint of control: a memory file with its soft state, from which a restarted control process goes on.

The supervisor owns the descriptor; the file has no name and ends with the instance.  States are written to two slots in
turn.  The header, one small write, names the complete slot, so a control that is killed while saving leaves the state
before.

The state holds sender keys, so it is written through mappings that are locked into memory, if that is allowed.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib

from pipeline.io import privileges

_HEADER = struct.Struct("<QQII")  # generation, length, slot, CRC-32
_SLOT_AT = (4096, 1 << 30)  # the file is sparse
_GROWTH = 1 << 20
"""Bytes by which a mapping grows: few mappings are made, and little memory is mapped without use."""


def create() -> int:
    """Return the descriptor of a new, empty checkpoint."""
    return os.memfd_create("mcast-pipeline-checkpoint", os.MFD_CLOEXEC)


class Checkpoint:
    """Reader and writer of a checkpoint; an instance has one control process, so one at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        header = os.pread(fd, _HEADER.size, 0)
        self._generation, self._length, self._slot, self._crc = (
            _HEADER.unpack(header) if len(header) == _HEADER.size else (0, 0, 1, 0)
        )
        self._maps: list[mmap.mmap | None] = [None, None]

    def load(self) -> bytes | None:
        """Return the last state; None if none was saved, or it is not complete."""
        if not self._generation:
            return None
        data = os.pread(self._fd, self._length, _SLOT_AT[self._slot])
        return data if zlib.crc32(data) == self._crc else None

    def save(self, data: bytes) -> None:
        """Replace the saved state; OSError if there is no memory for it, and the state before stays."""
        slot = 1 - self._slot
        self._mapped(slot, len(data))[: len(data)] = data
        generation, length, crc = self._generation + 1, len(data), zlib.crc32(data)
        os.pwrite(self._fd, _HEADER.pack(generation, length, slot, crc), 0)
        self._generation, self._length, self._slot, self._crc = generation, length, slot, crc

    def _mapped(self, slot: int, length: int) -> mmap.mmap:
        """Return the mapping of a slot, with at least that length."""
        held = self._maps[slot]
        if held is None or len(held) < length:
            size, at = -(-max(length, 1) // _GROWTH) * _GROWTH, _SLOT_AT[slot]
            os.ftruncate(self._fd, max(os.fstat(self._fd).st_size, at + size))
            held = self._maps[slot] = mmap.mmap(self._fd, size, offset=at)
            privileges.lock_pages(held)
        return held
