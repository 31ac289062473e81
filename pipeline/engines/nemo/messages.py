"""What Nemo nodes say to each other.  Each message is about one group; layers count from 0, the layer of all peers.

Whatever is lost is said again: heartbeats carry the version of the view that they are based on, and a leader answers
an old one with its view.  Nothing here knows what the messages mean.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from pipeline import limits

LAYERS_MAX = 16
"""Clusters have at least two members, mostly three: 2^16 nodes are more than there can be."""
TOP_MAX = LAYERS_MAX - 2
"""The highest layer with a cluster, so that who asks for a place above it can still say so."""
CLUSTER_MAX = 256
"""Members of one cluster while many join at once; it is split within seconds."""

Group: TypeAlias = Annotated[bytes, Meta(min_length=4, max_length=16)]
Layer: TypeAlias = Annotated[int, Meta(ge=0, lt=LAYERS_MAX)]
Node: TypeAlias = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
"""0 where there may be none."""
Member: TypeAlias = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
Version: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 62)]
VERSION_SANE = 1 << 61
"""No cluster changes so often.  A view above it is a liar's, after whose version a leader's own would be malformed; a
cluster that a liar has brought there begins anew, as its views would not be believed."""
Crew: TypeAlias = Annotated[tuple[Member, ...], Meta(max_length=limits.STRIPES_MAX)]
"""Leader first."""
Members: TypeAlias = Annotated[dict[Member, Crew], Meta(max_length=CLUSTER_MAX)]
"""Each with the crew of the cluster that it leads in the layer below; empty in layer 0."""
Numbers: TypeAlias = Annotated[tuple[Annotated[int, Meta(ge=0, le=0xFFFFFFFF)], ...], Meta(max_length=64)]
"""Stream sequence numbers."""
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    group: Group


class RootQuery(_Message, frozen=True, tag="f"):
    """To the rendezvous: where does the group begin?  `root`: the sender leads the top cluster; 0: it looks for one."""

    root: Node
    instead: Node
    """The leader of the top cluster that the sender has followed, or cannot reach; 0: none."""
    layers: Layer
    """Of the hierarchy that the sender leads: of two the higher one stays; 0: nobody else is in it."""


class RootReply(_Message, frozen=True, tag="r"):
    """The rendezvous' answer: who leads the top cluster; perhaps the asker, who was the first.

    Unasked to who has led it until now: who leads it instead; with 0: somebody says so who leads less.
    To the rendezvous, with 0: the sender leads it no more, and nobody follows.
    """

    root: Node


class Blocked(_Message, frozen=True, tag="x"):
    """To who leads the top cluster, from the rendezvous: that node does not reach you, and wants a place."""

    node: Node


class Query(_Message, frozen=True, tag="q"):
    """Who is in the cluster that you lead in that layer?  LAYERS_MAX - 1 or any that is too high: in your top one."""

    layer: Layer
    target: Layer
    """Where the search ends: from there on only the distance is asked for."""
    ticket: Version


class Answer(_Message, frozen=True, tag="a"):
    """The members of a cluster that the sender leads; `layer` is the one asked for, or its top one if lower."""

    layer: Layer
    ticket: Version
    members: Annotated[list[Node], Meta(max_length=CLUSTER_MAX)]
    """None if the layer is the target, or below."""
    top: Layer


class Join(_Message, frozen=True, tag="j"):
    """Take me into your cluster of that layer, perhaps in the place of a peer that is no more."""

    layer: Layer
    crew: Crew
    replaces: Node


class Leave(_Message, frozen=True, tag="l"):
    """I am not, or no longer, in your cluster; `successor` with its crew takes my place if it is not 0."""

    layer: Layer
    successor: Node
    crew: Crew


class View(_Message, frozen=True, tag="v"):
    """A cluster as its leader has it.  A greater version replaces a smaller one, whoever leads."""

    layer: Layer
    version: Version
    leader: Node
    members: Members
    crew: Crew
    super_crew: Crew
    """Of the cluster above, in which the leader is a member; empty at the top."""


class Redirect(_Message, frozen=True, tag="d"):
    """I do not lead (any more) what you take me for the leader of; `leader` does, or if it is 0: join anew."""

    layer: Layer
    leader: Node


class Heartbeat(_Message, frozen=True, tag="b"):
    """The heartbeat between peers of a cluster; it also measures the round-trip time."""

    layer: Layer
    leader: Node
    version: Version
    crew: Crew
    stamp: Milliseconds
    echo: Milliseconds
    """The peer's last stamp; 0: none."""
    held: Milliseconds
    """How long ago that came."""
    distances: Annotated[dict[Node, Milliseconds], Meta(max_length=CLUSTER_MAX)]
    """To the leader only: the sender's round-trip times to the others of the cluster."""


class Source(_Message, frozen=True, tag="s"):
    """A node sends to the group; passed on along clusters, so that all receivers hear of it and of its key."""

    origin: Node
    count: Version


class Nack(_Message, frozen=True, tag="n"):
    """Send me these datagrams of the origin once more; it is answered by a Lack.  Without any: do you live?"""

    origin: Node
    numbers: Numbers
    instead: Node
    """Who should have sent them, and does not answer; 0: nobody."""


class NackReply(_Message, frozen=True, tag="k"):
    """The answer to a Nack: I live, and lack these too; what I have of the rest is on its way."""

    origin: Node
    numbers: Numbers
    crew: Crew
    """Whom I would ask for them."""
    is_yours: bool
    """Whether I would ask the asker first: then it is of no use to wait for me."""


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
    """The nodes that a view names."""
    return [*view.members, *(node for crew in view.members.values() for node in crew), *view.crew, *view.super_crew]


decoder = msgspec.msgpack.Decoder(Message)
encode = msgspec.msgpack.Encoder().encode
