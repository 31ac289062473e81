"""Goal: in a network with an authority only nodes with a valid certificate get links and keys.

Method: a few OverlayNodes on virtual time, with certificates and revocation lists of an authority of the test.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline import limits, messages
from pipeline.address import parse
from pipeline.drop_reasons import MessageRefusal
from pipeline.messages import SealedMessage
from pipeline.overlay.certified_members import CertifiedMembers
from pipeline.overlay.events import Notice, NoticeKind, PeerChanged, RevocationsChanged
from pipeline.overlay.node import OverlayNode
from tests.unit.authority import AUTHORITY, NOW, STRANGER, certificate_of, certified_members, revocation_list
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


def certified_node(net: Net, name: str, *, certificate: bytes | None = None, **options: Any) -> OverlayNode:
    """Start a node of the authority's network."""
    held = certificate_of(name) if certificate is None else certificate
    given = {"members": certified_members()} | options
    return net.add(name, certificate=held, **given)


GRACE = limits.CERTIFICATE_GRACE_S
INVALID = {
    "none": b"",
    "expired": certificate_of("b", not_before=NOW - 3 * GRACE, not_after=NOW - 2 * GRACE),
    "not yet valid": certificate_of("b", not_before=NOW + 2 * GRACE, not_after=NOW + 3 * GRACE),
    "another authority": certificate_of("b", signer=STRANGER),
    "another node": certificate_of("c"),
    "malformed": certificate_of("b")[:-1] + b"\0",
}


@pytest.mark.parametrize("fault", INVALID)
def test_node_without_a_valid_certificate_gets_no_link_and_no_keys(net: Net, fault: str) -> None:
    """Goal: the network key alone makes no member, and both sides log the reason.
    Method: three members; a node with a certificate of each fault calls one of them, with rules that accept all."""
    nodes = [certified_node(net, "a"), *(certified_node(net, name, peers=(SEED,)) for name in "cd")]
    net.run(1)
    outsider = net.add("b", at="192.0.2.9:4747", certificate=INVALID[fault], peers=(SEED,))
    net.run(10)
    assert linked_peers(outsider) == set()
    for node in nodes:
        assert linked_peers(node) == {"a", "c", "d"} - {node.record.name}
        assert outsider.record.node_id not in {record.node_id for record in node.records()}
    assert len(texts(net, nodes[0], NoticeKind.CERTIFICATE)) == 1
    assert texts(net, outsider, NoticeKind.CERTIFICATE)[0].startswith(f"{SEED} refuses this node: ")
    opened = [opened_by(outsider, nodes, data) for _, to, data in net.sent if to == outsider.record.endpoint]
    assert any(opened)
    assert not any(key_of(node.record.name) in data for node in nodes for data in opened)


def opened_by(node: OverlayNode, senders: list[OverlayNode], data: bytes) -> bytes:
    """Return all that a node can read of a message, whatever it is."""
    frame = messages.decode_frame(data)
    if isinstance(frame, SealedMessage):
        sender = next((each for each in senders if each.record.node_id == frame.sender), None)
        content = sender and node._envelopes.open(node.record, sender.record, frame)
        return data + msgspec.msgpack.encode(content)
    return data


def test_keys_are_in_no_message_in_the_clear(net: Net) -> None:
    """Goal: whoever reads the control links, as with --insecure, learns no sender key.
    Method: nodes start, are linked, rotate keys, restart and end; each key is searched in all messages."""
    a = net.add("a")
    nodes = [net.add(name, peers=(SEED,)) for name in "bcd"]
    net.run(3)
    a.set_keys(net.now, sender_key=key_of("a"), second_epoch=1, second_key=key_of("next"))
    net.run(2)
    del net.nodes[nodes[0].record.endpoint]
    net.add("b", at=nodes[0].record.endpoint, incarnation=2, peers=(SEED,))
    net.run(3)
    for node in nodes[1:]:
        node.stop(net.now)
    net.pump()
    assert linked_peers(a) == {"b"}
    for name in ("a", "b", "c", "d", "next"):
        assert not any(key_of(name) in data for _, _, data in net.sent)


def test_revoked_node_loses_its_links_and_the_list_reaches_all(net: Net) -> None:
    """Goal: a revocation that reaches one node excludes the node everywhere, and touches no other link.
    Method: four members, one of which is cut off while another one is revoked, and returns later."""
    a = certified_node(net, "a")
    others = {name: certified_node(net, name, peers=(SEED,)) for name in "bcd"}
    net.run(2)
    net.cut = {others["d"].record.endpoint}
    net.run(limits.LINK_TIMEOUT_S + 1)
    revoked = revocation_list(1, "b")
    assert a.take_revocations(revoked, net.now) is None
    net.run(limits.LINK_TIMEOUT_S + 0.5)
    assert (linked_peers(a), linked_peers(others["c"])) == ({"c"}, {"a"})
    assert linked_peers(others["b"]) == set()
    assert "revoked" in texts(net, others["b"], NoticeKind.EXCLUDED)[0]
    net.cut = set()
    net.run(5)
    for name, node in (("a", a), ("c", others["c"]), ("d", others["d"])):
        assert linked_peers(node) == {"a", "c", "d"} - {name}
        assert [event.revocation_list for event in net.events_of(node, RevocationsChanged)] == [revoked]
        assert "b" not in {record.name for record in node.records()}
    assert states_of(net, a, "c") == [True]
    assert net.events_of(a, RevocationsChanged)[0].excluded == ("b",)
    sent = len(net.sent)
    net.run(5)
    frames = [data for _, to, data in net.sent[sent:] if to == others["b"].record.endpoint]
    assert not any(key_of(name) in opened_by(others["b"], [a, *others.values()], data)
                   for name in "acd" for data in frames)  # fmt: skip


def test_revoked_node_does_not_return_with_a_record_of_before(net: Net) -> None:
    """Goal: neither a report nor a restart brings a revoked node back.
    Method: another member reports its record, and it starts anew, with a newer incarnation."""
    a = certified_node(net, "a")
    b = certified_node(net, "b", peers=(SEED,))
    c = certified_node(net, "c", peers=(SEED,))
    net.run(2)
    record = b.record
    assert a.take_revocations(revocation_list(1, "b"), net.now) is None
    net.run(1)
    relay = Forger.of(c)
    relay.number = c._transmitter.number
    assert relay.report(a, record) is None
    del net.nodes[record.endpoint]
    again = certified_node(net, "b", at=record.endpoint, incarnation=5, peers=(SEED, c.record.endpoint))
    net.run(5)
    assert linked_peers(again) == set()
    assert linked_peers(a) == {"c"}


def test_forged_or_older_list_excludes_nobody(net: Net) -> None:
    """Goal: only the authority can exclude a node, and nobody can undo that.
    Method: a member sends lists of another authority, changed ones, and an older one."""
    a = certified_node(net, "a")
    b = certified_node(net, "b", peers=(SEED,))
    net.run(1)
    forger = Forger.of(b)
    newest = revocation_list(5, "c")
    assert forger.send(a, messages.Revocations(revocation_list=newest, **forger.header())) is None
    for forged, verdict in (
        (revocation_list(9, "b", signer=STRANGER), None),
        (revocation_list(4, "b"), None),
        (newest[:-1] + b"\0", MessageRefusal.REVOCATIONS_MALFORMED),
        (b"", None),
    ):
        assert forger.send(a, messages.Revocations(revocation_list=forged, **forger.header())) == verdict
    net.pump()
    assert linked_peers(a) == {"b"}
    assert [event.revocation_list for event in net.events_of(a, RevocationsChanged)] == [newest]


def test_renewed_certificate_reaches_all_without_a_restart(net: Net) -> None:
    """Goal: a certificate is renewed while streams run, and its old one may then expire.
    Method: a clock that passes the end of the first certificate; one node renews its own, the other does not."""
    clock = [float(NOW)]
    rules = [CertifiedMembers(AUTHORITY.public_key, clock=lambda: clock[0]) for _ in range(3)]
    a = certified_node(net, "a", certificate=certificate_of("a", not_after=NOW + 10 * GRACE), members=rules[0])
    b = certified_node(net, "b", peers=(SEED,), members=rules[1])
    c = certified_node(net, "c", peers=(SEED,), members=rules[2])
    net.run(1)
    b.set_certificate(certificate_of("b", serial=2, not_after=NOW + 10 * GRACE), net.now)
    net.run(1)
    clock[0] += 5 * GRACE
    for node in (a, b, c):
        node.exclude_objectionable(net.now)
    net.run(3)
    assert (linked_peers(a), linked_peers(b), linked_peers(c)) == ({"b"}, {"a"}, set())
    assert states_of(net, a, "b") == states_of(net, b, "a") == [True]
    c.set_certificate(certificate_of("c", serial=3, not_after=NOW + 10 * GRACE), net.now)
    net.run(5)
    assert linked_peers(a) == {"b", "c"}
    assert linked_peers(c) == {"a", "b"}
