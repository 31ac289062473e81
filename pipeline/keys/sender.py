"""When this node's sender key gives way to the next: by time, by datagrams, or because somebody was excluded.

    STEADY ──due──▶ ANNOUNCED ──all who are up hold it──▶ OVERLAP ──OVERLAP_S──▶ STEADY
    one key         the next key stands in the record,    the next key seals,    one key
                    the old one seals                     the old one opens

A datagram never meets a receiver without its key: nobody seals with a key before every node with a link has
acknowledged the record that holds it, and the old one stands everywhere until what was sealed with it has arrived.  A
node that does not acknowledge in ACKNOWLEDGE_MAX_S holds up nobody: it loses packets until it does.

Nonces.  AES-GCM's is origin ‖ sequence.  Sequence numbers are counted in shared memory, a counter for each lane and one
for its probes, the counter's number being the top byte; a number is taken before it is used and the counters never
go back: not when a stage or control is restarted, nor when the key rotates.  A start of the instance, whose counters
begin at 0, draws a new random key.  So no (key, nonce) repeats, and a rotation need not wait for the stages.

It knows no clock, no randomness and no shared memory: the state is the record, what is to change comes out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.messages import NodeRecord

ACKNOWLEDGE_MAX_S = 10.0
"""A link that acknowledges nothing for 2.5 s is down; who keeps it up and does not acknowledge is left behind."""
OVERLAP_S = 5.0
"""Longest way of a datagram: the queue of a TUN, a full ring, a slow path; a relay's too."""
EPOCHS = 256
SPREAD = 0.1
"""Intervals differ by ± this share from node to node, so that an overlay's keys do not all rotate at once."""


class Phase(enum.StrEnum):
    """Of the node's keys, read off its record."""

    STEADY = "steady"
    ANNOUNCED = "announced"
    OVERLAP = "overlap"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """The record's new keys."""

    key_epoch: int
    sender_key: bytes
    second_epoch: int | None = None
    second_key: bytes = b""


def phase_of(record: NodeRecord) -> Phase:
    """Which keys the record holds."""
    if record.second_epoch is None:
        return Phase.STEADY
    is_next = record.second_epoch == (record.key_epoch + 1) % EPOCHS
    return Phase.ANNOUNCED if is_next else Phase.OVERLAP


class SenderKeyRotation:
    """Decides; the caller changes the record, tells the peers and shared memory."""

    def __init__(
        self, *, interval_s: float, packets: int, random: Callable[[], float], draw: Callable[[], bytes], now: float
    ) -> None:
        self._interval_s = interval_s
        self._packets = packets
        self._random = random
        self._draw = draw
        self._entered = now
        self._base: int | None = None
        """Datagrams sent when the present key began."""
        self._due = self._next_due(now)
        self.pending = 0
        """Rotations asked for by `renew`."""

    def renew(self) -> None:
        """The present key is to be worthless soon, whatever its age."""
        self.pending += 1

    def tick(self, record: NodeRecord, *, sent: int, is_acknowledged: bool, now: float) -> KeyChange | None:
        """What is to change now.  `sent` grows with every datagram; `is_acknowledged`: by all peers that are up."""
        if not record.sender_key:
            return None
        if self._base is None:
            self._base = sent
        phase = phase_of(record)
        if phase is Phase.STEADY:
            if not self.pending and now < self._due and sent - self._base < self._packets:
                return None
            self.pending = max(0, self.pending - 1)
            self._entered = now
            following = (record.key_epoch + 1) % EPOCHS
            return KeyChange(record.key_epoch, record.sender_key, following, self._draw())
        if phase is Phase.ANNOUNCED:
            if not is_acknowledged and now - self._entered < ACKNOWLEDGE_MAX_S:
                return None
            assert record.second_epoch is not None, "that is what the phase says"
            self._entered, self._base, self._due = now, sent, self._next_due(now)
            return KeyChange(record.second_epoch, record.second_key, record.key_epoch, record.sender_key)
        if now - self._entered < OVERLAP_S:
            return None
        return KeyChange(record.key_epoch, record.sender_key)

    def _next_due(self, now: float) -> float:
        return now + self._interval_s * (1 - SPREAD + 2 * SPREAD * self._random())
