"""What an OverlayNode tells its driver, beside the engine's RouteChanged.  Values only.

Drain events before transmits: an acknowledgement that is sent before the key it acknowledges is in shared memory
would invite packets that cannot be opened.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from pipeline.address import Address, NodeId
from pipeline.engines.api import Resend
from pipeline.forwarding.route import RouteChanged
from pipeline.messages import NodeRecord


class RecordChanged(msgspec.Struct, frozen=True):
    """A node is known, or something in its record is new (key, endpoint, lanes, addresses): install them."""

    record: NodeRecord
    link: int
    """The node's link index."""


class RecordGone(msgspec.Struct, frozen=True):
    """A node is forgotten: remove key and endpoint.  Its link index may be given to another node from now on."""

    record: NodeRecord
    link: int


class PeerChanged(msgspec.Struct, frozen=True):
    """The link to a node is up (it holds our key, packets may be sent) or down."""

    record: NodeRecord
    link: int
    up: bool
    why: str


@dataclass(frozen=True, slots=True)
class AddressOwnersChanged:
    """Which node each overlay address within reach belongs to, this node's own included: the whole mapping."""

    hosts: Mapping[Address, NodeId]


@dataclass(frozen=True, slots=True)
class AddressMoved:
    """This node's derived addresses belonged to another node: the interface is to have these instead."""

    addresses: tuple[tuple[Address, int], ...]


@dataclass(frozen=True, slots=True)
class NodeIdMoved:
    """Another node's name gives the same node id and it keeps it: this node now sends as another origin."""

    old: NodeId
    new: NodeId


class NoticeKind(enum.StrEnum):
    """What a person should be told, each once for each node concerned."""

    NAME_TAKEN = "name_taken"
    """An older node of this name is alive: this one is refused and had better end."""
    NAMESAKE = "namesake"
    """A newer node of this name has been started; this one goes on."""
    ADDRESS_CONFLICT = "address_conflict"
    """Two nodes were given the same address by `--address`."""
    ENGINE_MISMATCH = "engine_mismatch"
    """A node runs another engine: it gets no packets."""
    NO_ANSWER = "no_answer"
    """An endpoint given by `--peer` has not answered: a typing error, a firewall, another network key."""
    OVERLAY_FULL = "overlay_full"
    """There are NODES_MAX nodes already."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Log this line, once."""

    kind: NoticeKind
    peer: str
    text: str


NodeEvent: TypeAlias = (
    RouteChanged
    | RecordChanged
    | RecordGone
    | PeerChanged
    | AddressOwnersChanged
    | AddressMoved
    | NodeIdMoved
    | Notice
    | Resend
)
