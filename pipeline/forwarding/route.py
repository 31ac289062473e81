"""Values of forwarding: routes, which an engine decides, and entries, by which the stages forward.

Routes name nodes.  Entries name link indices and are written to the forwarding table in shared memory, with the fields
of mp_fib_key as key.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

import msgspec

from pipeline.address import Address, NodeId


class Side(enum.StrEnum):
    """Origin of a packet: programs of this host (TUN) or other nodes (UDP)."""

    HOST = "host"
    OVERLAY = "overlay"


class Kind(enum.StrEnum):
    """Subject of an entry: a group, a unicast address, or all link-scope groups of a family.

    A SOURCE entry belongs to the policy: it holds, in place of the group, an address from which a node may send.  On
    the host side that node is this one.
    """

    GROUP = "group"
    UNICAST = "unicast"
    FLOOD = "flood"
    SOURCE = "source"


T = TypeVar("T", bound=Hashable)


class SharedSets(Generic[T]):
    """Cache that has one object for equal sets, so that 65,536 groups with the same members share one set."""

    KEPT_MAX = 4096

    def __init__(self) -> None:
        self._kept: dict[frozenset[T], frozenset[T]] = {}

    def share(self, members: frozenset[T]) -> frozenset[T]:
        """Return an equal set, the one of an earlier call if it is in the cache."""
        if len(self._kept) >= self.KEPT_MAX:
            self._kept.clear()
        return self._kept.setdefault(members, members)


class RouteKey(NamedTuple):
    """Subject of a route: on the host side (S,G) or (*,G); on the overlay side (origin,G) or (*,G).

    With `via` an overlay-side route holds for packets from that node only.
    """

    side: Side
    group: Address
    source: Address | None = None
    origin: NodeId | None = None
    via: NodeId | None = None


class RouteChanged(msgspec.Struct, frozen=True):
    """A route: the nodes that packets of `key` go to next.  None ends the route; an empty set drops its packets.

    With `stripes` the packets of a stream take several sets in turn, by the stream sequence number of each datagram:
    number n goes to set n mod (1 + len(stripes)), where `next_hops` is set 0.  So all nodes agree which of several
    trees a packet takes.
    """

    key: RouteKey
    next_hops: frozenset[NodeId] | None
    why: str
    stripes: tuple[frozenset[NodeId], ...] = ()
    repairs: bool = False
    """Gaps of its streams are reported to the engine (`handle_gap`), and packets are kept for a `Resend`."""


class FibKey(NamedTuple):
    """Key of the forwarding table.  It is a tuple because tables make millions of look-ups.

    A flood entry has 4 or 16 zero bytes, according to its family, as group.
    """

    side: Side
    kind: Kind
    group: Address
    source: Address | None = None
    origin: NodeId | None = None
    via: NodeId | None = None
    stripe: int = 0
    """For groups: the stream sequence numbers n with n mod (`stripes` of stripe 0's entry) = `stripe`."""


class FibEntry(msgspec.Struct, frozen=True):
    """An entry to set or replace: send to `links`, deliver to this host if `local`, count in stream `stream`."""

    key: FibKey
    links: frozenset[int]
    local: bool
    stream: int
    why: str
    stripes: int = 1
    """Number of entries that packets take in turn; valid in the entry of stripe 0."""
    repairs: bool = False
    """Gaps in the stream are reported under its number, and packets are kept for a resend."""


class FibDelete(msgspec.Struct, frozen=True):
    """An entry to remove."""

    key: FibKey
