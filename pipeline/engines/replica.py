"""A replicated map: its owner changes it, other nodes hold replicas.  Sent as deltas, repaired after any loss.

Each change of a ReplicaSource gets the next version, and a key keeps only its latest.  So "all entries newer than v",
in the order of their versions, brings a replica that is complete up to v to the present, and every prefix of that
brings it to a version in between.  Deltas may thus be cut anywhere, doubled, lost and overtaken:

    Update(base, version)   all entries with base < version of entry ≤ version; valid for replicas that have ≥ base
    Advert(version, digest) the state that a replica should have; sent periodically.  A replica with another state sends
    Pull(have)              and is sent the difference

Deleted keys are kept as tombstones up to a bound; below `floor` some have been dropped.  A replica with a version below
that (or with another digest at the same version, which only a fault explains) is sent everything, `reset`.  It keeps
its entries until the reset is complete and then drops those that were not in it, so that forwarding is never emptied.

This module knows no nodes, links or clock; keys and values are bytes.  One law: a replica belongs to one incarnation of
its owner; its holder discards it when the owner has restarted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from pipeline import limits

Key: TypeAlias = bytes
Value: TypeAlias = bytes
Version: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Entry: TypeAlias = tuple[
    Annotated[bytes, Meta(min_length=1, max_length=64)],
    Annotated[bytes, Meta(max_length=limits.REPLICA_VALUE_BYTES_MAX)] | None,
]
"""A key and its value, None if it is deleted."""

_ENTRY_OVERHEAD_BYTES = 8


class Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="u"):
    """Entries between two versions."""

    base: Version
    version: Version
    floor: Version
    reset_until: Version
    """If not 0, this is the first part of a reset, which is complete at that version."""
    entries: list[Entry]


class Advert(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="a"):
    """State that a replica should have."""

    version: Version
    digest: Annotated[int, Meta(ge=0)]


class Pull(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="p"):
    """Version that a replica has.  If `floor` is not 0, a reset from that floor is under way."""

    have: Version
    floor: Version
    anew: bool
    """Request for everything, whatever the replica has."""


ReplicaMessage: TypeAlias = Update | Advert | Pull


class ReplicaSource:
    """The owner's side of a replicated map."""

    def __init__(self) -> None:
        self.version = 0
        self.floor = 0
        self.digest = 0
        self._entries: dict[Key, tuple[int, Value | None]] = {}  # in the order of versions
        self._tombstones = 0

    def __len__(self) -> int:
        return len(self._entries) - self._tombstones

    def get(self, key: Key) -> Value | None:
        """Return the value of a key, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def items(self) -> Iterator[tuple[Key, Value]]:
        """Return all keys that are not deleted, with their values."""
        return ((key, value) for key, (_, value) in self._entries.items() if value is not None)

    def set(self, key: Key, value: Value | None) -> bool:
        """Change a key, or delete it with None.  Returns whether that changed anything."""
        old = self.get(key)
        if old == value:
            return False
        if self._entries.pop(key, (0, b""))[1] is None:
            self._tombstones -= 1
        self.version += 1
        self._entries[key] = self.version, value
        self.digest ^= _fingerprint(key, old) ^ _fingerprint(key, value)
        if value is None:
            self._tombstones += 1
            if self._tombstones > limits.TOMBSTONES_MAX:
                self._drop_tombstones()
        return True

    def advert(self) -> Advert:
        """Return the state that a replica should have."""
        return Advert(self.version, self.digest)

    def updates(self, pull: Pull) -> list[Update]:
        """Return the entries that a replica lacks, in parts of at most ENGINE_MESSAGE_BYTES_MAX.

        A version beyond all that may have been sent before a restart is forged: its sender gets everything, and our
        versions do not follow it.
        """
        if self.version < pull.have <= self.version + limits.RESTORE_STEP:
            self.outrun(pull.have)
        is_sane = not pull.anew and pull.have <= self.version
        is_known = is_sane and (pull.have >= self.floor or (pull.floor == self.floor and pull.have > 0))
        base = pull.have if is_known else 0
        parts = list(self._parts(base))
        if not is_known:
            head = parts[0] if parts else Update(0, self.version, self.floor, 0, [])
            parts[:1] = [msgspec.structs.replace(head, reset_until=self.version)]
        return parts

    def outrun(self, version: int) -> None:
        """Continue above the version of a replica that is ahead, as this map was restored from an older state."""
        self.version = self.floor = max(self.version, version) + limits.RESTORE_STEP
        self._drop_tombstones()

    def restore(self, entries: Mapping[Key, Value], version: int) -> None:
        """Take over a snapshot.  Replicas may hold changes made after it, so all of them are reset."""
        for key, value in entries.items():
            self.set(key, value)
        self.outrun(version)

    def _parts(self, base: int) -> Iterator[Update]:
        entries: list[Entry] = []
        size = 0
        last = start = base
        for key, version, value in self._newer_than(base):
            cost = len(key) + len(value or b"") + _ENTRY_OVERHEAD_BYTES
            if entries and size + cost > limits.ENGINE_MESSAGE_BYTES_MAX:
                yield Update(start, last, self.floor, 0, entries)
                entries, size, start = [], 0, last
            entries.append((key, value))
            size += cost
            last = version
        if start < self.version:
            yield Update(start, self.version, self.floor, 0, entries)

    def _newer_than(self, base: int) -> list[tuple[Key, int, Value | None]]:
        """Return the entries above a version.  The search goes backwards, so that it costs only what it returns."""
        found = []
        for key in reversed(self._entries):
            version, value = self._entries[key]
            if version <= base:
                break
            found.append((key, version, value))
        found.reverse()
        return found

    def _drop_tombstones(self) -> None:
        """Drop the older half of the tombstones, or all of them if the floor is above."""
        dropped = [(key, version) for key, (version, value) in self._entries.items() if value is None]
        if self.floor < self.version:
            dropped = dropped[: len(dropped) // 2]
            self.floor = max(self.floor, dropped[-1][1])
        for key, _ in dropped:
            del self._entries[key]
        self._tombstones -= len(dropped)


class MemoryBudget:
    """Bound on the weight of all replicas together, so that no number of lying nodes fills this node's memory."""

    def __init__(self) -> None:
        self.left = limits.REPLICAS_WEIGHT_MAX


@dataclass(slots=True)
class Replica:
    """Another node's side.  `apply` returns the keys that changed, `pull` the request to send to the owner."""

    budget: MemoryBudget = field(default_factory=MemoryBudget)
    weight: int = 0
    have: int = 0
    digest: int = 0
    floor: int = 0
    entries: dict[Key, Value] = field(default_factory=dict)
    is_faulty: bool = False
    """True if everything is to be sent anew."""
    is_short: bool = False
    """True if an entry exceeded the budget, so that the digest proves nothing."""
    _unconfirmed: set[Key] = field(default_factory=set)
    _reset_until: int = 0

    @classmethod
    def restored(cls, entries: dict[Key, Value], have: int, budget: MemoryBudget) -> Replica:
        """Return a replica from a checkpoint."""
        replica = cls(budget=budget, have=have)
        for key, value in entries.items():
            replica._set(key, value)
        if not have:
            replica.is_faulty = bool(entries)
        return replica

    def apply(self, update: Update) -> set[Key] | None:
        """Take a delta.  Returns the changed keys, or None if an earlier delta is missing: then send `pull()`."""
        if update.reset_until > self.have and not (self._reset_until and self.floor == update.floor):
            self._unconfirmed = set(self.entries)
            self._reset_until = update.reset_until
            self.floor = update.floor
            self.have = 0
            self.is_faulty = False
        if update.base > self.have:
            return None
        if update.version <= self.have:
            return set()
        changed = {key for key, value in update.entries if self._set(key, value)}
        self.have = update.version
        if self._reset_until and self.have >= self._reset_until:
            unconfirmed, self._unconfirmed = self._unconfirmed, set()
            changed |= {key for key in unconfirmed if self._set(key, None)}
            self._reset_until = 0
        return changed

    def differs(self, advert: Advert) -> bool:
        """Return whether entries are missing: then send `pull()`.

        A replica with other content at an equal version starts anew, and so does one whose owner cannot have sent it.
        """
        is_other = self.have == advert.version and self.digest != advert.digest and not self.is_short
        if is_other or self.have > advert.version + limits.RESTORE_STEP:
            self.start_anew()
        return self.have != advert.version

    def start_anew(self) -> None:
        """Request everything; present entries stay until that is complete."""
        self.have = 0
        self.is_faulty = True
        self._reset_until = 0

    def discard(self) -> None:
        """Return the weight of this replica to the budget, as its owner is gone."""
        self.budget.left += self.weight

    def pull(self) -> Pull:
        """Return the request to send to the owner."""
        return Pull(self.have, self.floor if self._reset_until else 0, self.is_faulty)

    def _set(self, key: Key, value: Value | None) -> bool:
        self._unconfirmed.discard(key)
        old = self.entries.get(key)
        more = _weight(value) - _weight(old)
        if old == value:
            return False
        if more > 0 and (self.weight + more > limits.REPLICA_WEIGHT_MAX or more > self.budget.left):
            self.is_short = True
            return False
        self.weight += more
        self.budget.left -= more
        self.digest ^= _fingerprint(key, old) ^ _fingerprint(key, value)
        if value is None:
            del self.entries[key]
        else:
            self.entries[key] = value
        return True


def _weight(value: Value | None) -> int:
    """Return the memory of a key with its value, about in dictionary entries."""
    return 0 if value is None else 1 + len(value) // 4


def _fingerprint(key: Key, value: Value | None) -> int:
    if value is None:
        return 0
    return int.from_bytes(hashlib.blake2b(key + b"\0" + value, digest_size=7).digest())
