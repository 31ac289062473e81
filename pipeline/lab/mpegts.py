"""Meter of an MPEG transport stream at a receiver, packet by packet (ISO/IEC 13818-1 §2.4.3).

Its input is the bytes as they arrive, with the time.  It counts losses per PID by the continuity counters.  It decodes
nothing, knows no program tables and does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PACKET_BYTES = 188
SYNC = 0x47
NULL_PID = 0x1FFF
PCR_HZ = 27_000_000
PCR_WRAP = (1 << 33) * 300
JITTER_SHARE = 16
"""RFC 3550 §6.4.1: each new difference counts a sixteenth in the running mean that is the jitter."""


@dataclass(slots=True)
class StreamMeter:
    """Counts of one stream from its first byte."""

    packets: int = 0
    byte_count: int = 0
    continuity_errors: int = 0
    packets_lost: int = 0
    """Lower bound: to a counter of four bits 16 lost packets look like none."""
    jitter_s: float = 0.0
    """Jitter of the arrival of clock references against their values, as RFC 3550 defines it."""
    first_at: float | None = None
    last_at: float | None = None
    longest_gap_s: float = 0.0
    _counters: dict[int, int] = field(default_factory=dict)
    _repeated: set[int] = field(default_factory=set)
    _rest: bytes = b""
    _reference: tuple[float, int] | None = None
    _reference_pid: int | None = None

    def feed(self, data: bytes, now: float) -> None:
        """Meter the bytes that arrived at `now` (seconds, monotonic)."""
        if self.first_at is None:
            self.first_at = now
        elif self.last_at is not None:
            self.longest_gap_s = max(self.longest_gap_s, now - self.last_at)
        self.last_at = now
        self.byte_count += len(data)
        data = self._rest + data
        at = 0
        while len(data) - at >= PACKET_BYTES:
            if data[at] != SYNC:
                at = self._resynchronise(data, at)
                continue
            self._count_packet(data, at, now)
            at += PACKET_BYTES
        self._rest = data[at:]

    def _resynchronise(self, data: bytes, at: int) -> int:
        """Count one error for bytes that are no packet; return the position of the next sync byte."""
        self.continuity_errors += 1
        found = data.find(SYNC, at + 1)
        return len(data) if found < 0 else found

    def _count_packet(self, data: bytes, at: int, now: float) -> None:
        self.packets += 1
        pid = (data[at + 1] & 0x1F) << 8 | data[at + 2]
        if pid == NULL_PID:
            return
        has_adaptation, has_payload = bool(data[at + 3] & 0x20), bool(data[at + 3] & 0x10)
        flags = data[at + 5] if has_adaptation and data[at + 4] else 0
        if flags & 0x80:  # discontinuity_indicator
            self._counters.pop(pid, None)
        if flags & 0x10:
            self._update_jitter(pid, _clock_reference(data, at + 6), now)
        if has_payload:
            self._check_continuity(pid, data[at + 3] & 0x0F)

    def _check_continuity(self, pid: int, counter: int) -> None:
        """Count losses.  The counter grows by 1 with each packet with payload; one repetition is legal (§2.4.3.3)."""
        previous = self._counters.get(pid)
        self._counters[pid] = counter
        if previous is None:
            return
        step = (counter - previous) & 0x0F
        if step == 1:
            self._repeated.discard(pid)
        elif step == 0 and pid not in self._repeated:
            self._repeated.add(pid)
        else:
            self._repeated.discard(pid)
            self.continuity_errors += 1
            self.packets_lost += (step - 1) & 0x0F

    def _update_jitter(self, pid: int, reference: int, now: float) -> None:
        if self._reference_pid is None:
            self._reference_pid = pid
        if pid != self._reference_pid:
            return
        if self._reference is not None:
            before, earlier = self._reference
            sent = ((reference - earlier) % PCR_WRAP) / PCR_HZ
            self.jitter_s += (abs((now - before) - sent) - self.jitter_s) / JITTER_SHARE
        self._reference = now, reference


def _clock_reference(data: bytes, at: int) -> int:
    """Return a PCR of 42 bits in units of 1/27 MHz: 33 bits of base, 6 reserved, 9 of extension."""
    field_ = int.from_bytes(data[at : at + 6], "big")
    return (field_ >> 15) * 300 + (field_ & 0x1FF)
