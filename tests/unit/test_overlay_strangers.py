"""Goal: a link is up only after an echo of its data plane, and endpoints that no peer can have stand in no record.
Method: OverlayNodes on virtual time; forged messages by hand."""

from __future__ import annotations

import msgspec
import pytest

from pipeline import limits
from pipeline.messages import Heartbeat
from pipeline.overlay.events import NoticeKind, PeerChanged, ProbingChanged
from pipeline.overlay.node import OverlayNode
from tests.unit.overlay_net import Forger, Net, linked_peers

Pair = tuple[OverlayNode, OverlayNode]
STRANGER = "198.51.100.7:53"


def acknowledge(net: Net, node: OverlayNode, endpoint: str) -> Forger:
    """Send a Hello and a Heartbeat that acknowledge the node's record from a member with a forged endpoint."""
    forger = Forger("m", at=endpoint)
    assert forger.hello(node, now=net.now) is None
    head = forger.header()
    beat = Heartbeat(number=forger.number + 1, acked_stamp=node.record.stamp, directory_digest=b"", **head)
    assert forger.send(node, beat, net.now) is None
    return forger


def test_acknowledgements_alone_take_no_link_up(net: Net, pair: Pair) -> None:
    """Goal: a member that acknowledges for a stranger's endpoint gets no link up.
    Method: Hello and Heartbeat; an event asks for probes, and only an echo takes the link up."""
    node = pair[0]
    forger = acknowledge(net, node, STRANGER)
    net.pump()
    assert linked_peers(node) == {"b"}
    assert [event.is_probed for event in net.events_of(node, ProbingChanged)][-1]
    node.handle_echo(forger.record.node_id, net.now)
    assert linked_peers(node) == {"b", "m"}


def test_echo_without_a_session_takes_no_link_up(net: Net, pair: Pair) -> None:
    """Goal: an echo alone, or a late one, changes nothing.
    Method: echoes of an unknown node and of one that is down."""
    node, other = pair
    node.handle_echo(1234, net.now)
    other.stop(net.now)
    net.pump()
    assert linked_peers(node) == set()
    node.handle_echo(other.record.node_id, net.now)
    assert linked_peers(node) == set()


def test_probing_session_keeps_its_heartbeats_and_is_forgotten(net: Net) -> None:
    """Goal: a peer whose datagrams do not pass is neither up nor flapping.  Method: its endpoint answers no probe."""
    a = net.add("a")
    net.silent.add("192.0.2.2:4747")
    b = net.add("b", peers=("192.0.2.1:4747",))
    net.run(limits.ANSWER_EXPECTED_S + limits.HELLO_INTERVAL_S)
    assert net.notices(a) == [NoticeKind.NO_ECHO]
    assert (linked_peers(a), linked_peers(b)) == (set(), {"a"})
    assert [event.is_probed for event in net.events_of(a, ProbingChanged)] == [True]
    assert [event.is_up for event in net.events_of(b, PeerChanged)] == [True]


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:22", "[::1]:22", "[::ffff:127.0.0.1]:22", "255.255.255.255:9", "10.77.3.4:4747", "240.0.0.1:9"],
)
def test_endpoint_that_no_peer_can_have_is_refused(net: Net, pair: Pair, endpoint: str) -> None:
    """Goal: nothing is sent to this host's services, to a broadcast address or into the overlay.
    Method: such endpoints in a Hello, in a record of gossip and in a message of an unknown node."""
    node, other = pair
    forger, reported = acknowledge(net, node, endpoint), Forger("reported", at=endpoint)
    member = Forger("member")
    assert member.hello(node, now=net.now) is None
    assert member.report(node, reported.record) is None
    assert Forger("greeting", at=endpoint).greet(node) is None
    net.run(3)
    assert {record.name for record in node.records()} == {"b", "member"}
    assert endpoint not in [to for _, to, _ in net.sent]
    assert node.directory.refused_endpoints >= 3
    assert (linked_peers(other), forger.record.endpoint) == ({"a"}, endpoint)


def test_nodes_on_one_host_may_use_its_loopback(net: Net) -> None:
    """Goal: several nodes run on one host.  Method: two nodes on 127.0.0.1."""
    nodes = net.add("a", at="127.0.0.1:4747"), net.add("b", at="127.0.0.1:4748", peers=("127.0.0.1:4747",))
    net.run(2)
    assert [linked_peers(node) for node in nodes] == [{"b"}, {"a"}]
    record = msgspec.structs.replace(nodes[1].record, endpoint="127.0.0.1:5000")
    assert nodes[0].directory.admits_endpoint(record.endpoint, "127.0.0.1")
