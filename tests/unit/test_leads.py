"""Goal: reports of protocol 1 lead to nodes with identities, and cost little if they are forged.

Method: a node on virtual time, and messages of protocol 1 in the name of an old node.
"""

from __future__ import annotations

import collections

from pipeline import limits, messages
from pipeline.messages import DirectoryUpdate, Hello, NodeRecord
from pipeline.overlay.node import OverlayNode
from tests.unit.overlay_net import Net, key_of, linked_peers

OLD_AT = "192.0.2.77:4747"


def record_of(name: str, node_id: int, at: str) -> NodeRecord:
    return NodeRecord(
        node_id=node_id, name=name, incarnation=5, version=1, addresses=(), endpoint=at, lanes=1, key_epoch=0,
        sender_key=key_of(name), engine="mesh", explicit_addresses=False,
    )  # fmt: skip


OLD = record_of("old", 77, OLD_AT)
HEADER = messages.Header(sender=77, incarnation=5, endpoint=OLD_AT)


def link_old_node(net: Net, node: OverlayNode) -> None:
    """Link a node of protocol 1, which acknowledges the node's record and answers its probe."""
    hello = Hello(number=1, record=OLD, acked_stamp=node.record.stamp, **HEADER)
    assert node.handle_message("", messages.encode_unsigned(hello), net.now) is None
    node.handle_echo(OLD.node_id, net.now)
    assert "old" in linked_peers(node)


def report(net: Net, node: OverlayNode, *records: NodeRecord) -> None:
    update = DirectoryUpdate(records=list(records), **HEADER)
    assert node.handle_message("", messages.encode_unsigned(update), net.now) is None


def test_node_with_an_identity_is_found_by_the_report_of_an_old_node(net: Net) -> None:
    """Goal: two upgraded nodes that have only an old node in common find each other."""
    a, b = net.add("a"), net.add("b")
    link_old_node(net, a)
    report(net, a, record_of("b", 78, b.record.endpoint))
    net.run(2 * limits.LEAD_INTERVAL_S)
    assert {"b", "old"} >= linked_peers(a) >= {"b"}
    assert linked_peers(b) == {"a"}


def test_reported_endpoints_are_greeted_a_few_times_and_only_some_at_a_time(net: Net) -> None:
    """Goal: a report of many endpoints causes few messages.  Method: count what is sent to each of 100 endpoints."""
    node = net.add("a")
    link_old_node(net, node)
    report(net, node, *(record_of(f"x{number}", 100 + number, f"192.0.2.{100 + number}:4747") for number in range(100)))
    net.run(10.0)
    sent = collections.Counter(to for _, to, _ in net.sent if to != OLD_AT)
    assert len(sent) == limits.LEADS_MAX
    assert set(sent.values()) == {limits.LEAD_ATTEMPTS_MAX}


def test_report_of_protocol_1_changes_no_record(net: Net) -> None:
    """Goal: an old node cannot speak for others.  Method: it reports a record of an unknown node, and one of a peer."""
    a, b = net.add("a"), net.add("b", peers=("192.0.2.1:4747",))
    net.run(1.0)
    link_old_node(net, a)
    report(net, a, record_of("x", 99, "192.0.2.99:4747"), record_of("b", b.record.node_id, "192.0.2.98:4747"))
    net.run(1.0)
    assert {record.name: record.endpoint for record in a.records()} == {"old": OLD_AT, "b": b.record.endpoint}
