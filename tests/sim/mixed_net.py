"""Overlay of nodes of this version and of the previous one, on virtual time.

Messages travel on connections as those of io/peers.py do: one for each pair of nodes and protocol.  A message for
which there is no connection yet is lost.  A connection on which a node finds a violation stays cut off until one end
restarts.
"""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from pipeline.address import ANY_SOURCE, Address
from pipeline.messages import SIGNED_PROTOCOL, protocol_of
from pipeline.overlay.events import Notice, PeerChanged, ProbingChanged
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig
from tests import previous
from tests.unit.overlay_net import identity_of, key_of

CONNECT_S = 0.02
"""Time from the first message to an endpoint until the connection is there."""
PROGRAM = Path(__file__).with_name("previous_node.py")


class Node(Protocol):
    """A node of any version."""

    speaks: int
    """Newest protocol that it names in the mark of its connections; 0 without a mark."""
    sent: list[tuple[str, bytes]]
    """Messages to send."""
    downs: list[str]
    """Peers whose link went down."""
    due: float | None
    """Time of its next timeout."""
    probed: dict[int, str]
    """Endpoints that it probes, by node id."""

    def call(self, name: str, *arguments: Any) -> Any:
        """Give the node an input, and collect its outputs."""

    def end(self) -> None:
        """Drop the node."""


class NewNode:
    """A node of this version."""

    speaks = SIGNED_PROTOCOL

    def __init__(self, options: dict[str, Any], seed: int, now: float) -> None:
        identity = identity_of(options["name"])
        self.node = OverlayNode(NodeConfig(identity=identity, **options), random=random.Random(seed).random, now=now)
        self.sent: list[tuple[str, bytes]] = []
        self.due: float | None = None
        self.downs: list[str] = []
        self.probed: dict[int, str] = {}
        self.notices: list[str] = []

    def call(self, name: str, *arguments: Any) -> Any:
        result = self._call(name, arguments)
        while (event := self.node.poll_event()) is not None:
            if isinstance(event, PeerChanged) and not event.is_up:
                self.downs.append(event.record.name)
            if isinstance(event, Notice):
                self.notices.append(event.text)
            if isinstance(event, ProbingChanged) and event.is_probed:
                self.probed[event.record.node_id] = event.record.endpoint
        while (transmit := self.node.poll_transmit()) is not None:
            self.sent.append(transmit)
        self.due = self.node.poll_timeout()
        return result

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        match name:
            case "join":
                return self.node.join(arguments[0], ANY_SOURCE, arguments[1])
            case "message":
                hint, data, now, speaks = arguments
                return self.node.handle_message(hint, data, now, speaks=speaks)
            case "links":
                return [(link.name, link.endpoint, link.is_up) for link in self.node.links()]
            case _:
                return getattr(self.node, name)(*arguments)

    def end(self) -> None:
        """Nothing runs."""


class OldNode:
    """A node of the previous version, in a process of its own."""

    speaks = 0

    def __init__(self, options: dict[str, Any], seed: int, now: float) -> None:
        command = [sys.executable, "-P", str(PROGRAM)]
        environment = previous.environment(previous.sources())
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdin is not None
        pickle.dump((options, seed, now), self._process.stdin)
        self.sent: list[tuple[str, bytes]] = []
        self.downs: list[str] = []
        self.probed: dict[int, str] = {}
        self.due: float | None = None

    def call(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((name, arguments), self._process.stdin)
        self._process.stdin.flush()
        result, sent, downs, self.due = pickle.load(self._process.stdout)
        self.sent += sent
        self.downs += downs
        return result

    def end(self) -> None:
        self._process.communicate()


class MixedNet:
    """Nodes by name, and the connections between them."""

    def __init__(self, *, is_sealing: bool = True, engine: str = "mesh") -> None:
        self.now = 1000.0
        self.nodes: dict[str, Node] = {}
        self.refusals: list[tuple[str, str, str]] = []
        """(sender, receiver, reason) of each message for which a connection was cut off."""
        self.lost: set[tuple[str, str]] = set()
        """(sender, receiver) whose messages are lost."""
        self._is_sealing = is_sealing
        self._engine = engine
        self._starts = 0
        self._opened: dict[tuple[int, int, int], float] = {}
        """Time from which a connection is there, by the starts of its ends and its protocol."""
        self._cut_off: set[tuple[int, int, int]] = set()
        self._start_of: dict[str, int] = {}

    @staticmethod
    def endpoint(name: str) -> str:
        """Return the endpoint of the node with a name such as n3."""
        return f"192.0.2.{name[1:]}:4747"

    def start(self, name: str, version: type[NewNode | OldNode], peers: list[str]) -> Node:
        """Start a node."""
        self._starts += 1
        self._start_of[name] = self._starts
        options: dict[str, Any] = {
            "name": name,
            "endpoint": self.endpoint(name),
            "incarnation": 1_000_000 + self._starts,
            "sender_key": key_of(f"{name} {self._starts}") if self._is_sealing else b"",
            "engine": self._engine,
            "peers": tuple(self.endpoint(each) for each in peers if each != name),
        }
        node: Node = version(options, self._starts, self.now)
        self.nodes[name] = node
        node.call("start", self.now)
        self._carry()
        return node

    def stop(self, name: str) -> None:
        """Stop a node: it sends a Goodbye to its peers."""
        self.nodes[name].call("stop", self.now)
        self._carry()
        self.nodes.pop(name).end()

    def kill(self, name: str) -> None:
        """End a node without a Goodbye."""
        self.nodes.pop(name).end()

    def close(self) -> None:
        """Drop all nodes."""
        for node in self.nodes.values():
            node.end()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            self._carry()
            due = min((node.due for node in self.nodes.values() if node.due is not None), default=end)
            if due >= end:
                break
            self.now = max(self.now, due)
            for node in self.nodes.values():
                if node.due is not None and node.due <= self.now:
                    node.call("handle_timeout", self.now)
        self.now = end

    def run_until_linked(self, timeout_s: float) -> float:
        """Let time pass until every node has links to all others; return how long that took, or infinity."""
        began = self.now
        while self.now - began <= timeout_s:
            if not self.missing_links():
                return self.now - began
            self.run(0.05)
        return float("inf")

    def missing_links(self) -> list[tuple[str, str]]:
        """Return each (node, peer) without a link that is up."""
        up = {name: self.peers_up(name) for name in self.nodes}
        return [(a, b) for a in self.nodes for b in self.nodes if a != b and b not in up[a]]

    def peers_up(self, name: str) -> list[str]:
        """Return the names of the peers to which a node has a link that is up."""
        return [peer for peer, _, is_up in self.nodes[name].call("links") if is_up]

    def join(self, group: Address) -> None:
        """Join a group on all nodes."""
        for node in self.nodes.values():
            node.call("join", group, self.now)

    def _carry(self) -> None:
        while pending := [(name, *node.sent.pop(0)) for name, node in self.nodes.items() if node.sent]:
            for sender, endpoint, data in pending:
                self._deliver(sender, endpoint, data)
            for node in list(self.nodes.values()):
                self._echo(node)

    def _echo(self, prober: Node) -> None:
        """Answer the probes of a node, as the stages do."""
        while prober.probed:
            node_id, endpoint = prober.probed.popitem()
            if endpoint in map(self.endpoint, self.nodes):
                prober.call("handle_echo", node_id, self.now)

    def _deliver(self, sender: str, endpoint: str, data: bytes) -> None:
        receiver = "n" + endpoint.removeprefix("192.0.2.").removesuffix(":4747")
        if receiver not in self.nodes or (sender, receiver) in self.lost:
            return
        protocol = protocol_of(data)
        connection = self._start_of[sender], self._start_of[receiver], protocol
        if self._opened.setdefault(connection, self.now + CONNECT_S) > self.now or connection in self._cut_off:
            return
        speaks = self.nodes[sender].speaks if protocol < SIGNED_PROTOCOL else 0
        hint = endpoint_host(self.endpoint(sender))
        reason = self.nodes[receiver].call("message", hint, data, self.now, speaks)
        if reason is not None:
            self._cut_off.add(connection)
            self.refusals.append((sender, receiver, str(reason)))


def endpoint_host(endpoint: str) -> str:
    """Return the address of an endpoint, as the driver knows it of a sender."""
    return endpoint.partition(":")[0]
