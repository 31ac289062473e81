"""Directory: the newest record of every known node, from whichever node it was received.

Only a node itself makes new versions of its record, and signs them; the newest (incarnation, version) wins.  So records
may arrive by any path, in any order and any number of times.  A forgotten record leaves a tombstone for NODE_FORGET_S,
so that gossip does not bring it back.  The directory knows no sessions, sends nothing and reads no clock.

Result of `merge` for a record whose node id is held already; the first row that applies counts:

    signed, and the held one is not             NEWER      taken: the node has an identity now
    unsigned, and the held one is not           ID_TAKEN   refused
    another identity, and the held node is
      alive or has the smaller public key       ID_TAKEN   refused
    another identity                            NEWER      taken
    unsigned, the held node is silent           NEWER      taken, even if older: the clock may have been set back
    newer incarnation, another endpoint, and
      the older node is alive                   CLONE      refused: the older process keeps the identity while it lives
    newer version, without keys that the held
      one has                                   SAME       kept until its node sends the keys
    newer                                       NEWER      taken
    the same, with keys or an endpoint that
      the held one lacks                        NEWER      taken
    older                                       OLDER      refused

Records of protocol 1 are unsigned.  They come from their own nodes only, and their identity is their name.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator

from pipeline import endpoint as endpoints
from pipeline import limits
from pipeline.address import Address, NodeId, is_in_prefix, is_unicast
from pipeline.messages import NodeRecord

DIGEST_BYTES = 8


class Merge(enum.Enum):
    """Result of merging a record."""

    NEW = enum.auto()
    NEWER = enum.auto()
    SAME = enum.auto()
    OLDER = enum.auto()
    CLONE = enum.auto()
    ID_TAKEN = enum.auto()
    FULL = enum.auto()


class Directory:
    """Records of the other nodes and of this one, and tombstones."""

    def __init__(self, own: NodeRecord) -> None:
        self._own = own
        self._others: dict[NodeId, NodeRecord] = {}
        self._ids_by_name: dict[str, set[NodeId]] = {}
        self._tombstones: dict[NodeId, tuple[NodeRecord, float]] = {}
        """The removed record and expiry time, oldest first."""
        self._digest = _fingerprint(own)
        self.refused_endpoints = 0
        """Records and messages with an endpoint that no peer can have."""

    @property
    def own(self) -> NodeRecord:
        """Record of this node."""
        return self._own

    @own.setter
    def own(self, record: NodeRecord) -> None:
        self._digest ^= _fingerprint(self._own) ^ _fingerprint(record)
        self._own = record
        self._remove(record.node_id)

    @property
    def digest(self) -> bytes:
        """Digest of all signed records and tombstones: equal on two nodes if their directories are equal."""
        return self._digest.to_bytes(DIGEST_BYTES)

    @property
    def is_full(self) -> bool:
        """True if there is no place for another node."""
        return len(self._others) >= limits.NODES_MAX

    def get(self, node: NodeId) -> NodeRecord | None:
        """Return the record of another node, or None."""
        return self._others.get(node)

    def named(self, name: str) -> set[NodeId]:
        """Return the ids of the other nodes that have this name."""
        return self._ids_by_name.get(name, set())

    def others(self) -> Iterator[NodeRecord]:
        """Return the records of all other nodes."""
        return iter(self._others.values())

    def admits_endpoint(self, endpoint: str, hint: str) -> bool:
        """Return whether a peer can have the endpoint; `hint` is the address from which the message came, or empty.

        A wildcard is admitted: nothing is sent there.  An address of this host's loopback is one only for nodes on this
        host.  Datagrams to an address in this node's derived prefixes would enter the overlay again.
        """
        try:
            address = endpoints.address_of(endpoint)
        except ValueError:
            return True  # a driver without endpoints, as in some tests
        if address.is_loopback:
            admitted = endpoints.is_loopback(self._own.endpoint) or endpoints.is_loopback(hint)
        else:
            admitted = address.is_unspecified or (is_unicast(address.packed) and not self._is_inner(address.packed))
        self.refused_endpoints += not admitted
        return admitted

    def _is_inner(self, address: Address) -> bool:
        if self._own.explicit_addresses:
            return any(address == own for own, _ in self._own.addresses)
        return any(is_in_prefix(address, own, prefix) for own, prefix in self._own.addresses)

    def merge(self, record: NodeRecord, *, is_alive: bool, is_direct: bool) -> Merge:
        """Take a record of another node, as the table at the top of this file states.

        `is_alive`: messages arrive from the node of the held record; `is_direct`: the record came from its node itself.
        """
        assert record.node_id != self._own.node_id, "a record with this node's id goes to IdConflicts"
        held = self._others.get(record.node_id)
        if held is None:
            return self._merge_unknown(record, is_direct=is_direct)
        verdict = _compare(held, record, is_alive=is_alive, is_direct=is_direct)
        if verdict is Merge.NEWER:
            self._put(record)
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
            self._tombstones[node] = record, now + limits.NODE_FORGET_S
            self._digest ^= _fingerprint(record)

    def expire_tombstones(self, now: float) -> None:
        """Remove old tombstones: a record that is still sent after that time is accepted again."""
        for node in [node for node, (_, until) in self._tombstones.items() if until <= now]:
            self._remove_tombstone(node)

    def summary(self) -> list[tuple[NodeId, int, int]]:
        """Return (node, incarnation, version) of every record and tombstone, so that peers send only what is newer."""
        own = (self._own.node_id, *self._own.stamp)
        others = [(node, *record.stamp) for node, record in self._others.items()]
        return [own, *others, *((node, *record.stamp) for node, (record, _) in self._tombstones.items())]

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
        if tombstone is not None and not is_direct and record.stamp <= tombstone[0].stamp:
            return Merge.OLDER
        if self.is_full:
            return Merge.FULL
        self._remove_tombstone(record.node_id)
        self._put(record)
        return Merge.NEW

    def _put(self, record: NodeRecord) -> None:
        self._remove(record.node_id)
        self._others[record.node_id] = record
        self._ids_by_name.setdefault(record.name, set()).add(record.node_id)
        self._digest ^= _fingerprint(record)

    def _remove(self, node: NodeId) -> None:
        old = self._others.pop(node, None)
        if old is not None:
            self._digest ^= _fingerprint(old)
            self._ids_by_name[old.name].discard(node)
            if not self._ids_by_name[old.name]:
                del self._ids_by_name[old.name]

    def _remove_tombstone(self, node: NodeId) -> None:
        tombstone = self._tombstones.pop(node, None)
        if tombstone is not None:
            self._digest ^= _fingerprint(tombstone[0])


def _compare(held: NodeRecord, record: NodeRecord, *, is_alive: bool, is_direct: bool) -> Merge:
    if record.is_signed is not held.is_signed:
        return Merge.NEWER if record.is_signed else Merge.ID_TAKEN
    if _identity(record) != _identity(held):
        return Merge.ID_TAKEN if is_alive or _identity(record) > _identity(held) else Merge.NEWER
    if not record.is_signed and is_direct and not is_alive:
        return Merge.SAME if record == held else Merge.NEWER
    if record.stamp == held.stamp:
        has_more = record.has_keys and not held.has_keys
        return Merge.NEWER if has_more or (is_direct and record.endpoint != held.endpoint) else Merge.SAME
    if record.stamp < held.stamp:
        return Merge.OLDER
    is_restarted = record.incarnation > held.incarnation
    if held.has_keys and not record.has_keys and not is_restarted:
        return Merge.SAME
    return Merge.CLONE if is_restarted and is_alive and record.endpoint != held.endpoint else Merge.NEWER


def _identity(record: NodeRecord) -> bytes:
    return record.public_key or record.name.encode()


def _fingerprint(record: NodeRecord) -> int:
    if not record.is_signed:
        return 0
    data = record.node_id.to_bytes(4) + record.incarnation.to_bytes(8) + record.version.to_bytes(8)
    return int.from_bytes(hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest())
