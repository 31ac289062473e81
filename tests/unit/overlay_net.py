"""A few OverlayNodes by hand on virtual time; messages are carried, lost or looked at by the test."""

from __future__ import annotations

import random
from typing import Any

from pipeline.overlay.events import NodeEvent, Notice, NoticeKind
from pipeline.overlay.node import NodeConfig, OverlayNode


def key_of(name: str) -> bytes:
    """A sender key that a failing test shows as what it is."""
    return name.encode().ljust(32)


class Net:
    """Carries messages between nodes without delay; time passes in `run`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.nodes: dict[str, OverlayNode] = {}
        self.events: dict[str, list[NodeEvent]] = {}
        self.sent: list[tuple[str, str, bytes]] = []
        self.cut: set[str] = set()

    def add(
        self, name: str, *, at: str | None = None, incarnation: int = 1, derive_id: Any = None, **options: Any
    ) -> OverlayNode:
        listen = at or f"192.0.2.{len(self.nodes) + 1}:4747"
        config = NodeConfig(name=name, endpoint=listen, incarnation=incarnation, sender_key=key_of(name), **options)
        extra = {"derive_id": derive_id} if derive_id else {}
        node = OverlayNode(config, random=random.Random(1).random, now=self.now, **extra)
        return self.put(listen, node)

    def put(self, listen: str, node: OverlayNode) -> OverlayNode:
        self.nodes[listen] = node
        self.events[listen] = []
        node.start(self.now)
        return node

    def pump(self) -> None:
        """Carry messages until there are none."""
        busy = True
        while busy:
            busy = False
            for listen, node in list(self.nodes.items()):
                while (event := node.poll_event()) is not None:
                    self.events[listen].append(event)
                while (transmit := node.poll_transmit()) is not None:
                    busy = True
                    to, data = transmit
                    self.sent.append((listen, to, data))
                    if to in self.nodes and not {listen, to} & self.cut:
                        assert self.nodes[to].handle_message(listen, data, self.now) is None

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.pump()
            due = [time for node in self.nodes.values() if (time := node.poll_timeout()) is not None]
            if min(due, default=end) >= end:
                break
            self.now = max(self.now, min(due))
            for node in self.nodes.values():
                node.handle_timeout(self.now)
        self.now = end
        self.pump()

    def of(self, node: OverlayNode, kind: type[Any]) -> list[Any]:
        listen = next(key for key, each in self.nodes.items() if each is node)
        return [event for event in self.events[listen] if isinstance(event, kind)]

    def notices(self, node: OverlayNode) -> list[NoticeKind]:
        return [notice.kind for notice in self.of(node, Notice)]


def up(node: OverlayNode) -> set[str]:
    return {link.name for link in node.links() if link.is_up}
