"""The engine `flood`: a host's packets to any group go to every node with a link.  It is the example of README.md.

It keeps no members and sends no messages; hosts without members drop the packets.
"""

# ruff: noqa: ARG002, D102 (the methods are documented in engines/api.py)

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pipeline.address import Address, NodeId, SourceFilter
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import Engine, EngineContext, LinkState, Output, RouteChanged, RouteKey, Side


class Flood(Engine):
    """Flood engine of one node."""

    def __init__(self, context: EngineContext, now: float) -> None:
        context.refuse_options("flood")
        self._up: set[NodeId] = set()
        self._joined: set[Address] = set()
        self._sources: dict[Address, None] = {}
        self._outputs: deque[Output] = deque()

    def join(self, group: Address, sources: SourceFilter, now: float) -> None:
        self._joined.add(group)

    def leave(self, group: Address, now: float) -> None:
        self._joined.discard(group)

    def register_source(self, group: Address, now: float) -> None:
        self._sources[group] = None
        self._route(group)

    def deregister_source(self, group: Address, now: float) -> None:
        if group in self._sources:
            del self._sources[group]
            self._outputs.append(RouteChanged(RouteKey(Side.HOST, group), None, "flood: no source"))

    def handle_link(self, peer: NodeId, state: LinkState, now: float, *, rtt_s: float | None = None) -> None:
        before = set(self._up)
        (self._up.add if state is LinkState.UP else self._up.discard)(peer)
        for group in self._sources if self._up != before else ():
            self._route(group)

    def _route(self, group: Address) -> None:
        self._outputs.append(RouteChanged(RouteKey(Side.HOST, group), frozenset(self._up), "flood: every node"))

    def handle_message(self, peer: NodeId, message: bytes, now: float) -> str | None:
        return MessageRefusal.FLOOD_MALFORMED

    def poll_output(self) -> Output | None:
        return self._outputs.popleft() if self._outputs else None

    def groups(self) -> Iterable[Address]:
        return frozenset(self._joined)

    def snapshot(self, now: float) -> bytes:
        return b"".join(bytes([len(group)]) + group for group in self._sources)

    def restore(self, data: bytes, now: float) -> None:
        while data:
            group, data = data[1 : 1 + data[0]], data[1 + data[0] :]
            self.register_source(group, now)
