"""A map that its owner changes and that other nodes hold copies of: versioned, sent as deltas, repaired after any loss.

Each change of the Original gets the next version, and a key keeps only its latest; so "all entries newer than v", in
the order of their versions, brings a copy that is complete up to v to the present, and every prefix of that brings
it to a version in between.  Deltas may thus be cut anywhere, doubled, lost and overtaken:

    Update(base, version)   all entries with base < version of entry ≤ version; valid for copies that have ≥ base
    Advert(version, digest) what a copy should have; sent periodically.  Who has less, or else, sends a
    Pull(have)              and is sent the difference

Deleted keys are kept as tombstones up to a bound; below `floor` some have been dropped.  A copy that has less than that
(or whose digest differs at the same version, which only a fault explains) is sent everything, `reset`: it keeps
what it has until the reset is complete and then drops what was not in it, so that forwarding is never emptied.

It knows no nodes, links or clock; keys and values are bytes.  One law: a copy is of one life of its owner; whoever
holds it throws it away when the owner has restarted.
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
    """Not 0: the first part of everything, which is complete at that version."""
    entries: list[Entry]


class Advert(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="a"):
    """What a copy should have."""

    version: Version
    digest: Annotated[int, Meta(ge=0)]


class Pull(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="p"):
    """What a copy has.  `floor`: a reset from that floor is under way."""

    have: Version
    floor: Version
    anew: bool
    """Send everything, whatever I have."""


ReplicaMessage: TypeAlias = Update | Advert | Pull


class ReplicaSource:
    """The owner's side."""

    def __init__(self) -> None:
        self.version = 0
        self.floor = 0
        self.digest = 0
        self._entries: dict[Key, tuple[int, Value | None]] = {}  # in the order of versions
        self._tombstones = 0

    def __len__(self) -> int:
        return len(self._entries) - self._tombstones

    def get(self, key: Key) -> Value | None:
        """The value of a key."""
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def items(self) -> Iterator[tuple[Key, Value]]:
        """All keys that are not deleted."""
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
        """What a copy should have."""
        return Advert(self.version, self.digest)

    def updates(self, pull: Pull) -> list[Update]:
        """What a copy lacks, in parts of at most ENGINE_MESSAGE_BYTES_MAX.

        Who has more than can have been told before a restart lies, and is sent everything: our versions do not follow.
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
        """A copy has a version that we have not made: we were restored from an older state.  Begin above it."""
        self.version = self.floor = max(self.version, version) + limits.RESTORE_STEP
        self._drop_tombstones()

    def restore(self, entries: Mapping[Key, Value], version: int) -> None:
        """Take over a snapshot.  Copies may hold changes made since: all of them are reset."""
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
        """Found from the newest backwards, so that it costs what it returns."""
        found = []
        for key in reversed(self._entries):
            version, value = self._entries[key]
            if version <= base:
                break
            found.append((key, version, value))
        found.reverse()
        return found

    def _drop_tombstones(self) -> None:
        """The older half; all of them if the floor is above."""
        dropped = [(key, version) for key, (version, value) in self._entries.items() if value is None]
        if self.floor < self.version:
            dropped = dropped[: len(dropped) // 2]
            self.floor = max(self.floor, dropped[-1][1])
        for key, _ in dropped:
            del self._entries[key]
        self._tombstones -= len(dropped)


class MemoryBudget:
    """What the copies of all other nodes may weigh together, so that no number of liars fills this node's memory."""

    def __init__(self) -> None:
        self.left = limits.REPLICAS_WEIGHT_MAX


@dataclass(slots=True)
class Replica:
    """Another node's side.  `apply` returns the keys that changed; what else there is to say is asked of `pull`."""

    room: MemoryBudget = field(default_factory=MemoryBudget)
    weight: int = 0
    have: int = 0
    digest: int = 0
    floor: int = 0
    entries: dict[Key, Value] = field(default_factory=dict)
    is_faulty: bool = False
    """To be sent anew."""
    is_short: bool = False
    """Something had no room: the digest says nothing."""
    _unconfirmed: set[Key] = field(default_factory=set)
    _reset_until: int = 0

    @classmethod
    def restored(cls, entries: dict[Key, Value], have: int, room: MemoryBudget) -> Replica:
        """A copy out of a checkpoint."""
        copy = cls(room=room, have=have)
        for key, value in entries.items():
            copy._set(key, value)
        if not have:
            copy.is_faulty = bool(entries)
        return copy

    def apply(self, update: Update) -> set[Key] | None:
        """Take a delta.  None if something before it is missing: send `pull()`."""
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
        """Whether something is missing: send `pull()`.

        An equal version with other content starts the copy anew, and so does one that its owner cannot have told.
        """
        is_other = self.have == advert.version and self.digest != advert.digest and not self.is_short
        if is_other or self.have > advert.version + limits.RESTORE_STEP:
            self.start_anew()
        return self.have != advert.version

    def start_anew(self) -> None:
        """Ask for everything; what is here stays until that is complete."""
        self.have = 0
        self.is_faulty = True
        self._reset_until = 0

    def discard(self) -> None:
        """Its owner is gone: others may have the room."""
        self.room.left += self.weight

    def pull(self) -> Pull:
        """What to ask for."""
        return Pull(self.have, self.floor if self._reset_until else 0, self.is_faulty)

    def _set(self, key: Key, value: Value | None) -> bool:
        self._unconfirmed.discard(key)
        old = self.entries.get(key)
        more = _weight(value) - _weight(old)
        if old == value:
            return False
        if more > 0 and (self.weight + more > limits.REPLICA_WEIGHT_MAX or more > self.room.left):
            self.is_short = True
            return False
        self.weight += more
        self.room.left -= more
        self.digest ^= _fingerprint(key, old) ^ _fingerprint(key, value)
        if value is None:
            del self.entries[key]
        else:
            self.entries[key] = value
        return True


def _weight(value: Value | None) -> int:
    """Of a key with its value, about in the number of dictionary entries that it costs."""
    return 0 if value is None else 1 + len(value) // 4


def _fingerprint(key: Key, value: Value | None) -> int:
    if value is None:
        return 0
    return int.from_bytes(hashlib.blake2b(key + b"\0" + value, digest_size=7).digest())
