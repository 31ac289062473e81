"""The wanted forwarding table: engine routes, local members, hosts and links in; differences of entries out.

    host side      (S,G), (*,G)   as the engine says, nodes translated to the links that are up
                   unicast        each overlay address, to the node that owns it while that is up
                   flood          link-scope groups, to every node that is up; one entry for each family
    overlay side   (…,G)          as the engine says, and to this host if it has members; (*,G) for each group it has
                   unicast        this node's own addresses
                   flood          to this host

Link-scope groups are flooded whatever an engine says of them.  Inputs mark keys; `poll_change` looks at each marked key
once, so what changes twice between two drains is written once.  Entries are set before others are deleted, so that a
source never falls between an old and a new route.

After a restart of control the entries of its predecessor stand in shared memory and go on forwarding: `adopt` them
before any input.  Each is replaced when it is wanted again; the rest goes with `expire_adopted`.

It knows no shared memory and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from pipeline import limits
from pipeline.address import Address, NodeId, is_link_scope
from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, Kind, RouteChanged, SharedSets, Side

FLOOD_FAMILIES = (bytes(4), bytes(16))
"""The group of a flood entry: the unspecified address of its family."""


class _Route(NamedTuple):
    """What the engine says of one key."""

    next_hops: frozenset[NodeId]
    why: str
    stripes: int
    repairs: bool


class ForwardingTable:
    """What the forwarding table should hold, and what it does hold."""

    def __init__(self, *, has_floods: bool = True) -> None:
        """Without floods link-scope groups go nowhere: an overlay of thousands is not one link."""
        self._has_floods = has_floods
        self._routes: dict[FibKey, _Route] = {}
        self._routes_by_peer: dict[NodeId, dict[FibKey, None]] = {}
        self._overlay_keys: dict[Address, dict[FibKey, None]] = {}
        self._local: set[Address] = set()
        self._links: dict[NodeId, int] = {}
        self._up: dict[NodeId, None] = {}
        self._hosts: dict[Address, NodeId] = {}
        self._addresses_by_node: dict[NodeId, dict[Address, None]] = {}
        self._own: NodeId | None = None
        self._streams = Streams()
        self._sets: SharedSets[int] = SharedSets()
        self._standing: dict[FibKey, FibEntry | None] = {}
        """What shared memory holds; None: adopted, and unknown in detail."""
        self._dirty: dict[FibKey, None] = {}
        self._deletes: dict[FibKey, None] = {}
        self._touch_floods()

    # ---- a restart of control

    def adopt(self, existing: Iterable[tuple[FibKey, int]]) -> None:
        """Take over what stands in shared memory: keys with their stream numbers, which groups keep."""
        for key, stream in existing:
            self._standing[key] = None
            if stream:
                self._streams.adopt(key.group, stream)

    def expire_adopted(self) -> None:
        """What has not been wanted again by now is to be deleted."""
        for key, entry in self._standing.items():
            if entry is None:
                self._dirty[key] = None
                self._deletes[key] = None
        self._streams.release_unused()

    # ---- inputs

    def set_route(self, route: RouteChanged) -> None:
        """The engine routes a group otherwise."""
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
        """This host has members of the group, or none any more."""
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
        """A node is known; its link has that index."""
        if self._links.get(peer) != link:
            self._links[peer] = link
            self._touch_peer(peer)

    def set_up(self, peer: NodeId, *, up: bool) -> None:
        """The link to a known node is up, or down."""
        assert peer in self._links, "a link has an index before it is up"
        if up:
            self._up[peer] = None
        else:
            self._up.pop(peer, None)
        self._touch_peer(peer)

    def remove_link(self, peer: NodeId) -> None:
        """A node is forgotten; its index may become another's."""
        self._up.pop(peer, None)
        self._links.pop(peer, None)
        self._touch_peer(peer)

    def _touch_peer(self, peer: NodeId) -> None:
        self._dirty.update(self._routes_by_peer.get(peer, {}))
        for address in self._addresses_by_node.get(peer, {}):
            self._dirty[FibKey(Side.HOST, Kind.UNICAST, address)] = None
        self._touch_floods()

    def set_address_owners(self, hosts: Mapping[Address, NodeId], *, own: NodeId) -> None:
        """Which node each overlay address within reach belongs to, and who of them is this node."""
        changed = {address for address, _ in self._hosts.items() ^ hosts.items()}
        if own != self._own:
            changed.update(hosts)
        for address in sorted(changed):
            for side in Side:
                self._dirty[FibKey(side, Kind.UNICAST, address)] = None
        self._hosts, self._own = dict(hosts), own
        self._addresses_by_node = {}
        for address, node in self._hosts.items():
            self._addresses_by_node.setdefault(node, {})[address] = None

    # ---- outputs

    def poll_change(self) -> FibEntry | FibDelete | None:
        """The next difference; None when shared memory holds what is wanted."""
        while self._dirty:
            key, _ = self._dirty.popitem()
            entry = self._wanted(key)
            if entry is None:
                if self._standing.get(key) is not None:
                    self._deletes[key] = None
                continue
            self._deletes.pop(key, None)
            if entry != self._standing.get(key):
                self._standing[key] = entry
                return entry
        if self._deletes:
            key, _ = self._deletes.popitem()
            self._standing.pop(key, None)
            return FibDelete(key)
        return None

    # ---- views

    def entries(self) -> Iterator[FibEntry]:
        """The entries that have been put out, for `show routes`."""
        return (entry for entry in self._standing.values() if entry is not None)

    def __len__(self) -> int:
        return len(self._standing)

    def stream_of(self, group: Address) -> int | None:
        """The number that the stages know the group's streams by; None: they know none."""
        return self._streams.number(group)

    def group_of(self, stream: int) -> Address | None:
        """The group of a stream number; None: it is nobody's any more."""
        return self._streams.group(stream)

    # ---- what is wanted of a key

    def _wanted(self, key: FibKey) -> FibEntry | None:
        match key.kind:
            case Kind.GROUP:
                return self._wanted_group(key)
            case Kind.UNICAST:
                return self._wanted_unicast(key)
            case Kind.FLOOD:
                is_host = key.side is Side.HOST
                links = frozenset(self._links[peer] for peer in self._up) if is_host else frozenset()
                return FibEntry(key, links, local=not is_host, stream=0, why="link scope")
            case Kind.SOURCE:
                return None  # no route: whoever knows the records writes these

    def _wanted_group(self, key: FibKey) -> FibEntry | None:
        route = self._routes.get(key)
        is_local = key.side is Side.OVERLAY and key.group in self._local
        if route is None:
            is_default = (key.source, key.origin, key.via, key.stripe) == (None, None, None, 0)
            if is_local and is_default:
                return FibEntry(key, frozenset(), local=True, stream=0, why="members on this host")
            self._streams.drop(key)
            return None
        links = self._sets.share(frozenset(self._links[node] for node in route.next_hops if node in self._up))
        stream = 0
        if key.side is Side.HOST or route.repairs or route.stripes > 1:
            stream = self._streams.take(key)
        else:
            self._streams.drop(key)
        stripes = route.stripes if key.stripe == 0 else 1
        repairs = route.repairs and stream != 0
        return FibEntry(key, links, local=is_local, stream=stream, why=route.why, stripes=stripes, repairs=repairs)

    def _wanted_unicast(self, key: FibKey) -> FibEntry | None:
        node = self._hosts.get(key.group)
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

    def _touch_floods(self) -> None:
        if self._has_floods:
            self._dirty.update((FibKey(side, Kind.FLOOD, family), None) for side in Side for family in FLOOD_FAMILIES)


class Streams:
    """Stream numbers 1 … STREAMS_MAX, one for each group that needs it; 0, the shared one, when all are taken.

    A number that becomes free goes to the end of the queue: receivers have long forgotten what it counted before.
    """

    def __init__(self) -> None:
        self._numbers: dict[Address, int] = {}
        self._users: dict[Address, int] = {}
        self._holders: set[FibKey] = set()
        self._groups: dict[int, Address] = {}
        """By number."""
        self._fresh = 1
        """From here on numbers have never been given, save those adopted."""
        self._freed: deque[int] = deque()

    def take(self, key: FibKey) -> int:
        """The number of the key's group, which the key now uses."""
        if key not in self._holders:
            self._holders.add(key)
            self._users[key.group] = self._users.get(key.group, 0) + 1
        if key.group not in self._numbers:
            number = self._next_free()
            if number is not None:
                self._give(key.group, number)
        return self._numbers.get(key.group, 0)

    def drop(self, key: FibKey) -> None:
        """The key uses its group's number no longer."""
        if key not in self._holders:
            return
        self._holders.discard(key)
        self._users[key.group] -= 1
        if not self._users[key.group]:
            del self._users[key.group]
            self._release(key.group)

    def number(self, group: Address) -> int | None:
        """The number of a group, if it has one."""
        return self._numbers.get(group)

    def group(self, number: int) -> Address | None:
        """The group that has a number."""
        return self._groups.get(number)

    def adopt(self, group: Address, number: int) -> None:
        """Take over a number given before a restart; one that is found twice stays with the first group."""
        if group not in self._numbers and number not in self._groups and 0 < number <= limits.STREAMS_MAX:
            self._give(group, number)

    def release_unused(self) -> None:
        """Free the numbers that were adopted for groups which nobody has taken them for since."""
        for group in [group for group in self._numbers if group not in self._users]:
            self._release(group)

    def _next_free(self) -> int | None:
        while self._fresh <= limits.STREAMS_MAX:
            self._fresh += 1
            if self._fresh - 1 not in self._groups:
                return self._fresh - 1
        return self._freed.popleft() if self._freed else None

    def _give(self, group: Address, number: int) -> None:
        self._numbers[group] = number
        self._groups[number] = group

    def _release(self, group: Address) -> None:
        number = self._numbers.pop(group, None)
        if number is not None:
            del self._groups[number]
            if number < self._fresh:
                self._freed.append(number)
