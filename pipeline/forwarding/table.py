"""The forwarding table as it should be: engine routes, local members, addresses and links in; entry changes out.

    host side      (S,G), (*,G)   the engine's routes, with the links that are up in place of the nodes
                   unicast        each overlay address, to the node that owns it while its link is up
                   flood          link-scope groups, to every node with a link that is up; one entry for each family
    overlay side   (…,G)          the engine's routes, and to this host if it has members; (*,G) for each group it has
                   unicast        this node's own addresses
                   flood          to this host

Link-scope groups are always flooded, and routes of an engine for them are ignored.  Inputs mark keys.  `poll_change`
computes the entry of each marked key once, so that several changes between two drains are one write.  Entries are set
before others are deleted, so that a source always has either its old or its new route.

After a restart of control the entries of the previous process are still in shared memory, and the stages forward by
them.  `adopt` must be called with them before any input.  Inputs replace them one by one; `expire_adopted` deletes the
others.

This module knows neither shared memory nor a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from pipeline import limits
from pipeline.address import Address, NodeId, is_link_scope
from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, Kind, RouteChanged, SharedSets, Side

FLOOD_FAMILIES = (bytes(4), bytes(16))
"""Groups of the flood entries: the unspecified address of each family."""


class _Route(NamedTuple):
    """The engine's route for one key."""

    next_hops: frozenset[NodeId]
    why: str
    stripes: int
    repairs: bool


class ForwardingTable:
    """The entries that the forwarding table should hold, and those that it holds."""

    def __init__(self, *, has_floods: bool = True) -> None:
        """Make an empty table.  Without floods link-scope groups are dropped, as for overlays of thousands of nodes."""
        self._has_floods = has_floods
        self._routes: dict[FibKey, _Route] = {}
        self._routes_by_peer: dict[NodeId, dict[FibKey, None]] = {}
        self._overlay_keys: dict[Address, dict[FibKey, None]] = {}
        """Overlay-side keys with a route, by group."""
        self._local: set[Address] = set()
        self._links: dict[NodeId, int] = {}
        self._up: dict[NodeId, None] = {}
        self._owners: dict[Address, NodeId] = {}
        self._addresses_by_node: dict[NodeId, dict[Address, None]] = {}
        self._own: NodeId | None = None
        self._streams = Streams()
        self._sets: SharedSets[int] = SharedSets()
        self._written: dict[FibKey, FibEntry | None] = {}
        """Content of shared memory; None for an adopted entry, of which only the key is known."""
        self._dirty: dict[FibKey, None] = {}
        self._deletes: dict[FibKey, None] = {}
        self._mark_floods()

    # ---- restart of control

    def adopt(self, existing: Iterable[tuple[FibKey, int]]) -> None:
        """Take over the entries in shared memory: their keys and stream numbers, which the groups keep."""
        for key, stream in existing:
            self._written[key] = None
            if stream:
                self._streams.adopt(key.group, stream)

    def expire_adopted(self) -> None:
        """Delete the adopted entries that no input has replaced."""
        for key, entry in self._written.items():
            if entry is None:
                self._dirty[key] = None
                self._deletes[key] = None
        self._streams.free_unused()

    # ---- inputs

    def set_route(self, route: RouteChanged) -> None:
        """Set or end a route of the engine."""
        if is_link_scope(route.key.group):
            return
        name = route.key
        key = FibKey(name.side, Kind.GROUP, name.group, name.source, name.origin, name.via)
        old = self._routes.get(key)
        sets = () if route.next_hops is None else (route.next_hops, *route.stripes)
        assert len(sets) <= limits.STRIPES_MAX, "an engine may route a stream over STRIPES_MAX trees"
        for stripe in range(max(len(sets), old.stripes if old is not None else 1)):
            new = _Route(sets[stripe], route.why, len(sets), route.repairs) if stripe < len(sets) else None
            self._set_route(key if stripe == 0 else FibKey(*key[:-1], stripe), new)

    def _set_route(self, key: FibKey, route: _Route | None) -> None:
        old = self._routes.get(key)
        if old == route:
            return
        before = old.next_hops if old is not None else frozenset()
        after = route.next_hops if route is not None else frozenset()
        for peer in before - after:
            self._routes_by_peer[peer].pop(key, None)
        for peer in after - before:
            self._routes_by_peer.setdefault(peer, {})[key] = None
        if route is not None:
            self._routes[key] = route
        else:
            del self._routes[key]
        if key.side is Side.OVERLAY and (old is None or route is None):
            self._index_overlay(key)
        self._dirty[key] = None

    def set_local(self, group: Address, is_member: bool) -> None:  # noqa: FBT001 (a value, as in every setter here)
        """Set whether this host has members of the group."""
        if is_link_scope(group):
            return
        if is_member:
            self._local.add(group)
        else:
            self._local.discard(group)
        default = FibKey(Side.OVERLAY, Kind.GROUP, group)
        self._index_overlay(default)
        self._dirty[default] = None
        self._dirty.update(self._overlay_keys.get(group, {}))

    def set_link(self, peer: NodeId, link: int) -> None:
        """Set the link index of a node."""
        if self._links.get(peer) != link:
            self._links[peer] = link
            self._mark_peer(peer)

    def set_up(self, peer: NodeId, *, up: bool) -> None:
        """Set whether the link to a node is up."""
        assert peer in self._links, "a link gets its index before it is up"
        if up:
            self._up[peer] = None
        else:
            self._up.pop(peer, None)
        self._mark_peer(peer)

    def remove_link(self, peer: NodeId) -> None:
        """Remove a node's link; its index may be given to another node."""
        self._up.pop(peer, None)
        self._links.pop(peer, None)
        self._mark_peer(peer)

    def _mark_peer(self, peer: NodeId) -> None:
        self._dirty.update(self._routes_by_peer.get(peer, {}))
        for address in self._addresses_by_node.get(peer, {}):
            self._dirty[FibKey(Side.HOST, Kind.UNICAST, address)] = None
        self._mark_floods()

    def set_address_owners(self, owners: Mapping[Address, NodeId], *, own: NodeId) -> None:
        """Set the owner of each reachable overlay address; `own` is this node."""
        changed = {address for address, _ in self._owners.items() ^ owners.items()}
        if own != self._own:
            changed.update(owners)
        for address in sorted(changed):
            for side in Side:
                self._dirty[FibKey(side, Kind.UNICAST, address)] = None
        self._owners, self._own = dict(owners), own
        self._addresses_by_node = {}
        for address, node in self._owners.items():
            self._addresses_by_node.setdefault(node, {})[address] = None

    # ---- outputs

    def poll_change(self) -> FibEntry | FibDelete | None:
        """Return the next change; None when shared memory holds the entries that it should."""
        while self._dirty:
            key, _ = self._dirty.popitem()  # the last key first: stripe 0, which has the number of stripes, after them
            entry = self._target(key)
            if entry is None:
                if self._written.get(key) is not None:
                    self._deletes[key] = None
                continue
            self._deletes.pop(key, None)
            if entry != self._written.get(key):
                self._written[key] = entry
                return entry
        if self._deletes:
            key, _ = self._deletes.popitem()
            self._written.pop(key, None)
            return FibDelete(key)
        return None

    # ---- views

    def entries(self) -> Iterator[FibEntry]:
        """Return the written entries, for `show routes`."""
        return (entry for entry in self._written.values() if entry is not None)

    def __len__(self) -> int:
        return len(self._written)

    def stream_of(self, group: Address) -> int | None:
        """Return the number by which the stages count the group's streams, or None."""
        return self._streams.number(group)

    def group_of(self, stream: int) -> Address | None:
        """Return the group of a stream number, or None if no group has it."""
        return self._streams.group(stream)

    # ---- target entry of a key

    def _target(self, key: FibKey) -> FibEntry | None:
        match key.kind:
            case Kind.GROUP:
                return self._target_group(key)
            case Kind.UNICAST:
                return self._target_unicast(key)
            case Kind.FLOOD:
                is_host = key.side is Side.HOST
                links = frozenset(self._links[peer] for peer in self._up) if is_host else frozenset()
                return FibEntry(key, links, local=not is_host, stream=0, why="link scope")
            case Kind.SOURCE:
                return None  # the policy, not a route: control/publish.py writes these entries

    def _target_group(self, key: FibKey) -> FibEntry | None:
        route = self._routes.get(key)
        is_local = key.side is Side.OVERLAY and key.group in self._local
        if route is None:
            is_default = (key.source, key.origin, key.via, key.stripe) == (None, None, None, 0)
            if is_local and is_default:
                return FibEntry(key, frozenset(), local=True, stream=0, why="members on this host")
            self._streams.release(key)
            return None
        links = self._sets.share(frozenset(self._links[node] for node in route.next_hops if node in self._up))
        stream = 0
        if key.side is Side.HOST or route.repairs or route.stripes > 1:
            stream = self._streams.acquire(key)
        else:
            self._streams.release(key)
        stripes = route.stripes if key.stripe == 0 else 1
        repairs = route.repairs and stream != 0
        return FibEntry(key, links, local=is_local, stream=stream, why=route.why, stripes=stripes, repairs=repairs)

    def _target_unicast(self, key: FibKey) -> FibEntry | None:
        node = self._owners.get(key.group)
        if key.side is Side.OVERLAY:
            if node is None or node != self._own:
                return None
            return FibEntry(key, frozenset(), local=True, stream=0, why="own address")
        if node is None or node not in self._up:
            return None
        return FibEntry(key, frozenset({self._links[node]}), local=False, stream=0, why="address of a node")

    def _index_overlay(self, key: FibKey) -> None:
        keys = self._overlay_keys.setdefault(key.group, {})
        if key in self._routes:
            keys[key] = None
        else:
            keys.pop(key, None)
        if not keys:
            del self._overlay_keys[key.group]

    def _mark_floods(self) -> None:
        if self._has_floods:
            self._dirty.update((FibKey(side, Kind.FLOOD, family), None) for side in Side for family in FLOOD_FAMILIES)


class Streams:
    """Stream numbers 1 … STREAMS_MAX, one for each group that needs it, or the shared number 0 when all are in use.

    A number that becomes free goes to the end of the queue.  Receivers have long forgotten its old stream when it is
    used again.
    """

    def __init__(self) -> None:
        self._numbers: dict[Address, int] = {}
        self._groups: dict[int, Address] = {}
        """By number."""
        self._users: dict[Address, int] = {}
        """Keys that use the number of each group."""
        self._keys: set[FibKey] = set()
        self._first_unused = 1
        """Numbers from this one on have never been assigned, except adopted ones."""
        self._freed: deque[int] = deque()

    def acquire(self, key: FibKey) -> int:
        """Return the number of the key's group, and count the key as its user."""
        if key not in self._keys:
            self._keys.add(key)
            self._users[key.group] = self._users.get(key.group, 0) + 1
        if key.group not in self._numbers:
            number = self._next_free()
            if number is not None:
                self._assign(key.group, number)
        return self._numbers.get(key.group, 0)

    def release(self, key: FibKey) -> None:
        """End the use of a number by this key; the last user frees the number."""
        if key not in self._keys:
            return
        self._keys.discard(key)
        self._users[key.group] -= 1
        if not self._users[key.group]:
            del self._users[key.group]
            self._free(key.group)

    def number(self, group: Address) -> int | None:
        """Return the number of a group, or None."""
        return self._numbers.get(group)

    def group(self, number: int) -> Address | None:
        """Return the group of a number, or None."""
        return self._groups.get(number)

    def adopt(self, group: Address, number: int) -> None:
        """Take over a number from before a restart; of two groups with the same number the first keeps it."""
        if group not in self._numbers and number not in self._groups and 0 < number <= limits.STREAMS_MAX:
            self._assign(group, number)

    def free_unused(self) -> None:
        """Free the adopted numbers that no key uses."""
        for group in [group for group in self._numbers if group not in self._users]:
            self._free(group)

    def _next_free(self) -> int | None:
        while self._first_unused <= limits.STREAMS_MAX:
            self._first_unused += 1
            if self._first_unused - 1 not in self._groups:
                return self._first_unused - 1
        return self._freed.popleft() if self._freed else None

    def _assign(self, group: Address, number: int) -> None:
        self._numbers[group] = number
        self._groups[number] = group

    def _free(self, group: Address) -> None:
        number = self._numbers.pop(group, None)
        if number is not None:
            del self._groups[number]
            if number < self._first_unused:
                self._freed.append(number)
