"""The engine `mesh`: every source sends directly to every member.

Each node has a map of the groups that it joins (group → source filter) and sends to, and holds a replica of every other
node's map (`replica`).  Routes follow from the replicas of nodes whose link is up:

    host side (*,G)   nodes whose filter accepts sources that no node lists (EXCLUDE)
    host side (S,G)   nodes whose filter accepts S, for each S that a node lists; only where they differ from those of
                      (*,G), and not for an S on another node, whose packets never start here

There are no routes of the overlay side: nothing is relayed, and the forwarding table adds delivery to this host.
Link-scope groups are replicated for `members`, but not routed: they are flooded to every node.

Changes of many calls before `poll_output` are sent in one message, and cost only what has changed.
"""

# ruff: noqa: ARG002 (the engine API has more arguments than a mesh needs)

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, field

from pipeline import limits
from pipeline.address import ANY_SOURCE, Address, FilterMode, NodeId, SourceFilter, is_link_scope, is_multicast
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import Engine, EngineContext, LinkState, Output, RouteChanged, RouteKey, Side, Transmit
from pipeline.engines.replica import Advert, MemoryBudget, Pull, Replica, ReplicaMessage, ReplicaSource, Update
from pipeline.forwarding.route import SharedSets

_MEMBER = b"M"
_PUBLISHER = b"P"
_MODES = (FilterMode.INCLUDE, FilterMode.EXCLUDE)
_ANY_SOURCE = b"\x01"


class ReplicaSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A replica in a checkpoint."""

    have: int
    entries: dict[bytes, bytes]


class MeshSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The engine's checkpoint."""

    version: Annotated[int, Meta(ge=0)]
    own: dict[bytes, bytes]
    replicas: dict[int, ReplicaSnapshot] = field(name="copies")


_decoder = msgspec.msgpack.Decoder(ReplicaMessage)
_encode = msgspec.msgpack.Encoder().encode


class Mesh(Engine):
    """Mesh engine of one node."""

    def __init__(self, context: EngineContext, now: float) -> None:
        context.refuse_options("mesh")
        self._node_id = context.node_id
        self._own = ReplicaSource()
        self._budget = MemoryBudget()
        self._replicas: dict[NodeId, Replica] = {}
        self._filters: dict[Address, dict[NodeId, SourceFilter]] = {}
        self._up: set[NodeId] = set()
        self._owners: Mapping[Address, NodeId] = {}
        self._routes: dict[Address, dict[Address | None, frozenset[NodeId]]] = {}
        self._listed_groups: set[Address] = set()
        """Groups of which a node lists a source."""
        self._sent_versions: dict[NodeId, int] = {}
        """Version of our map that was last sent to each peer; the message may have been lost."""
        self._behind: set[NodeId] = set()
        """Peers to which a newer version is to be sent."""
        self._shared_sets: SharedSets[NodeId] = SharedSets()
        self._dirty_groups: dict[Address, None] = {}
        """Groups whose routes may have changed.  A dict keeps the order, which differs from run to run in a set."""
        self._outputs: deque[Output] = deque()
        self._sync_at = now
        self._sync_s = limits.ENGINE_SYNC_INTERVAL_S
        """Interval to the advert after that."""

    # ---- this node

    def join(self, group: Address, sources: SourceFilter, now: float) -> None:
        """Put the group with its source filter into this node's map."""
        self._change(_MEMBER + group, _pack(sources), now)

    def leave(self, group: Address, now: float) -> None:
        """Remove the group from this node's map."""
        self._change(_MEMBER + group, None, now)

    def register_source(self, group: Address, now: float) -> None:
        """Note in this node's map that it sends to the group."""
        self._change(_PUBLISHER + group, b"", now)

    def deregister_source(self, group: Address, now: float) -> None:
        """Note in this node's map that it no longer sends to the group."""
        self._change(_PUBLISHER + group, None, now)

    def _change(self, key: bytes, value: bytes | None, now: float) -> None:
        if self._own.set(key, value):
            self._behind |= self._up
            self._hasten_adverts(now)

    # ---- other nodes

    def handle_link(self, peer: NodeId, state: LinkState, now: float, *, rtt_s: float | None = None) -> None:
        """Route again the groups of a node whose link came up, went down or is gone.  `rtt_s` is not used."""
        if state is LinkState.UP:
            if peer not in self._up:
                self._up.add(peer)
                self._hasten_adverts(now)
                self._mark_groups_of(peer)
                self._begin_sync(peer)
            return
        if peer in self._up:
            self._up.discard(peer)
            self._behind.discard(peer)
            self._mark_groups_of(peer)
        if state is LinkState.GONE:
            replica = self._replicas.pop(peer, None)
            if replica is not None:
                replica.discard()
                for key in replica.entries:
                    self._index(peer, key, None)
            self._sent_versions.pop(peer, None)

    def handle_addresses(self, owners: Mapping[Address, NodeId], now: float) -> None:
        """Route again the groups that list an address with another owner, which may be a source on this host."""
        changed = {address for address, _ in self._owners.items() ^ owners.items()}
        self._owners = owners
        for group in sorted(self._listed_groups):
            if any(changed & filters.sources for filters in self._filters.get(group, {}).values()):
                self._dirty_groups[group] = None

    def handle_message(self, peer: NodeId, message: bytes, now: float) -> str | None:
        """Take an update, an advert or a pull of another node."""
        try:
            decoded = _decoder.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return MessageRefusal.MESH_MALFORMED
        match decoded:
            case Pull():
                self._hasten_adverts(now)
                self._send_updates(peer, decoded)
            case Advert():
                if self._replica_of(peer).differs(decoded):
                    self._pull(peer)
            case Update():
                if not all(_is_sound(key, value) for key, value in decoded.entries):
                    return MessageRefusal.MESH_MALFORMED
                self._apply(peer, decoded)
        return None

    def _begin_sync(self, peer: NodeId) -> None:
        """Send our map to a new peer; for one that has received it before, an advert shows whether it lacks changes."""
        if peer in self._sent_versions:
            self._outputs.append(Transmit(peer, _encode(self._own.advert())))
        else:
            self._sent_versions[peer] = 0
        self._behind.add(peer)

    def _apply(self, peer: NodeId, update: Update) -> None:
        replica = self._replica_of(peer)
        changed = replica.apply(update)
        if changed is None:
            self._pull(peer)
            return
        for key in sorted(changed):
            self._index(peer, key, replica.entries.get(key))

    def _replica_of(self, peer: NodeId) -> Replica:
        return self._replicas.setdefault(peer, Replica(self._budget))

    def _index(self, peer: NodeId, key: bytes, value: bytes | None) -> None:
        """Note a change of a peer's map among the source filters of its group; a `value` of None removes the peer."""
        if key[:1] != _MEMBER:
            return
        group = key[1:]
        if value is not None:
            self._filters.setdefault(group, {})[peer] = _unpack(value, len(group))
        else:
            filters = self._filters.get(group, {})
            filters.pop(peer, None)
            if not filters:
                self._filters.pop(group, None)
        if peer in self._up or value is None:
            self._dirty_groups[group] = None

    def _mark_groups_of(self, peer: NodeId) -> None:
        replica = self._replicas.get(peer)
        if replica is not None:
            self._dirty_groups.update((key[1:], None) for key in replica.entries if key[:1] == _MEMBER)

    # ---- time

    def _hasten_adverts(self, now: float) -> None:
        """Return to the shortest interval of adverts, as something has changed or was lost."""
        self._sync_s = limits.ENGINE_SYNC_INTERVAL_S
        self._sync_at = min(self._sync_at, now + self._sync_s)

    def handle_timeout(self, now: float) -> None:
        """Send an advert to every peer that is not sent an update anyway."""
        if now >= self._sync_at:
            self._sync_at = now + self._sync_s
            longest_s = max(limits.ENGINE_SYNC_INTERVAL_MAX_S, len(self._up) / limits.ENGINE_SYNCS_PER_S)
            self._sync_s = min(2 * self._sync_s, longest_s)
            advert = _encode(self._own.advert())
            self._outputs.extend(Transmit(peer, advert) for peer in sorted(self._up - self._behind))

    def poll_timeout(self) -> float | None:
        """Return the time at which adverts are due."""
        return self._sync_at if self._up else None

    # ---- outputs

    def poll_output(self) -> Output | None:
        """Return the next output: routes first, then messages."""
        if not self._outputs:
            self._flush()
        return self._outputs.popleft() if self._outputs else None

    def _flush(self) -> None:
        dirty, self._dirty_groups = self._dirty_groups, {}
        for group in dirty:
            self._route(group)
        behind, self._behind = self._behind, set()
        for peer in sorted(behind):
            if self._sent_versions.get(peer, 0) < self._own.version:
                self._send_updates(peer, Pull(self._sent_versions.get(peer, 0), 0, anew=False))

    def _route(self, group: Address) -> None:
        new = self._routes_of(group)
        old = self._routes.get(group, {})
        for source, next_hops in new.items():
            if old.get(source) != next_hops:
                why = "mesh: members" if source is None else "mesh: source filters"
                self._outputs.append(RouteChanged(RouteKey(Side.HOST, group, source), next_hops, why))
        for source in old:
            if source not in new:
                self._outputs.append(RouteChanged(RouteKey(Side.HOST, group, source), None, "mesh: no member"))
        if new:
            self._routes[group] = new
        else:
            self._routes.pop(group, None)

    def _routes_of(self, group: Address) -> dict[Address | None, frozenset[NodeId]]:
        filters = {node: each for node, each in self._filters.get(group, {}).items() if node in self._up}
        listed = frozenset[Address]().union(*(each.sources for each in filters.values()))
        if listed:
            self._listed_groups.add(group)
        else:
            self._listed_groups.discard(group)
        routes: dict[Address | None, frozenset[NodeId]] = {}
        if is_link_scope(group):
            return routes
        any_source = frozenset(node for node, each in filters.items() if each.mode is FilterMode.EXCLUDE)
        if any_source:
            routes[None] = any_source = self._shared_sets.share(any_source)
        for source in sorted(listed):
            if self._owners.get(source, self._node_id) != self._node_id:
                continue
            accepting = frozenset(node for node, each in filters.items() if each.accepts(source))
            if accepting != any_source:
                routes[source] = self._shared_sets.share(accepting)
        return routes

    def _pull(self, peer: NodeId) -> None:
        self._outputs.append(Transmit(peer, _encode(self._replicas[peer].pull())))

    def _send_updates(self, peer: NodeId, pull: Pull) -> None:
        self._outputs.extend(Transmit(peer, _encode(update)) for update in self._own.updates(pull))
        self._sent_versions[peer] = self._own.version

    # ---- views

    def members(self, group: Address) -> frozenset[NodeId]:
        """Return the other nodes with a link up that have joined the group."""
        filters = self._filters.get(group)
        return frozenset(filters) & self._up if filters else frozenset()

    def groups(self) -> Iterable[Address]:
        """Return the groups that this node or one with a link up has joined."""
        yield from (key[1:] for key, _ in self._own.items() if key[:1] == _MEMBER)
        yield from (group for group, filters in self._filters.items() if not self._up.isdisjoint(filters))

    # ---- a restart of the control process

    def snapshot(self, now: float) -> bytes:
        """Return this node's map and the replicas of the other nodes' maps."""
        replicas = {peer: ReplicaSnapshot(each.have, each.entries) for peer, each in self._replicas.items()}
        return _encode(MeshSnapshot(version=self._own.version, own=dict(self._own.items()), replicas=replicas))

    def restore(self, data: bytes, now: float) -> None:
        """Take over a snapshot; ValueError if it is none."""
        try:
            state = msgspec.msgpack.decode(data, type=MeshSnapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"no checkpoint of a mesh: {error}") from error
        self._own.restore(state.own, state.version)
        for peer, saved in state.replicas.items():
            if not all(_is_sound(key, value) for key, value in saved.entries.items()):
                raise ValueError("no checkpoint of a mesh: bad entries")
            self._replicas[peer] = replica = Replica.restored(saved.entries, saved.have, self._budget)
            for key, value in replica.entries.items():
                self._index(peer, key, value)


def _pack(sources: SourceFilter) -> bytes:
    return bytes([_MODES.index(sources.mode)]) + b"".join(sorted(sources.sources))


def _unpack(value: bytes, width: int) -> SourceFilter:
    if value == _ANY_SOURCE:
        return ANY_SOURCE
    sources = frozenset(value[at : at + width] for at in range(1, len(value), width))
    return SourceFilter(_MODES[value[0]], sources)


def _is_sound(key: bytes, value: bytes | None) -> bool:
    kind, group = key[:1], key[1:]
    if kind not in (_MEMBER, _PUBLISHER) or len(group) not in (4, 16) or not is_multicast(group):
        return False
    if kind == _PUBLISHER or value is None:
        return not value
    sources, rest = divmod(len(value) - 1, len(group))
    return sources >= 0 and not rest and value[0] < len(_MODES) and sources <= limits.SOURCES_PER_GROUP_MAX
