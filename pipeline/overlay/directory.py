"""The directory: the newest record of every node, whoever told it.

A record has one author, its node, who alone makes new versions; the newest (incarnation, version) wins, so records may
arrive by any path, in any order and any number of times.  A forgotten record leaves a grave for a while, so that
gossip does not bring it back.  It knows no sessions, sends nothing and reads no clock.

What `merge` makes of a record that meets another one of the same node id:

    same name, newer                          NEWER      taken
    same name, newer life, other endpoint,
      and the older life is heard             NAMESAKE   refused: the older node keeps the name while it lives
    same name, older                          OLDER      refused
    another name                              the smaller name keeps the id: NEWER or ID_TAKEN
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
    """What became of a record."""

    NEW = enum.auto()
    NEWER = enum.auto()
    SAME = enum.auto()
    OLDER = enum.auto()
    NAMESAKE = enum.auto()
    ID_TAKEN = enum.auto()
    FULL = enum.auto()


class Directory:
    """Records of the other nodes and of this one."""

    def __init__(self, own: NodeRecord) -> None:
        self._own = own
        self._others: dict[NodeId, NodeRecord] = {}
        self._graves: dict[NodeId, tuple[Stamp, float]] = {}
        self._digest = _fingerprint(own.node_id, own.stamp)

    @property
    def own(self) -> NodeRecord:
        """This node's record."""
        return self._own

    @own.setter
    def own(self, record: NodeRecord) -> None:
        self._digest ^= _fingerprint(self._own.node_id, self._own.stamp) ^ _fingerprint(record.node_id, record.stamp)
        self._own = record
        self._remove(record.node_id)

    @property
    def digest(self) -> bytes:
        """Equal on two nodes if their directories are."""
        return self._digest.to_bytes(DIGEST_BYTES)

    @property
    def is_full(self) -> bool:
        """Whether no further node can be taken."""
        return len(self._others) >= limits.NODES_MAX

    def get(self, node: NodeId) -> NodeRecord | None:
        """The record of another node."""
        return self._others.get(node)

    def others(self) -> Iterator[NodeRecord]:
        """The records of all other nodes."""
        return iter(self._others.values())

    def merge(self, record: NodeRecord, *, is_live: bool, is_direct: bool) -> Merge:
        """Take a record of another node if it is newer than what is known.

        `is_live`: the node of that id is being heard; `is_direct`: the record came from the node itself.
        """
        assert record.node_id != self._own.node_id, "the owner judges its own record"
        held = self._others.get(record.node_id)
        if held is None:
            return self._merge_unknown(record, is_direct=is_direct)
        if held.name != record.name:
            if record.name > held.name:
                return Merge.ID_TAKEN
        elif record.stamp < held.stamp:
            return Merge.OLDER
        elif record.stamp == held.stamp:
            # The same version can differ in one thing: the address that a wildcard endpoint is seen at.
            if not is_direct or record == held:
                return Merge.SAME
        elif record.incarnation > held.incarnation and is_live and record.endpoint != held.endpoint:
            return Merge.NAMESAKE
        self._put(record)
        return Merge.NEWER

    def drop(self, node: NodeId) -> None:
        """Forget a record; it may be learnt again."""
        self._remove(node)

    def bury(self, node: NodeId, now: float) -> None:
        """Forget a record, and remember for a while that it was forgotten; of too many graves the oldest is opened."""
        record = self._others.get(node)
        if record is not None:
            self._remove(node)
            if len(self._graves) >= limits.NODES_MAX:
                self._open_grave(next(iter(self._graves)))
            self._graves[node] = record.stamp, now + limits.NODE_FORGET_S
            self._digest ^= _fingerprint(node, record.stamp)

    def expire_graves(self, now: float) -> None:
        """What is still told after so long shall be believed again."""
        for node in [node for node, (_, until) in self._graves.items() if until <= now]:
            self._open_grave(node)

    def summary(self) -> list[tuple[NodeId, int, int]]:
        """The age of every record, graves included: who has the same need not send it."""
        own = (self._own.node_id, *self._own.stamp)
        others = [(node, *record.stamp) for node, record in self._others.items()]
        return [own, *others, *((node, *stamp) for node, (stamp, _) in self._graves.items())]

    def newer_than(self, summary: list[tuple[NodeId, int, int]]) -> list[NodeRecord]:
        """Records that the sender of a summary lacks."""
        theirs = {node: (incarnation, version) for node, incarnation, version in summary}
        ours = (self._own, *self._others.values())
        return [record for record in ours if theirs.get(record.node_id, (-1, 0)) < record.stamp]

    def lacks(self, summary: list[tuple[NodeId, int, int]]) -> bool:
        """Whether the sender of a summary has records that are newer than ours."""
        ours = {node: (incarnation, version) for node, incarnation, version in self.summary()}
        return any(ours.get(node, (-1, 0)) < (incarnation, version) for node, incarnation, version in summary)

    def _merge_unknown(self, record: NodeRecord, *, is_direct: bool) -> Merge:
        grave = self._graves.get(record.node_id)
        if grave is not None and not is_direct and record.stamp <= grave[0]:
            return Merge.OLDER
        if self.is_full:
            return Merge.FULL
        self._open_grave(record.node_id)
        self._put(record)
        return Merge.NEW

    def _put(self, record: NodeRecord) -> None:
        self._remove(record.node_id)
        self._others[record.node_id] = record
        self._digest ^= _fingerprint(record.node_id, record.stamp)

    def _remove(self, node: NodeId) -> None:
        old = self._others.pop(node, None)
        if old is not None:
            self._digest ^= _fingerprint(node, old.stamp)

    def _open_grave(self, node: NodeId) -> None:
        grave = self._graves.pop(node, None)
        if grave is not None:
            self._digest ^= _fingerprint(node, grave[0])


def _fingerprint(node: NodeId, stamp: Stamp) -> int:
    data = node.to_bytes(4) + stamp[0].to_bytes(8) + stamp[1].to_bytes(8)
    return int.from_bytes(hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest())
