"""Detector of a host that was restored from a snapshot while this node ran.

Its shared memory then holds sequence numbers that were used before, with the same key.  Signs are a new generation of
the virtual machine (io/vm_generation.py), and a step of the wall clock, which a host without the first one shows.
"""

from __future__ import annotations

import time

from pipeline.io.vm_generation import VmGeneration

CLOCK_STEP_S = 10.0
"""Step of the wall clock that counts as a sign.  Time servers correct less; a clock that was set by hand causes one
new start of all sessions."""


class RestoreDetector:
    """Detector of one instance."""

    def __init__(self) -> None:
        self._generation = VmGeneration()
        self._offset_s = self._clock_offset()

    def has_been_restored(self) -> bool:
        """Return whether there was a sign since the last call."""
        offset_s, self._offset_s = self._offset_s, self._clock_offset()
        return self._generation.has_changed() or abs(self._offset_s - offset_s) > CLOCK_STEP_S

    def close(self) -> None:
        """Detect no more."""
        self._generation.close()

    @staticmethod
    def _clock_offset() -> float:
        """Return by how much the wall clock is ahead of the time since boot, in which the host may have slept."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
