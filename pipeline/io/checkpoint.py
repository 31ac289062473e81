"""A memory file in which control keeps its soft state, so that its successor goes on where it died.

The supervisor owns the descriptor; the file has no name and goes with the instance.  Two slots in turn: the header,
one small write, names the slot that is whole, so a control that dies while saving leaves the state before.
"""

from __future__ import annotations

import os
import struct
import zlib

_HEADER = struct.Struct("<QQII")  # generation, length, slot, CRC-32
_SLOT_AT = (4096, 1 << 30)  # the file is sparse


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

    def load(self) -> bytes | None:
        """What was saved last; None if nothing was, or it is not whole."""
        if not self._generation:
            return None
        data = os.pread(self._fd, self._length, _SLOT_AT[self._slot])
        return data if zlib.crc32(data) == self._crc else None

    def save(self, data: bytes) -> None:
        """Replaces what was saved."""
        slot = 1 - self._slot
        os.pwrite(self._fd, data, _SLOT_AT[slot])
        self._generation, self._slot = self._generation + 1, slot
        self._length, self._crc = len(data), zlib.crc32(data)
        os.pwrite(self._fd, _HEADER.pack(self._generation, self._length, self._slot, self._crc), 0)
