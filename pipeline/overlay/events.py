"""Events that an OverlayNode reports to its driver, beside the engine's RouteChanged.  Values only.

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
    """A record is new or has changed: install its key, endpoint, lanes and addresses.

    The record has only the addresses that its node may have (address_claims.py).
    """

    record: NodeRecord
    link: int
    """Link index of the node."""
    reporter: str = ""
    """Address of the host that has sent the record; empty if it was restored."""
    probe_keys: tuple[bytes, bytes] | None = None
    """Keys of probes to the node and from it; None for a node of protocol 1."""


class RecordGone(msgspec.Struct, frozen=True):
    """A node is forgotten: remove its key and endpoint.  Another node may be given its link index from now on."""

    record: NodeRecord
    link: int


class ProbingChanged(msgspec.Struct, frozen=True):
    """The peer holds our key: probe its endpoint, and report an echo by `handle_echo`; or probe it no more."""

    record: NodeRecord
    link: int
    is_probed: bool


class PeerChanged(msgspec.Struct, frozen=True):
    """The link to a node is up, so it holds our key, its endpoint has answered and packets may be sent; or down."""

    record: NodeRecord
    link: int
    is_up: bool
    why: str


@dataclass(frozen=True, slots=True)
class AddressOwnersChanged:
    """The owners of overlay addresses have changed; all are listed, with this node's own and link-local ones."""

    owners: Mapping[Address, NodeId]


@dataclass(frozen=True, slots=True)
class AddressMoved:
    """Another node owned a derived address of this node: give the interface these addresses instead."""

    addresses: tuple[tuple[Address, int], ...]


@dataclass(frozen=True, slots=True)
class NodeIdMoved:
    """Another node keeps the node id of this one: this node is another origin from now on."""

    old: NodeId
    new: NodeId


@dataclass(frozen=True, slots=True)
class RevocationsChanged:
    """The authority's revocation list has changed: keep it, and renew the sender key that excluded nodes have."""

    revocation_list: bytes
    excluded: tuple[str, ...]


class NoticeKind(enum.StrEnum):
    """Kind of a notice for the operator, given once for each kind and node concerned."""

    NAME_TAKEN = "name_taken"
    """An older node of this name or identity is alive: peers refuse this one, which should stop."""
    NAMESAKE = "namesake"
    """A node of another identity claims the name of a live node, or of this one, and is refused."""
    NAME_PINNED = "name_pinned"
    """The name is pinned to another identity: a node is refused here, or this one by a peer."""
    CLONE = "clone"
    """A second process with the identity of a live node, or of this one, is refused."""
    CERTIFICATE = "certificate"
    """A node without a valid certificate is refused, or this one is by a peer."""
    EXCLUDED = "excluded"
    """The authority has revoked this node's certificate: it should stop."""
    PROTOCOL = "protocol"
    """A node and this one have no version of the protocol in common."""
    ADDRESS_CONFLICT = "address_conflict"
    """Two nodes have the same explicit address (`--address`)."""
    ADDRESS_REFUSED = "address_refused"
    """A node claims an address that is not of the overlay (address_claims.py): its packets from it are dropped."""
    ENGINE_MISMATCH = "engine_mismatch"
    """A node runs another engine: no packets pass between it and this node."""
    NO_ANSWER = "no_answer"
    """An endpoint given by `--peer` has not answered: a mistyped address, a firewall, or another network key."""
    NO_ECHO = "no_echo"
    """Messages of a node arrive, but no datagram passes: a firewall, or a record with the endpoint of a stranger."""
    OVERLAY_FULL = "overlay_full"
    """The overlay has NODES_MAX nodes already."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the log."""

    kind: NoticeKind
    peer: str
    text: str


NodeEvent: TypeAlias = (
    RouteChanged
    | RecordChanged
    | RecordGone
    | ProbingChanged
    | PeerChanged
    | AddressOwnersChanged
    | AddressMoved
    | NodeIdMoved
    | RevocationsChanged
    | Notice
    | Resend
)
