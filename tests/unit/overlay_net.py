"""A few OverlayNodes on virtual time; the test carries, loses or inspects their messages."""

from __future__ import annotations

import functools
import hashlib
import random
from typing import Any

import msgspec

from pipeline import messages
from pipeline.address import derive_node_id
from pipeline.keys.identity import Identity
from pipeline.messages import SIGNED_PROTOCOL, NodeRecord
from pipeline.overlay import records
from pipeline.overlay.envelopes import Envelopes
from pipeline.overlay.events import NodeEvent, Notice, NoticeKind, ProbingChanged
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig


def key_of(name: str) -> bytes:
    """Return a sender key from which a failing test shows the node."""
    return name.encode().ljust(32)


@functools.cache
def identity_of(name: str) -> Identity:
    """Return the identity that a node of this name has at each start."""
    return Identity(hashlib.blake2b(name.encode(), digest_size=32).digest())


def record(
    node: int, *, name: str = "", incarnation: int = 1, version: int = 1, host: str = "192.0.2.9", **fields: Any
) -> NodeRecord:
    """Return a record that counts as verified; its public key is that of the name, unless another one is given."""
    values = {"public_key": identity_of(name or f"n{node}").public_key, "signature": bytes(64)} | fields
    return NodeRecord(
        node_id=node,
        name=name or f"n{node}",
        incarnation=incarnation,
        version=version,
        addresses=(),
        endpoint=f"{host}:4747",
        lanes=1,
        key_epoch=0,
        sender_key=b"",
        engine="mesh",
        explicit_addresses=False,
        **values,
    )


class Forger:
    """A member with a modified program: it seals any message for a node, with its own identity or a copied one."""

    def __init__(
        self, name: str, *, at: str = "192.0.2.99:4747", incarnation: int = 1, is_sealing: bool = True, **fields: Any
    ) -> None:
        identity = identity_of(name)
        self.envelopes = Envelopes(identity)
        unsigned = NodeRecord(**{
            "node_id": derive_node_id(identity.public_key, 0), "name": name, "incarnation": incarnation, "version": 1,
            "addresses": (), "endpoint": at, "lanes": 1, "key_epoch": 0, "engine": "mesh", "explicit_addresses": False,
            "sender_key": key_of(name) if is_sealing else b"", "public_key": identity.public_key,
            "protocols": messages.PROTOCOLS, "is_sealing": is_sealing,
        } | fields)  # fmt: skip
        self.record = records.sign(unsigned, identity)
        self.number = 1 << 20

    @classmethod
    def of(cls, node: OverlayNode) -> Forger:
        """Return a forger that has stolen the identity of a node."""
        own = node.record
        forger = cls(own.name, at=own.endpoint, incarnation=own.incarnation)
        forger.record = own
        return forger

    def header(self) -> messages.Header:
        """Return the header of a message."""
        own = self.record
        return {"sender": own.node_id, "incarnation": own.incarnation, "endpoint": own.endpoint}

    def seal(self, node: OverlayNode, message: messages.AnyNodeMessage) -> bytes:
        """Return a message sealed for a node."""
        self.number += 1
        return self.envelopes.seal(self.record, node.record, self.number, message)

    def seal_bytes(self, node: OverlayNode, content: bytes) -> bytes:
        """Return any bytes sealed for a node in place of a content."""
        self.number += 1
        own, receiver = self.record, node.record
        header = own.node_id, own.incarnation, receiver.node_id, receiver.incarnation, self.number, own.endpoint
        key = self.envelopes._keys_with(own, receiver).send
        sealed = self.envelopes.signer.seal(key, content, msgspec.msgpack.encode(header))
        return messages.encode_frame(messages.SealedMessage(*header, sealed))

    def send(self, node: OverlayNode, message: messages.AnyNodeMessage, now: float = 0.0) -> str | None:
        """Send a sealed message to a node; return the reason for which it is refused."""
        return node.handle_message("", self.seal(node, message), now or node._now)

    def hello(self, node: OverlayNode, *, acked_stamp: Any = None, now: float = 0.0) -> str | None:
        """Send a Hello to a node."""
        stamp = acked_stamp or node.record.stamp
        hello = messages.Hello(number=self.number + 1, record=self.record, acked_stamp=stamp, **self.header())
        return self.send(node, hello, now)

    def greet(self, node: OverlayNode, *, hint: str = "", dialled: str = "") -> str | None:
        """Send a Greeting to a node."""
        return node.handle_message(hint, self.envelopes.greeting(self.record, dialled), node._now)

    def report(self, node: OverlayNode, *reported: NodeRecord) -> str | None:
        """Report records of other nodes to a node."""
        return self.send(node, messages.DirectoryUpdate(records=list(reported), **self.header()))


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
        self.silent: set[str] = set()
        """Endpoints that answer no probe."""

    def add(
        self, name: str, *, at: str | None = None, incarnation: int = 1, derive_id: Any = None, **options: Any
    ) -> OverlayNode:
        """Start a node."""
        endpoint = at or f"192.0.2.{len(self.nodes) + 1}:4747"
        given = {"identity": identity_of(name), "sender_key": key_of(name)} | options
        config = NodeConfig(name=name, endpoint=endpoint, incarnation=incarnation, **given)
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
                    if isinstance(event, ProbingChanged) and event.is_probed:
                        self._echo(node, event, endpoint)
                while (transmit := node.poll_transmit()) is not None:
                    is_busy = True
                    to, data = transmit
                    self.sent.append((endpoint, to, data))
                    if to in self.nodes and not {endpoint, to} & self.cut:
                        assert self.nodes[to].handle_message(endpoint, data, self.now, speaks=SIGNED_PROTOCOL) is None

    def _echo(self, prober: OverlayNode, event: ProbingChanged, endpoint: str) -> None:
        to = event.record.endpoint
        if to in self.nodes and to not in self.silent and not {endpoint, to} & self.cut:
            prober.handle_echo(event.record.node_id, self.now)

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
