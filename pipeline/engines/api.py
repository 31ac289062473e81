"""Engine API: an overlay engine decides where packets go, and never handles a packet.

Inputs of an engine are the groups that this host joins and sends to (`join`, `leave`, `register_source`,
`deregister_source`), links (`handle_link`), owners of overlay addresses (`handle_addresses`), messages of the same
engine on other nodes (`handle_message`), losses that the data plane has seen (`handle_gap`, `handle_stream_stall`) and
time (`handle_timeout`).  Outputs are messages, routes, links that it needs, and requests to the data plane to resend
datagrams.  One law: call one or several inputs, then drain `poll_output` until it returns None, then call
`poll_timeout`.

An engine knows no clock (`now` is an argument, in seconds, monotonic), no sockets, and no randomness but that of its
context.  `members` and `groups` serve the operator's views; forwarding follows the routes alone.
"""

# ruff: noqa: B027 (the defaults of Engine do nothing)

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import msgspec

from pipeline.address import Address, NodeId, SourceFilter
from pipeline.errors import ConfigError
from pipeline.forwarding.route import RouteChanged, RouteKey, Side

__all__ = [
    "Engine",
    "EngineContext",
    "LinkState",
    "LinkWanted",
    "NodeView",
    "Output",
    "Resend",
    "RouteChanged",
    "RouteKey",
    "Side",
    "Transmit",
]  # fmt: skip


class LinkState(enum.StrEnum):
    """State of the link to another node.

    A message may arrive from a node before its link is up here, as it is up there already.
    """

    UP = "up"
    DOWN = "down"
    """No traffic; the node's state is still valid if the link comes up again."""
    GONE = "gone"
    """The node has restarted or was forgotten: drop all state received from it."""


class Transmit(msgspec.Struct, frozen=True):
    """Send this message to the same engine of another node; it may be lost, doubled or overtaken."""

    peer: NodeId
    message: bytes
    mentions: tuple[NodeId, ...] = ()
    """Nodes that the message names; the peer is first sent those of their records that it lacks."""


class LinkWanted(msgspec.Struct, frozen=True):
    """The engine needs a link to a node, or no longer needs it."""

    peer: NodeId
    is_wanted: bool


class Resend(msgspec.Struct, frozen=True):
    """Send these datagrams to a node once more, from the history of the data plane.

    Datagrams that the history no longer has, or does not have yet, are skipped: the node repeats its request.
    """

    peer: NodeId
    group: Address
    origin: NodeId
    numbers: tuple[int, ...]
    """Stream sequence numbers."""


Output: TypeAlias = Transmit | RouteChanged | LinkWanted | Resend


class NodeView:
    """Assumptions about other nodes.  By this base class, every node has a link to every other one."""

    announces_sources: ClassVar[bool] = False
    """True if the engine has to announce sources, because receivers may lack their records and thus their keys."""

    def can_reach(self, node: NodeId, up: Container[NodeId]) -> bool:
        """Return whether a message to the node may arrive; `up` holds the nodes whose link is up."""
        return node in up

    def node_named(self, name: str) -> NodeId | None:  # noqa: ARG002
        """Return the node that has this name, or None if none is known."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """Everything that an engine is created with."""

    node_id: NodeId
    random: Callable[[], float]
    """Returns a number from [0, 1), uniformly distributed."""
    options: Mapping[str, object] = field(default_factory=dict)
    """The engine's own table of the configuration."""
    view: NodeView = field(default_factory=NodeView)

    def refuse_options(self, engine: str) -> None:
        """Raise ConfigError if the configuration has options for an engine that takes none."""
        if self.options:
            raise ConfigError(f"[overlay.{engine}]: {', '.join(self.options)}: the engine has no options")


class Engine(abc.ABC):
    """Base class of application-layer multicast protocols.

    What every engine has to decide is abstract; everything else has a default that does nothing.  An entry point of
    group `mcast_pipeline.engines` names a subclass, which is called with context and now.
    """

    repairs: ClassVar[bool] = False
    """True if the engine's routes may request repair, so that the data plane keeps a history."""
    supports_partial_view: ClassVar[bool] = False
    """True if the engine works where nodes know only the nodes that it links or mentions."""

    def __init__(self, context: EngineContext, now: float) -> None: ...

    # ---- this host

    @abc.abstractmethod
    def join(self, group: Address, sources: SourceFilter, now: float) -> None:
        """This host joins the group, or its source filter has changed."""

    @abc.abstractmethod
    def leave(self, group: Address, now: float) -> None:
        """This host leaves the group."""

    @abc.abstractmethod
    def register_source(self, group: Address, now: float) -> None:
        """A program of this host sends to the group."""

    @abc.abstractmethod
    def deregister_source(self, group: Address, now: float) -> None:
        """No program of this host sends to the group any more."""

    # ---- other nodes

    @abc.abstractmethod
    def handle_link(self, peer: NodeId, state: LinkState, now: float, *, rtt_s: float | None = None) -> None:
        """A link came up, went down, or is gone; or, UP again, its measured round-trip time has changed."""

    def handle_addresses(self, owners: Mapping[Address, NodeId], now: float) -> None:
        """The owners of overlay addresses have changed; all are listed, this node's own addresses included."""

    @abc.abstractmethod
    def handle_message(self, peer: NodeId, message: bytes, now: float) -> str | None:
        """Take a message of a peer's engine.  Returns a reason word if it is malformed."""

    # ---- losses

    def handle_gap(
        self, group: Address, origin: NodeId, numbers: tuple[int, ...], now: float, *, via: NodeId | None = None
    ) -> None:
        """The missing datagrams of a stream that may still be sent have changed; all of them are listed.

        `via`: the node from which the last datagram of the stream arrived.
        """

    def handle_stream_stall(self, group: Address, now: float) -> None:
        """A steady stream has stopped: its source has ended, or a node that forwards it has failed."""

    # ---- time and outputs

    def handle_timeout(self, now: float) -> None:
        """The time of `poll_timeout` has come."""

    def poll_timeout(self) -> float | None:
        """Return the time at which `handle_timeout` is due."""
        return None

    @abc.abstractmethod
    def poll_output(self) -> Output | None:
        """Return the next output; None when there is none left."""

    # ---- views

    def members(self, group: Address) -> frozenset[NodeId]:  # noqa: ARG002 (a default)
        """Return the members of the group that this node knows of and has a link to, without itself."""
        return frozenset()

    def groups(self) -> Iterable[Address]:
        """Return the groups in which this node, or a node that it knows of and has a link to, takes part."""
        return ()

    def nodes(self) -> Iterable[NodeId]:
        """Return the nodes whose records this node needs beside those of its links: origins of what it receives."""
        return ()

    # ---- a restart of the control process

    def snapshot(self, now: float) -> bytes:  # noqa: ARG002 (a default)
        """Return everything that a restarted control process needs to continue."""
        return b""

    def restore(self, data: bytes, now: float) -> None:
        """Take over a snapshot; ValueError if it is none.  Links are reported and all routes are put out again."""
