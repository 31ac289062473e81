"""What an overlay engine is: it decides routes, and never sees a packet.

An engine is told what this node wants and offers (`join`, `leave`, `register_source`, `deregister_source`), which nodes
it can talk to (`handle_link`), where overlay addresses live (`handle_hosts`) and what its likes on other nodes say
(`handle_message`).  It answers with messages to send, routes, and the links it would like to have.  One law: call one
input, or several, then drain `poll_output` until it returns None, then ask `poll_timeout`.

It knows no clock (`now` is handed in, seconds, monotonic), no sockets and no randomness but that of its context.
`members` and `groups` are for people; forwarding goes by the routes alone.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from pipeline.address import Address, NodeId, SourceFilter
from pipeline.errors import ConfigError
from pipeline.forwarding.route import RouteChanged, RouteKey, Side

__all__ = [
    "Engine",
    "EngineContext",
    "EngineFactory",
    "LinkState",
    "LinkWanted",
    "Output",
    "Resend",
    "RouteChanged",
    "RouteKey",
    "Side",
    "Transmit",
]  # fmt: skip


class LinkState(enum.StrEnum):
    """Of the link to another node.  A message may come from a node before its link is up here (it is up there)."""

    UP = "up"
    DOWN = "down"
    """No traffic; what the node said is still true if it comes back."""
    GONE = "gone"
    """The node restarted or was forgotten: forget all that it said."""


class Transmit(msgspec.Struct, frozen=True):
    """Send this to the same engine of another node; it may be lost, doubled or overtaken."""

    peer: NodeId
    message: bytes
    mentions: tuple[NodeId, ...] = ()
    """Nodes that the message names: a peer that has not heard of them is told first how to reach them."""


class LinkWanted(msgspec.Struct, frozen=True):
    """The engine would use a link to that node (or no longer)."""

    peer: NodeId
    wanted: bool


class Resend(msgspec.Struct, frozen=True):
    """Send these datagrams once more to that node, out of the data plane's own history.

    What it has no more, or has not got yet, is left: who lacks something goes on asking.
    """

    peer: NodeId
    group: Address
    origin: NodeId
    numbers: tuple[int, ...]
    """Stream sequence numbers."""


Output: TypeAlias = Transmit | RouteChanged | LinkWanted | Resend


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """What an engine is born with."""

    node_id: NodeId
    random: Callable[[], float]
    """Uniform in [0, 1)."""
    options: Mapping[str, object] = field(default_factory=dict)
    """The engine's own table of the configuration."""
    is_sparse: bool = False
    """Nodes know and link only those that engines want or mention; else every node has a link to every other."""

    def refuse_options(self, engine: str) -> None:
        """For an engine that has none; ConfigError if the configuration gives some."""
        if self.options:
            raise ConfigError(f"[overlay.{engine}]: {', '.join(self.options)}: the engine has no options")


class Engine(Protocol):
    """An application-layer multicast protocol."""

    def join(self, group: Address, sources: SourceFilter, now: float) -> None:
        """This host wants the group; again with other sources when they change."""

    def leave(self, group: Address, now: float) -> None:
        """This host wants the group no longer."""

    def register_source(self, group: Address, now: float) -> None:
        """A program of this host sends to the group."""

    def deregister_source(self, group: Address, now: float) -> None:
        """None does any more."""

    def handle_link(self, peer: NodeId, state: LinkState, now: float, *, rtt_s: float | None = None) -> None:
        """A link came up, went down, is gone; or, UP again, its measured round-trip time changed."""

    def handle_addresses(self, hosts: Mapping[Address, NodeId], now: float) -> None:
        """Which node each overlay address belongs to, this node's included."""

    def handle_message(self, peer: NodeId, message: bytes, now: float) -> str | None:
        """What a peer's engine says.  Returns a reason word if it is nonsense."""

    def handle_gap(
        self, group: Address, origin: NodeId, numbers: tuple[int, ...], now: float, *, via: NodeId | None = None
    ) -> None:
        """All that the data plane lacks of a stream and might still be sent; told again as it changes.

        `via`: the node that the last datagram of the stream came from.
        """

    def handle_timeout(self, now: float) -> None:
        """The time of `poll_timeout` has come."""

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` is due."""

    def poll_output(self) -> Output | None:
        """The next thing to do; None when all is done."""

    def members(self, group: Address) -> frozenset[NodeId]:
        """Nodes within reach, other than this one, that want the group."""

    def nodes(self) -> Iterable[NodeId]:
        """Nodes whose records this node needs beside those it wants links to: origins of what it receives."""

    def groups(self) -> Iterable[Address]:
        """Groups that this node or one within reach wants."""

    def snapshot(self, now: float) -> bytes:
        """Everything that a restarted control process needs to go on."""

    def restore(self, data: bytes, now: float) -> None:
        """Take over a snapshot; ValueError if it is none.  Links are told anew, and all routes are put out again."""


EngineFactory: TypeAlias = Callable[[EngineContext, float], Engine]
"""What an entry point of group `mcast_pipeline.engines` names: called with context and now."""


@runtime_checkable
class Watchful(Protocol):
    """An engine that wants to know when a stream stops."""

    def handle_stream_stall(self, group: Address, now: float) -> None:
        """Packets of a stream came steadily, and for a while none: it has ended, or who should pass it on is gone."""
