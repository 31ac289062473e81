"""Goal: nodes of different versions work together as far as they can, and say so where they cannot.

Method: a few OverlayNodes on virtual time, and a node of protocol 1 that is written out here.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline import limits, messages
from pipeline.address import parse
from pipeline.drop_reasons import MessageRefusal
from pipeline.messages import Header, Heartbeat, Hello, SealedMessage
from pipeline.overlay import records
from pipeline.overlay.events import Notice, NoticeKind, PeerChanged, ProbingChanged
from pipeline.overlay.members import OpenMembers
from pipeline.overlay.node import OverlayNode
from tests.unit.authority import certificate_of, certified_members
from tests.unit.overlay_net import Forger, Net, key_of, linked_peers

GROUP = parse("239.1.2.3")
SEED = "192.0.2.1:4747"
Pair = tuple[OverlayNode, OverlayNode]


def sealed_frames(net: Net, sender: OverlayNode, receiver: OverlayNode) -> list[tuple[bytes, SealedMessage]]:
    """Return the sealed messages that one node has sent to another, as bytes and decoded."""
    found = []
    for _, _, data in net.sent:
        frame = messages.decode_frame(data) if messages.protocol_of(data) == messages.SIGNED_PROTOCOL else None
        if isinstance(frame, SealedMessage):
            ids = frame.sender, frame.receiver
            if ids == (sender.record.node_id, receiver.record.node_id):
                found.append((data, frame))
    return found


def texts(net: Net, node: OverlayNode, kind: NoticeKind) -> list[str]:
    """Return the texts of a node's notices of one kind."""
    return [notice.text for notice in net.events_of(node, Notice) if notice.kind is kind]


def states_of(net: Net, node: OverlayNode, name: str) -> list[bool]:
    """Return the changes of the link to a peer."""
    return [event.is_up for event in net.events_of(node, PeerChanged) if event.record.name == name]


def test_gap_between_protocols_is_logged_on_both_sides(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: two versions that do not understand each other are one line in each log.
    Method: a node that speaks protocols 3 and 4 only."""
    a = net.add("a")
    with monkeypatch.context() as later:
        later.setattr(messages, "PROTOCOLS", (3, 4))
        n2 = net.add("n2", peers=(SEED,))
    net.run(20)
    assert linked_peers(a) == linked_peers(n2) == set()
    assert texts(net, a, NoticeKind.PROTOCOL) == ["n2 speaks protocol 3–4, a 1–2: upgrade a"]
    assert len(texts(net, n2, NoticeKind.PROTOCOL)) >= 1
    assert all("n2 speaks protocol 3–4, a 1–2: upgrade a" in each or "a speaks protocol 1–2, n2 3–4: upgrade a" in each
               for each in texts(net, n2, NoticeKind.PROTOCOL))  # fmt: skip
    assert not any(key_of("a") in data or key_of("n2") in data for _, _, data in net.sent)


def test_messages_of_a_later_version_are_ignored(net: Net, pair: Pair) -> None:
    """Goal: a node that is upgraded may send kinds and fields that this one does not know.
    Method: such messages, sealed by b; the link stays, and a known message with a further field has its effect."""
    a, b = pair
    forger = Forger.of(b)
    head = {"sender": b.record.node_id, "incarnation": 1, "endpoint": b.record.endpoint}
    for unknown in ({"type": "surprise", **head}, {"type": "surprise"}):
        content = [unknown, [], [b"", b""], "later"]
        assert a.handle_message("", forger.seal_bytes(a, msgspec.msgpack.encode(content)), net.now) is None
    net.pump()
    assert linked_peers(a) == {"b"}
    goodbye = {"type": "goodbye", **head, "number": 1 << 40, "why": "update"}
    assert (
        a.handle_message("", forger.seal_bytes(a, msgspec.msgpack.encode([goodbye, [], [b"", b""]])), net.now) is None
    )
    assert linked_peers(a) == set()


class OldNode:
    """A node of protocol 1: it answers a Hello with its own, and acknowledges."""

    def __init__(self, name: str = "old", endpoint: str = "192.0.2.50:4747", node_id: int = 50) -> None:
        self.record = records.unsigned(
            msgspec.structs.replace(Forger(name, at=endpoint).record, node_id=node_id, name=name)
        )
        self.head = Header(sender=node_id, incarnation=1, endpoint=endpoint)
        self.number = 0
        self.linked: set[str] = set()
        self.newer_protocols = 0
        """Messages that it did not understand."""

    def hello(self, **fields: Any) -> bytes:
        self.number += 1
        return messages.encode_unsigned(Hello(number=self.number, record=self.record, **self.head, **fields))

    def exchange(self, net: Net, node: OverlayNode, *, answers: bool = True) -> str | None:
        """Answer all that a node has to send, and its probes; return why it refuses an answer."""
        for _ in range(20):
            for event in iter(node.poll_event, None):
                if (
                    isinstance(event, ProbingChanged)
                    and event.record.node_id == self.record.node_id
                    and event.is_probed
                ):
                    node.handle_echo(self.record.node_id, net.now)
            net_sent = [data for to, data in iter(node.poll_transmit, None) if to == self.record.endpoint]
            if not net_sent:
                return None
            for data in net_sent:
                if messages.protocol_of(data) != messages.UNSIGNED_PROTOCOL:
                    self.newer_protocols += 1
                    continue
                message = messages.decode_unsigned(data)
                if isinstance(message, Hello | Heartbeat) and message.acked_stamp == self.record.stamp:
                    self.linked.add(node.record.name)
                if isinstance(message, Hello) and message.record is not None and answers:
                    reply = self.hello(acked_stamp=message.record.stamp, dialled_by_peer=message.dialled)
                    reason = node.handle_message(self.record.endpoint, reply, net.now)
                    if reason:
                        return reason
        raise AssertionError("messages without end")


def test_node_of_protocol_1_that_calls_is_linked(net: Net) -> None:
    """Goal: an upgraded node is reached by nodes of the previous version.  Method: such a node sends a Hello."""
    a, old = net.add("a"), OldNode()
    assert a.handle_message("", old.hello(dialled=SEED), net.now) is None
    assert old.exchange(net, a) is None
    assert (linked_peers(a), old.linked) == ({"old"}, {"a"})
    assert old.newer_protocols == 0, "it would cut this node off"


def test_node_of_protocol_1_that_is_called_is_linked(net: Net) -> None:
    """Goal: an upgraded node reaches nodes of the previous version.
    Method: such a node at the endpoint of a seed; it does not understand the first messages."""
    old = OldNode()
    a = net.add("a", peers=(old.record.endpoint,))
    for _ in range(10):
        net.now += 0.2
        a.handle_timeout(net.now)
        assert old.exchange(net, a) is None
    assert (linked_peers(a), old.linked) == ({"old"}, {"a"})


@pytest.mark.parametrize("network", ["accept_protocol_1 = false", "authority"])
def test_node_of_protocol_1_is_refused_where_identities_are_required(net: Net, network: str) -> None:
    """Goal: after the upgrade of all nodes, and in a network with an authority, the old protocol is closed.
    Method: such a node calls, and is called; it gets no message of protocol 1, and so no key."""
    rules = OpenMembers(accepts_unsigned=False) if network != "authority" else certified_members()
    old = OldNode()
    a = net.add("a", peers=(old.record.endpoint,), members=rules, certificate=certificate_of("a"))
    assert a.handle_message("", old.hello(dialled=SEED), net.now) == MessageRefusal.PROTOCOL_VERSION
    for _ in range(20):
        net.now += 0.5
        a.handle_timeout(net.now)
        while (transmit := a.poll_transmit()) is not None:
            assert messages.protocol_of(transmit[1]) == messages.SIGNED_PROTOCOL
            assert key_of("a") not in transmit[1]
    assert a.records() == []


@pytest.mark.parametrize("is_alive", [True, False], ids=["alive", "silent"])
def test_node_of_protocol_1_cannot_have_the_node_id_of_an_identity(net: Net, pair: Pair, is_alive: bool) -> None:
    """Goal: protocol 1 is no way around identities.
    Method: a node of protocol 1 with b's id and name, then with its name only, while b is linked or silent."""
    a, b = pair
    if not is_alive:
        net.cut = {b.record.endpoint}
        net.run(limits.LINK_TIMEOUT_S + 0.5)
    impostor = OldNode("b", node_id=b.record.node_id)
    assert a.handle_message("", impostor.hello(acked_stamp=a.record.stamp), net.now) == MessageRefusal.IDENTITY
    namesake = OldNode("b", node_id=51)
    a.handle_message("", namesake.hello(acked_stamp=a.record.stamp), net.now)
    net.run(1)
    net.cut = set()
    net.run(limits.LINK_TIMEOUT_S + 1)
    assert [link.node_id for link in a.links() if link.is_up and link.name == "b"] == [b.record.node_id]
    assert linked_peers(b) == {"a"}
    if is_alive:
        assert states_of(net, a, "b") == [True]


def test_both_nodes_without_a_common_protocol_give_one_notice(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: both operators read which node to upgrade.  Method: a node of a later version calls one of this version,
    which calls it too."""
    here = net.add("n1", peers=("192.0.2.2:4747",))
    monkeypatch.setattr(messages, "PROTOCOLS", (3, 4))
    there = net.add("n2", peers=("192.0.2.1:4747",))
    net.run(30.0)
    assert linked_peers(here) == linked_peers(there) == set()
    for node in (here, there):
        [notice] = net.events_of(node, Notice)
        assert notice.kind is NoticeKind.PROTOCOL
        assert notice.text.endswith("n2 speaks protocol 3–4, n1 1–2: upgrade n1")
