"""Messages between Nemo nodes.  Each is about one group; layers count from 0, the layer of all nodes.

Lost messages are repeated by design: heartbeats carry the version of the view on which they are based, and a leader
answers an old version with its view.  This file does not know what the messages do.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from pipeline import limits

LAYERS_MAX = 16
"""Clusters have at least two members, mostly three: 2^16 nodes are more than there can be."""
TOP_MAX = LAYERS_MAX - 2
"""Highest layer with a cluster, so that a Join to the layer above it is still well formed."""
CLUSTER_MAX = 256
"""Members of one cluster while many nodes join at once; it is split within seconds."""

Group: TypeAlias = Annotated[bytes, Meta(min_length=4, max_length=16)]
Layer: TypeAlias = Annotated[int, Meta(ge=0, lt=LAYERS_MAX)]
Node: TypeAlias = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
"""Node id, or 0 for none."""
Member: TypeAlias = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
Version: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 62)]
VERSION_SANE = 1 << 61
"""Upper bound of versions that are accepted; no real cluster changes so often.  With a forged higher version, the next
one of the leader would be malformed.  A cluster with such a version is dissolved, as its views would be ignored.
"""
Crew: TypeAlias = Annotated[tuple[Member, ...], Meta(max_length=limits.STRIPES_MAX)]
"""Leader first."""
Members: TypeAlias = Annotated[dict[Member, Crew], Meta(max_length=CLUSTER_MAX)]
"""Members, each with the crew of the cluster that it leads in the layer below; the crews are empty in layer 0."""
Numbers: TypeAlias = Annotated[tuple[Annotated[int, Meta(ge=0, le=0xFFFFFFFF)], ...], Meta(max_length=64)]
"""Stream sequence numbers."""
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    group: Group


class RootQuery(_Message, frozen=True, tag="f"):
    """Query to the rendezvous for the root of the group, or registration of the sender as root."""

    root: Node
    """The sender, if it leads the top cluster; 0: it queries."""
    superseded: Node
    """Root that the sender has replaced, or cannot reach; 0: none."""
    layers: Layer
    """Layers that the sender leads; 0: it is alone.  Of two roots the one with more layers stays."""


class RootReply(_Message, frozen=True, tag="r"):
    """Reply of the rendezvous: the root of the group, perhaps the receiver, which queried first.

    Without a query, to a node that was root: its successor; 0: another node registered with fewer layers.
    From a root to the rendezvous, with 0: the sender leaves, and has no successor.
    """

    root: Node


class Blocked(_Message, frozen=True, tag="x"):
    """From the rendezvous to the root: a joining node cannot reach the root."""

    node: Node


class Query(_Message, frozen=True, tag="q"):
    """Query for the members of the cluster that the receiver leads in a layer, or in its top layer if that is lower."""

    layer: Layer
    target: Layer
    """Layer at which the search ends: from there on only the distance matters, and no members are sent."""
    ticket: Version
    """Number of the query, which the answer repeats."""


class Answer(_Message, frozen=True, tag="a"):
    """Members of a cluster that the sender leads."""

    layer: Layer
    """Layer of the query, or the sender's top layer if that is lower."""
    ticket: Version
    members: Annotated[list[Node], Meta(max_length=CLUSTER_MAX)]
    """Empty if the layer is the target or below."""
    top: Layer
    """Highest layer with a membership of the sender."""


class Join(_Message, frozen=True, tag="j"):
    """Request to become a member of the receiver's cluster in a layer."""

    layer: Layer
    crew: Crew
    """Crew of the cluster that the sender leads in the layer below."""
    replaces: Node
    """Dead member whose place the sender takes; 0: none."""


class Leave(_Message, frozen=True, tag="l"):
    """The sender is not, or no longer, a member of the receiver's cluster."""

    layer: Layer
    successor: Node
    """Node that takes the sender's place; 0: none."""
    crew: Crew
    """Crew of the successor."""


class View(_Message, frozen=True, tag="v"):
    """State of a cluster as its leader has decided it.  A higher version replaces a lower one, whichever node leads."""

    layer: Layer
    version: Version
    leader: Node
    members: Members
    crew: Crew
    super_crew: Crew
    """Crew of the cluster above, in which the leader is a member; empty at the top."""


class Redirect(_Message, frozen=True, tag="d"):
    """The sender does not lead, or no longer leads, the receiver's cluster in a layer."""

    layer: Layer
    leader: Node
    """Leader to join; 0: the receiver has to search anew."""


class Heartbeat(_Message, frozen=True, tag="b"):
    """Heartbeat between members of a cluster; it also measures the round-trip time."""

    layer: Layer
    leader: Node
    version: Version
    crew: Crew
    """Crew of the cluster that the sender leads in the layer below."""
    stamp: Milliseconds
    """Time of sending on the sender's clock; 0: the heartbeat measures nothing."""
    echo: Milliseconds
    """Last stamp received from the receiver; 0: none."""
    held: Milliseconds
    """Time since that stamp arrived."""
    distances: Annotated[dict[Node, Milliseconds], Meta(max_length=CLUSTER_MAX)]
    """To the leader only: the sender's round-trip times to the other members."""


class Source(_Message, frozen=True, tag="s"):
    """A node is a source of the group; passed on along clusters, so that all receivers learn it and request its key."""

    origin: Node
    count: Version
    """Number that grows with each announcement of the origin."""


class Nack(_Message, frozen=True, tag="n"):
    """Request to retransmit datagrams of an origin, answered by a NackReply.  Without numbers it is a probe."""

    origin: Node
    numbers: Numbers
    suspect: Node
    """Node that should have sent them, or leads the receiver, and does not answer; 0: none."""


class NackReply(_Message, frozen=True, tag="k"):
    """Reply to a Nack: the sender is alive, lacks these datagrams too, and retransmits the others."""

    origin: Node
    numbers: Numbers
    providers: Crew
    """Nodes from which the sender would request them."""
    is_circular: bool
    """Whether the sender would request them from the receiver first: then waiting for it is useless."""


Message: TypeAlias = (
    RootQuery
    | RootReply
    | Blocked
    | Query
    | Answer
    | Join
    | Leave
    | View
    | Redirect
    | Heartbeat
    | Source
    | Nack
    | NackReply
)


def named(view: View) -> list[int]:
    """Return the nodes that a view names."""
    return [*view.members, *(node for crew in view.members.values() for node in crew), *view.crew, *view.super_crew]


decoder = msgspec.msgpack.Decoder(Message)
encode = msgspec.msgpack.Encoder().encode
