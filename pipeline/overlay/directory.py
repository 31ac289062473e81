"""Directory: the newest record of every known node, from whichever node it was received.

Only a node itself makes new versions of its record, and the newest (incarnation, version) wins.  So records may arrive
by any path, in any order and any number of times.  A forgotten record leaves a tombstone for NODE_FORGET_S, so that
gossip does not bring it back.  The directory knows no sessions, sends nothing and reads no clock.

Any member can report a forged record of another node.  A node's own session therefore has precedence over reports.

Result of `merge` for a record whose node id is held already; the first row that applies counts:

    received from its node itself, and the
      held one was reported by others           NEWER      taken, even if older: the report may be forged
    received from its node itself, and the
      held node is silent                       NEWER      taken, even if older: the clock may have been set back
    same name, newer incarnation, another
      endpoint, and the older node is alive     NAMESAKE   refused: the older node keeps the name while it is alive
    newer or with a smaller name, reported by
      others, and the held node updates itself  REPORTED   refused: its own session brings what is new
    same name, newer                            NEWER      taken
    same name, older                            OLDER      refused
    another name                                the smaller name keeps the id: NEWER or ID_TAKEN
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator

from pipeline import limits
from pipeline.address import NodeId
from pipeline.messages import NodeRecord, Stamp

DIGEST_BYTES = 8


class Merge(enum.Enum):
    """Result of merging a record."""

    NEW = enum.auto()
    NEWER = enum.auto()
    SAME = enum.auto()
    OLDER = enum.auto()
    NAMESAKE = enum.auto()
    REPORTED = enum.auto()
    ID_TAKEN = enum.auto()
    FULL = enum.auto()


class Directory:
    """Records of the other nodes and of this one, and tombstones."""

    def __init__(self, own: NodeRecord) -> None:
        self._own = own
        self._others: dict[NodeId, NodeRecord] = {}
        self._reported: set[NodeId] = set()
        """Nodes whose record was reported by others; those of the remaining ones came from the nodes themselves."""
        self._tombstones: dict[NodeId, tuple[Stamp, float]] = {}
        """Stamp of the removed record and expiry time, oldest first."""
        self._digest = _fingerprint(own.node_id, own.stamp)

    @property
    def own(self) -> NodeRecord:
        """Record of this node."""
        return self._own

    @own.setter
    def own(self, record: NodeRecord) -> None:
        self._digest ^= _fingerprint(self._own.node_id, self._own.stamp) ^ _fingerprint(record.node_id, record.stamp)
        self._own = record
        self._remove(record.node_id)

    @property
    def digest(self) -> bytes:
        """Digest of all records and tombstones: equal on two nodes if their directories are equal."""
        return self._digest.to_bytes(DIGEST_BYTES)

    @property
    def is_full(self) -> bool:
        """True if there is no place for another node."""
        return len(self._others) >= limits.NODES_MAX

    def get(self, node: NodeId) -> NodeRecord | None:
        """Return the record of another node, or None."""
        return self._others.get(node)

    def others(self) -> Iterator[NodeRecord]:
        """Return the records of all other nodes."""
        return iter(self._others.values())

    def merge(self, record: NodeRecord, *, is_alive: bool, is_direct: bool, updates_itself: bool = False) -> Merge:
        """Take a record of another node, as the table at the top of this file states.

        `is_alive`: messages arrive from the node of the held record; `is_direct`: the record came from its node itself;
        `updates_itself`: the held node is alive and sends each new version of its record to this node.
        """
        assert record.node_id != self._own.node_id, "a record with this node's id goes to IdConflicts"
        held = self._others.get(record.node_id)
        if held is None:
            return self._merge_unknown(record, is_direct=is_direct)
        if is_direct and (not is_alive or held.node_id in self._reported):
            verdict = Merge.SAME if record == held else Merge.NEWER
        else:
            verdict = _compare(held, record, is_alive=is_alive, is_direct=is_direct)
        if verdict is Merge.NEWER and updates_itself and not is_direct:
            return Merge.REPORTED
        if verdict is Merge.NEWER:
            self._put(record, is_direct=is_direct)
        elif verdict is Merge.SAME and is_direct:
            self._reported.discard(record.node_id)
        return verdict

    def drop(self, node: NodeId) -> None:
        """Remove a record; it may be learnt again at once."""
        self._remove(node)

    def replace_by_tombstone(self, node: NodeId, now: float) -> None:
        """Remove a record and leave a tombstone; of NODES_MAX tombstones the oldest is removed."""
        record = self._others.get(node)
        if record is not None:
            self._remove(node)
            if len(self._tombstones) >= limits.NODES_MAX:
                self._remove_tombstone(next(iter(self._tombstones)))
            self._tombstones[node] = record.stamp, now + limits.NODE_FORGET_S
            self._digest ^= _fingerprint(node, record.stamp)

    def expire_tombstones(self, now: float) -> None:
        """Remove old tombstones: a record that is still sent after that time is accepted again."""
        for node in [node for node, (_, until) in self._tombstones.items() if until <= now]:
            self._remove_tombstone(node)

    def summary(self) -> list[tuple[NodeId, int, int]]:
        """Return (node, incarnation, version) of every record and tombstone, so that peers send only what is newer."""
        own = (self._own.node_id, *self._own.stamp)
        others = [(node, *record.stamp) for node, record in self._others.items()]
        return [own, *others, *((node, *stamp) for node, (stamp, _) in self._tombstones.items())]

    def newer_than(self, summary: list[tuple[NodeId, int, int]]) -> list[NodeRecord]:
        """Return the records that the sender of a summary lacks."""
        theirs = {node: (incarnation, version) for node, incarnation, version in summary}
        ours = (self._own, *self._others.values())
        return [record for record in ours if theirs.get(record.node_id, (-1, 0)) < record.stamp]

    def lacks(self, summary: list[tuple[NodeId, int, int]]) -> bool:
        """Return whether the sender of a summary has records that are newer than ours."""
        ours = {node: (incarnation, version) for node, incarnation, version in self.summary()}
        return any(ours.get(node, (-1, 0)) < (incarnation, version) for node, incarnation, version in summary)

    def _merge_unknown(self, record: NodeRecord, *, is_direct: bool) -> Merge:
        tombstone = self._tombstones.get(record.node_id)
        if tombstone is not None and not is_direct and record.stamp <= tombstone[0]:
            return Merge.OLDER
        if self.is_full:
            return Merge.FULL
        self._remove_tombstone(record.node_id)
        self._put(record, is_direct=is_direct)
        return Merge.NEW

    def _put(self, record: NodeRecord, *, is_direct: bool) -> None:
        self._remove(record.node_id)
        self._others[record.node_id] = record
        if not is_direct:
            self._reported.add(record.node_id)
        self._digest ^= _fingerprint(record.node_id, record.stamp)

    def _remove(self, node: NodeId) -> None:
        old = self._others.pop(node, None)
        if old is not None:
            self._digest ^= _fingerprint(node, old.stamp)
            self._reported.discard(node)

    def _remove_tombstone(self, node: NodeId) -> None:
        tombstone = self._tombstones.pop(node, None)
        if tombstone is not None:
            self._digest ^= _fingerprint(node, tombstone[0])


def _compare(held: NodeRecord, record: NodeRecord, *, is_alive: bool, is_direct: bool) -> Merge:
    if record.name != held.name:
        return Merge.ID_TAKEN if record.name > held.name else Merge.NEWER
    if record.stamp == held.stamp:
        # Equal versions can differ in the endpoint: receivers replace a wildcard address by the one they see.
        return Merge.NEWER if is_direct and record != held else Merge.SAME
    if record.stamp < held.stamp:
        return Merge.OLDER
    is_restarted = record.incarnation > held.incarnation
    return Merge.NAMESAKE if is_restarted and is_alive and record.endpoint != held.endpoint else Merge.NEWER


def _fingerprint(node: NodeId, stamp: Stamp) -> int:
    data = node.to_bytes(4) + stamp[0].to_bytes(8) + stamp[1].to_bytes(8)
    return int.from_bytes(hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest())
