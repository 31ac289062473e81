"""A memory file in which control keeps its soft state, so that its successor goes on where it died.

The supervisor owns the descriptor; the file has no name and goes with the instance.  Two slots in turn: the header,
one small write, names the slot that is whole, so a control that dies while saving leaves the state before.

What is saved holds sender keys.  It is written through mappings which are locked into memory, if that is allowed.
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
"""Bytes by which a mapping grows: few mappings are ever made, and little is mapped for nothing."""


def create() -> int:
    """A new, empty checkpoint; its descriptor."""
    return os.memfd_create("mcast-pipeline-checkpoint", os.MFD_CLOEXEC)


class Checkpoint:
    """Reader and writer, for the one control process of the instance."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        header = os.pread(fd, _HEADER.size, 0)
        self._generation, self._length, self._slot, self._crc = (
            _HEADER.unpack(header) if len(header) == _HEADER.size else (0, 0, 1, 0)
        )
        self._maps: list[mmap.mmap | None] = [None, None]

    def load(self) -> bytes | None:
        """What was saved last; None if nothing was, or it is not whole."""
        if not self._generation:
            return None
        data = os.pread(self._fd, self._length, _SLOT_AT[self._slot])
        return data if zlib.crc32(data) == self._crc else None

    def save(self, data: bytes) -> None:
        """Replaces what was saved."""
        slot = 1 - self._slot
        self._mapped(slot, len(data))[: len(data)] = data
        self._generation, self._slot = self._generation + 1, slot
        self._length, self._crc = len(data), zlib.crc32(data)
        os.pwrite(self._fd, _HEADER.pack(self._generation, self._length, self._slot, self._crc), 0)

    def _mapped(self, slot: int, length: int) -> mmap.mmap:
        """A slot of at least that length."""
        held = self._maps[slot]
        if held is None or len(held) < length:
            size, at = -(-max(length, 1) // _GROWTH) * _GROWTH, _SLOT_AT[slot]
            os.ftruncate(self._fd, max(os.fstat(self._fd).st_size, at + size))
            held = self._maps[slot] = mmap.mmap(self._fd, size, offset=at)
            privileges.lock_pages(held)
        return held
