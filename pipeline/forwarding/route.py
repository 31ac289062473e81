"""The vocabulary of forwarding: what an engine decides (routes, by node) and what C forwards by (entries, by link).

Values only.  Routes name nodes; entries name link indices and stand in the forwarding table of shared memory, whose
key has the same fields (mp_fib_key).
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

import msgspec

from pipeline.address import Address, NodeId


class Side(enum.StrEnum):
    """Where the packet comes from: the host's programs (TUN) or other nodes (UDP)."""

    HOST = "host"
    OVERLAY = "overlay"


class Kind(enum.StrEnum):
    """What an entry is about: a group, a unicast address, all link-scope groups of a family; or, for the policy, an
    address (in the place of the group) that a node may send from, on the host side this one.
    """

    GROUP = "group"
    UNICAST = "unicast"
    FLOOD = "flood"
    SOURCE = "source"


T = TypeVar("T", bound=Hashable)


class SharedSets(Generic[T]):
    """One object for equal sets: 65,536 groups with the same members do not hold 65,536 sets of them."""

    KEPT_MAX = 4096

    def __init__(self) -> None:
        self._kept: dict[frozenset[T], frozenset[T]] = {}

    def share(self, members: frozenset[T]) -> frozenset[T]:
        """An equal set, the same as last time if that is remembered."""
        if len(self._kept) >= self.KEPT_MAX:
            self._kept.clear()
        return self._kept.setdefault(members, members)


class RouteKey(NamedTuple):
    """What an engine routes: host side (S,G) or (*,G); overlay side (origin,G) or (*,G), perhaps by incoming link."""

    side: Side
    group: Address
    source: Address | None = None
    origin: NodeId | None = None
    via: NodeId | None = None


class RouteChanged(msgspec.Struct, frozen=True):
    """The nodes that packets of `key` go to next.  None: the route is gone; empty: it is known and goes nowhere.

    With `turns` the packets of a stream take the sets in turn, by the stream sequence number that every datagram
    carries: number n goes to set n mod (1 + len(turns)), of which `next_hops` is set 0.  So all nodes agree which of
    several trees a packet takes.
    """

    key: RouteKey
    next_hops: frozenset[NodeId] | None
    why: str
    stripes: tuple[frozenset[NodeId], ...] = ()
    repairs: bool = False
    """The engine is to be told what its streams lack (`handle_gap`), and what passes is kept for a `Resend`."""


class FibKey(NamedTuple):
    """A key of the forwarding table; a tuple, because tables look keys up by the million.

    A flood entry's group is 4 or 16 zero bytes: its family.
    """

    side: Side
    kind: Kind
    group: Address
    source: Address | None = None
    origin: NodeId | None = None
    via: NodeId | None = None
    stripe: int = 0
    """Groups only: stream sequence numbers n with n mod (the `turns` of turn 0's entry) = turn."""


class FibEntry(msgspec.Struct, frozen=True):
    """Set or replace an entry: send to `links`, deliver to this host if `local`, count in stream `stream`."""

    key: FibKey
    links: frozenset[int]
    local: bool
    stream: int
    why: str
    stripes: int = 1
    """How many entries packets take in turn; said by the entry of turn 0."""
    repairs: bool = False
    """Gaps in the stream, by the number of which it is known on both sides, are told; what passes is kept."""


class FibDelete(msgspec.Struct, frozen=True):
    """Remove an entry."""

    key: FibKey
