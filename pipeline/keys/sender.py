"""Sender-key rotation: a new sender key after a time, after a number of datagrams, when a node was excluded, or when
another node has sealed datagrams with the present key.

    STEADY ──due──▶ ANNOUNCED ──all linked peers have it──▶ OVERLAP ──OVERLAP_S──▶ STEADY
    one key         the record holds the next key,          the next key seals,    one key
                    the old one seals                       the old one opens

Every receiver has the key of a datagram.  A node seals with a key only after every linked peer has acknowledged the
record that holds it, and the old key stays in the record until the datagrams sealed with it have arrived.  A peer that
does not acknowledge within ACKNOWLEDGE_MAX_S does not delay the others: it loses packets until it has the record.

Nonces.  The nonce of AES-GCM is origin ‖ sequence.  Sequence numbers are counted in shared memory, with one counter for
each lane and one for its probes; the number of the counter is the top byte.  A sequence number is taken before it is
used, and a counter never goes back: neither when a stage or control is restarted, nor when the key rotates.  A start of
the instance, with counters at 0, draws a new random key.  So no pair (key, nonce) is used twice, and a rotation need
not wait for the stages.

Forgeries.  Every member has this node's key.  One that seals high numbers with it fills the receivers' replay windows,
which then refuse this node's datagrams.  A new epoch has new windows.  A node with `--insecure` has no key: it rotates
for this reason only, and only its epoch changes.

This module knows neither a clock, nor randomness, nor shared memory: its state is the record, its output the change.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from pipeline import limits
from pipeline.messages import NodeRecord

ACKNOWLEDGE_MAX_S = 10.0
"""Time to wait for acknowledgements.  A silent link is down after 2.5 s; a peer that keeps it up without acknowledging
is not waited for any longer."""
OVERLAP_S = 5.0
"""Longest time from sealing to opening: the queue of a TUN, a full ring, a slow path, and those of a relay."""
EPOCHS = 256
"""Values of the epoch field, which has one byte."""
SPREAD = 0.1
"""Intervals differ by ± this share from node to node, so that the keys of an overlay do not all rotate at once."""


class Phase(enum.StrEnum):
    """Phase of a rotation, which follows from the keys in the record."""

    STEADY = "steady"
    ANNOUNCED = "announced"
    OVERLAP = "overlap"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """The new keys of the record."""

    key_epoch: int
    sender_key: bytes
    second_epoch: int | None = None
    second_key: bytes = b""


def phase_of(record: NodeRecord) -> Phase:
    """Return the phase of the record's keys."""
    if record.second_epoch is None:
        return Phase.STEADY
    is_next = record.second_epoch == (record.key_epoch + 1) % EPOCHS
    return Phase.ANNOUNCED if is_next else Phase.OVERLAP


class SenderKeyRotation:
    """Decisions about rotation; the caller changes the record, sends it to the peers and writes shared memory."""

    def __init__(
        self, *, interval_s: float, packets: int, random: Callable[[], float], draw: Callable[[], bytes], now: float
    ) -> None:
        self._interval_s = interval_s
        self._packets = packets
        self._random = random
        self._draw = draw
        self._entered = now
        self._base: int | None = None
        """Number of datagrams that were sent before the present key was used."""
        self._due = self._next_due(now)
        self.pending = 0
        """Rotations requested by `renew` and `renew_after_forgery`."""
        self._renewable_at = now
        """Time from which a forgery may cause the next rotation."""

    def renew(self) -> None:
        """Request a rotation whatever the age of the present key."""
        self.pending += 1

    def renew_after_forgery(self, record: NodeRecord, now: float) -> bool:
        """Request a rotation because the present key was used by another node.

        Returns False if the key is being renewed, or was renewed for this reason a short time ago.  Peers repeat their
        reports for as long as windows refuse datagrams.
        """
        if self.pending or phase_of(record) is not Phase.STEADY or now < self._renewable_at:
            return False
        self._renewable_at = now + limits.FORGERY_RENEWAL_INTERVAL_S
        self.renew()
        return True

    def tick(self, record: NodeRecord, *, sent: int, is_acknowledged: bool, now: float) -> KeyChange | None:
        """Return the change that is due, or None.

        `sent` is the number of datagrams since the start; `is_acknowledged`: all linked peers have the record.
        """
        if self._base is None:
            self._base = sent
        phase = phase_of(record)
        if phase is Phase.STEADY:
            is_due = now >= self._due or sent - self._base >= self._packets
            if not self.pending and not (is_due and record.sender_key):
                return None
            self.pending = max(0, self.pending - 1)
            self._entered = now
            following = (record.key_epoch + 1) % EPOCHS
            next_key = self._draw() if record.sender_key else b""
            return KeyChange(record.key_epoch, record.sender_key, following, next_key)
        if phase is Phase.ANNOUNCED:
            if not is_acknowledged and now - self._entered < ACKNOWLEDGE_MAX_S:
                return None
            assert record.second_epoch is not None, "this follows from the phase"
            self._entered, self._base, self._due = now, sent, self._next_due(now)
            return KeyChange(record.second_epoch, record.second_key, record.key_epoch, record.sender_key)
        if now - self._entered < OVERLAP_S:
            return None
        return KeyChange(record.key_epoch, record.sender_key)

    def _next_due(self, now: float) -> float:
        return now + self._interval_s * (1 - SPREAD + 2 * SPREAD * self._random())
