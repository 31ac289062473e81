"""The engine `mesh`: every source sends straight to every member.

Each node holds a map of what it wants (group → source filter) and publishes to, and a copy of every other node's
(`replica`).  Routes follow from the copies of those whose link is up:

    host side (*,G)   nodes whose filter takes sources that nobody listed (EXCLUDE)
    host side (S,G)   nodes whose filter takes S, for each S that some node lists; only where that is not what (*,G)
                      says, and not for an S that lives on another node: its packets never start here

Overlay side routes there are none: nothing is relayed, and delivery to this host is not the engine's business.
Link-scope groups are replicated for `members` but not routed: they are flooded to every node.

What many calls change before `poll_output` is asked travels together, and costs what has changed.
"""

# ruff: noqa: ARG002 (an engine is handed more than a mesh needs)

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from pipeline import limits
from pipeline.address import ANY_SOURCE, Address, FilterMode, NodeId, SourceFilter, is_link_scope, is_multicast
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import EngineContext, LinkState, Output, RouteChanged, RouteKey, Side, Transmit
from pipeline.engines.replica import Advert, MemoryBudget, Pull, Replica, ReplicaMessage, ReplicaSource, Update
from pipeline.forwarding.route import SharedSets

_MEMBER = b"M"
_PUBLISHER = b"P"
_MODES = (FilterMode.INCLUDE, FilterMode.EXCLUDE)
_ANY_SOURCE = b"\x01"


class ReplicaSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A copy in a checkpoint."""

    have: int
    entries: dict[bytes, bytes]


class MeshSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The engine's checkpoint."""

    version: Annotated[int, Meta(ge=0)]
    own: dict[bytes, bytes]
    copies: dict[int, ReplicaSnapshot]


_decoder = msgspec.msgpack.Decoder(ReplicaMessage)
_encode = msgspec.msgpack.Encoder().encode


class Mesh:
    """One node's mesh."""

    def __init__(self, context: EngineContext, now: float) -> None:
        context.refuse_options("mesh")
        self._node_id = context.node_id
        self._own = ReplicaSource()
        self._room = MemoryBudget()
        self._copies: dict[NodeId, Replica] = {}
        self._wants: dict[Address, dict[NodeId, SourceFilter]] = {}
        self._up: set[NodeId] = set()
        self._hosts: Mapping[Address, NodeId] = {}
        self._routes: dict[Address, dict[Address | None, frozenset[NodeId]]] = {}
        self._sourced: set[Address] = set()
        """Groups with a listed source."""
        self._sent: dict[NodeId, int] = {}
        """The version that a peer has been sent; it may have been lost."""
        self._behind: set[NodeId] = set()
        self._sets: SharedSets[NodeId] = SharedSets()
        self._dirty: dict[Address, None] = {}
        """Groups whose routes may have changed, in the order of the changes: a set's order differs from run to run."""
        self._outputs: deque[Output] = deque()
        self._sync_at = now
        self._sync_s = limits.ENGINE_SYNC_INTERVAL_S
        """To the advert after that."""

    # ---- this node

    def join(self, group: Address, sources: SourceFilter, now: float) -> None:
        """This host wants the group from these sources."""
        self._change(_MEMBER + group, _pack(sources), now)

    def leave(self, group: Address, now: float) -> None:
        """This host wants the group no longer."""
        self._change(_MEMBER + group, None, now)

    def register_source(self, group: Address, now: float) -> None:
        """A program of this host sends to the group."""
        self._change(_PUBLISHER + group, b"", now)

    def deregister_source(self, group: Address, now: float) -> None:
        """None does any more."""
        self._change(_PUBLISHER + group, None, now)

    def _change(self, key: bytes, value: bytes | None, now: float) -> None:
        if self._own.set(key, value):
            self._behind |= self._up
            self._quicken(now)

    # ---- the others

    def handle_link(self, peer: NodeId, state: LinkState, now: float, *, rtt_s: float | None = None) -> None:
        """A link came up, went down or is gone; round-trip times do not matter here."""
        if state is LinkState.UP:
            if peer not in self._up:
                self._up.add(peer)
                self._quicken(now)
                self._touch_groups_of(peer)
                self._greet(peer)
            return
        if peer in self._up:
            self._up.discard(peer)
            self._behind.discard(peer)
            self._touch_groups_of(peer)
        if state is LinkState.GONE:
            copy = self._copies.pop(peer, None)
            if copy is not None:
                copy.discard()
                for key in copy.entries:
                    self._index(peer, key, None)
            self._sent.pop(peer, None)

    def handle_addresses(self, hosts: Mapping[Address, NodeId], now: float) -> None:
        """Which node each overlay address belongs to: decides which (S,G) can start here."""
        changed = {address for address, _ in self._hosts.items() ^ hosts.items()}
        self._hosts = hosts
        for group in sorted(self._sourced):
            if any(changed & filters.sources for filters in self._wants.get(group, {}).values()):
                self._dirty[group] = None

    def handle_message(self, peer: NodeId, message: bytes, now: float) -> str | None:
        """An update, an advert or a pull of another node's mesh."""
        try:
            decoded = _decoder.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return MessageRefusal.MESH_MALFORMED
        match decoded:
            case Pull():
                self._quicken(now)
                self._send_updates(peer, decoded)
            case Advert():
                if self._copy_of(peer).differs(decoded):
                    self._pull(peer)
            case Update():
                if not all(_is_sound(key, value) for key, value in decoded.entries):
                    return MessageRefusal.MESH_MALFORMED
                self._apply(peer, decoded)
        return None

    def handle_gap(
        self, group: Address, origin: NodeId, numbers: tuple[int, ...], now: float, *, via: NodeId | None = None
    ) -> None:
        """What is lost is lost."""

    def _greet(self, peer: NodeId) -> None:
        """Who has heard from us before only needs to know whether it missed something."""
        if peer in self._sent:
            self._outputs.append(Transmit(peer, _encode(self._own.advert())))
        else:
            self._sent[peer] = 0
        self._behind.add(peer)

    def _apply(self, peer: NodeId, update: Update) -> None:
        copy = self._copy_of(peer)
        changed = copy.apply(update)
        if changed is None:
            self._pull(peer)
            return
        for key in sorted(changed):
            self._index(peer, key, copy.entries.get(key))

    def _copy_of(self, peer: NodeId) -> Replica:
        return self._copies.setdefault(peer, Replica(self._room))

    def _index(self, peer: NodeId, key: bytes, value: bytes | None) -> None:
        if key[:1] != _MEMBER:
            return
        group = key[1:]
        if value is not None:
            self._wants.setdefault(group, {})[peer] = _unpack(value, len(group))
        else:
            wanting = self._wants.get(group, {})
            wanting.pop(peer, None)
            if not wanting:
                self._wants.pop(group, None)
        if peer in self._up or value is None:
            self._dirty[group] = None

    def _touch_groups_of(self, peer: NodeId) -> None:
        copy = self._copies.get(peer)
        if copy is not None:
            self._dirty.update((key[1:], None) for key in copy.entries if key[:1] == _MEMBER)

    # ---- time

    def _quicken(self, now: float) -> None:
        """Something has changed, or was missed: adverts come quickly again."""
        self._sync_s = limits.ENGINE_SYNC_INTERVAL_S
        self._sync_at = min(self._sync_at, now + self._sync_s)

    def handle_timeout(self, now: float) -> None:
        """Tell every peer what it should have."""
        if now >= self._sync_at:
            self._sync_at = now + self._sync_s
            longest_s = max(limits.ENGINE_SYNC_INTERVAL_MAX_S, len(self._up) / limits.ENGINE_SYNCS_PER_S)
            self._sync_s = min(2 * self._sync_s, longest_s)
            advert = _encode(self._own.advert())
            self._outputs.extend(Transmit(peer, advert) for peer in sorted(self._up - self._behind))

    def poll_timeout(self) -> float | None:
        """When adverts are due."""
        return self._sync_at if self._up else None

    # ---- outputs

    def poll_output(self) -> Output | None:
        """Routes first, then messages."""
        if not self._outputs:
            self._flush()
        return self._outputs.popleft() if self._outputs else None

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for group in dirty:
            self._route(group)
        behind, self._behind = self._behind, set()
        for peer in sorted(behind):
            if self._sent.get(peer, 0) < self._own.version:
                self._send_updates(peer, Pull(self._sent.get(peer, 0), 0, anew=False))

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
        filters = {node: wanted for node, wanted in self._wants.get(group, {}).items() if node in self._up}
        listed = frozenset[Address]().union(*(wanted.sources for wanted in filters.values()))
        if listed:
            self._sourced.add(group)
        else:
            self._sourced.discard(group)
        routes: dict[Address | None, frozenset[NodeId]] = {}
        if is_link_scope(group):
            return routes
        any_source = frozenset(node for node, wanted in filters.items() if wanted.mode is FilterMode.EXCLUDE)
        if any_source:
            routes[None] = any_source = self._sets.share(any_source)
        for source in sorted(listed):
            if self._hosts.get(source, self._node_id) != self._node_id:
                continue
            accepting = frozenset(node for node, wanted in filters.items() if wanted.accepts(source))
            if accepting != any_source:
                routes[source] = self._sets.share(accepting)
        return routes

    def _pull(self, peer: NodeId) -> None:
        self._outputs.append(Transmit(peer, _encode(self._copies[peer].pull())))

    def _send_updates(self, peer: NodeId, pull: Pull) -> None:
        self._outputs.extend(Transmit(peer, _encode(update)) for update in self._own.updates(pull))
        self._sent[peer] = self._own.version

    # ---- views

    def members(self, group: Address) -> frozenset[NodeId]:
        """Nodes within reach, other than this one, that want the group."""
        return frozenset(self._wants.get(group, {})) & self._up

    def nodes(self) -> Iterable[NodeId]:
        """Whoever has a link."""
        return self._up

    def groups(self) -> Iterable[Address]:
        """Groups that this node or one within reach wants."""
        yield from (key[1:] for key, _ in self._own.items() if key[:1] == _MEMBER)
        yield from (group for group, wanting in self._wants.items() if not self._up.isdisjoint(wanting))

    # ---- a restart of the control process

    def snapshot(self, now: float) -> bytes:
        """What this node wants, and the copies of what the others want."""
        copies = {peer: ReplicaSnapshot(copy.have, copy.entries) for peer, copy in self._copies.items()}
        return _encode(MeshSnapshot(version=self._own.version, own=dict(self._own.items()), copies=copies))

    def restore(self, data: bytes, now: float) -> None:
        """Take over a snapshot; ValueError if it is none."""
        try:
            state = msgspec.msgpack.decode(data, type=MeshSnapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"no checkpoint of a mesh: {error}") from error
        self._own.restore(state.own, state.version)
        for peer, saved in state.copies.items():
            if not all(_is_sound(key, value) for key, value in saved.entries.items()):
                raise ValueError("no checkpoint of a mesh: bad entries")
            self._copies[peer] = copy = Replica.restored(saved.entries, saved.have, self._room)
            for key, value in copy.entries.items():
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
