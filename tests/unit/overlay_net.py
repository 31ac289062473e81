"""A few OverlayNodes on virtual time; the test carries, loses or inspects their messages."""

from __future__ import annotations

import random
from typing import Any

from pipeline.overlay.events import NodeEvent, Notice, NoticeKind
from pipeline.overlay.node import NodeConfig, OverlayNode


def key_of(name: str) -> bytes:
    """Return a sender key from which a failing test shows the node."""
    return name.encode().ljust(32)


class Net:
    """Network that carries messages between nodes without delay; time passes in `run`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.nodes: dict[str, OverlayNode] = {}
        """Nodes by endpoint."""
        self.events: dict[str, list[NodeEvent]] = {}
        self.sent: list[tuple[str, str, bytes]] = []
        """All messages as (from, to, bytes), lost ones included."""
        self.cut: set[str] = set()
        """Endpoints that neither send nor receive."""

    def add(
        self, name: str, *, at: str | None = None, incarnation: int = 1, derive_id: Any = None, **options: Any
    ) -> OverlayNode:
        """Start a node."""
        endpoint = at or f"192.0.2.{len(self.nodes) + 1}:4747"
        config = NodeConfig(name=name, endpoint=endpoint, incarnation=incarnation, sender_key=key_of(name), **options)
        extra = {"derive_id": derive_id} if derive_id else {}
        node = OverlayNode(config, random=random.Random(1).random, now=self.now, **extra)
        return self.put(endpoint, node)

    def put(self, endpoint: str, node: OverlayNode) -> OverlayNode:
        """Start a node that was made elsewhere."""
        self.nodes[endpoint] = node
        self.events[endpoint] = []
        node.start(self.now)
        return node

    def pump(self) -> None:
        """Carry messages until there are none."""
        is_busy = True
        while is_busy:
            is_busy = False
            for endpoint, node in list(self.nodes.items()):
                while (event := node.poll_event()) is not None:
                    self.events[endpoint].append(event)
                while (transmit := node.poll_transmit()) is not None:
                    is_busy = True
                    to, data = transmit
                    self.sent.append((endpoint, to, data))
                    if to in self.nodes and not {endpoint, to} & self.cut:
                        assert self.nodes[to].handle_message(endpoint, data, self.now) is None

    def run(self, seconds: float) -> None:
        """Let time pass."""
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

    def events_of(self, node: OverlayNode, kind: type[Any]) -> list[Any]:
        """Return the events of one kind that a node has reported."""
        endpoint = next(key for key, each in self.nodes.items() if each is node)
        return [event for event in self.events[endpoint] if isinstance(event, kind)]

    def notices(self, node: OverlayNode) -> list[NoticeKind]:
        """Return the kinds of the notices that a node has given."""
        return [notice.kind for notice in self.events_of(node, Notice)]


def linked_peers(node: OverlayNode) -> set[str]:
    """Return the names of the peers whose link is up."""
    return {link.name for link in node.links() if link.is_up}
