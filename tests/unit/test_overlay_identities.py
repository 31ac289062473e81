"""Goal: no node can speak for another one, and a node that is not a member gets neither a link nor keys.

Method: a few nodes on virtual time; messages are captured, relayed, replayed and changed on the way, and a member with
a modified program uses an identity of its own or a copied one.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from pipeline import limits, messages
from pipeline.address import ANY_SOURCE, parse
from pipeline.drop_reasons import MessageRefusal
from pipeline.messages import Content, DirectoryUpdate, Goodbye, Greeting, Header, Heartbeat, Hello, SealedMessage
from pipeline.overlay import records
from pipeline.overlay.events import Notice, NoticeKind, PeerChanged, RecordChanged
from pipeline.overlay.members import OpenMembers
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig
from tests.unit.overlay_net import Forger, Net, identity_of, key_of, linked_peers

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


# ---- messages of others


def test_message_that_is_relayed_to_another_node_has_no_effect(net: Net) -> None:
    """Goal: a member cannot link two nodes, or take their link down, with messages for itself.
    Method: all messages of b for a are sent to c, which does not know b, and again after it does."""
    a = net.add("a")
    b = net.add("b", peers=(SEED,))
    net.run(2)
    b.stop(net.now)
    net.pump()
    captured = [data for data, _ in sealed_frames(net, b, a)]
    assert len(captured) > 3
    c = net.add("c")
    for data in captured:
        assert c.handle_message("", data, net.now) is None
    assert c.records() == []
    net.cut = {a.record.endpoint}
    again = net.add("b", at="192.0.2.2:4747", incarnation=2, peers=(c.record.endpoint,))
    net.run(2)
    assert linked_peers(c) == {"b"}
    for data in captured:
        assert c.handle_message("", data, net.now) is None
    net.run(2)
    assert states_of(net, c, "b") == states_of(net, again, "c") == [True]


def test_message_for_a_former_start_has_no_effect(net: Net, pair: Pair) -> None:
    """Goal: what was sent to a node before it restarted does not count afterwards.
    Method: all messages of the first start are sent again to the second one, those of its peer and its own ones."""
    a, b = pair
    net.run(2)
    old = [data for one, other in ((a, b), (b, a)) for data, _ in sealed_frames(net, one, other)]
    del net.nodes[b.record.endpoint]
    again = net.add("b", at=b.record.endpoint, incarnation=2, peers=(SEED,))
    for data in old:
        assert again.handle_message("", data, net.now) is None
    assert linked_peers(again) == set()
    net.run(1)
    for data in old:
        for node in (a, again):
            assert node.handle_message("", data, net.now) in {None, MessageRefusal.SEAL}
    net.run(2)
    assert (linked_peers(a), linked_peers(again)) == ({"b"}, {"a"})
    assert states_of(net, a, "b") == [True, False, True]
    assert again.record.incarnation == 2


def test_replayed_messages_have_no_effect(net: Net, pair: Pair) -> None:
    """Goal: a host on the way, or a member that has recorded a connection, changes nothing.
    Method: all messages of b, also a Goodbye that it has sent, arrive again after it was linked anew."""
    a, b = pair
    net.run(2)
    b.stop(net.now)
    net.pump()
    assert linked_peers(a) == set()
    net.run(3)
    assert linked_peers(a) == {"b"}, "b runs on, so it is linked again"
    captured = [data for data, _ in sealed_frames(net, b, a)]
    before, changes = a.record, len(net.events_of(a, PeerChanged))
    for data in captured:
        assert a.handle_message("192.0.2.66", data, net.now) is None
    assert a.receiver.replays == len(captured)
    assert a.record == before
    assert len(net.events_of(a, PeerChanged)) == changes
    net.cut = {b.record.endpoint}
    for _ in range(10):
        net.run(0.5)
        for data in captured:
            assert a.handle_message("192.0.2.66", data, net.now) is None
    assert linked_peers(a) == set(), "replays are no signs of life"


def test_replayed_hello_does_not_bring_back_an_old_record(net: Net, pair: Pair) -> None:
    """Goal: a node's former keys and endpoint do not return.  Method: its first Hello, after its keys have changed."""
    a, b = pair
    hellos = [data for data, frame in sealed_frames(net, b, a) if frame.record is not None]
    b.set_keys(net.now, sender_key=key_of("next"), key_epoch=1)
    net.run(2)
    for data in hellos:
        assert a.handle_message("192.0.2.66", data, net.now) is None
    assert a.records()[0].sender_key == key_of("next")
    net.run(2)
    assert states_of(net, a, "b") == [True]


@pytest.mark.parametrize("is_alive", [True, False], ids=["alive", "silent"])
@pytest.mark.parametrize("endpoint", ["192.0.2.2:4747", "0.0.0.0:4747"], ids=["own address", "wildcard"])
def test_greeting_that_is_replayed_from_another_address_moves_nothing(net: Net, endpoint: str, is_alive: bool) -> None:
    """Goal: whoever has seen a Greeting, which is not sealed, cannot move its node.
    Method: b's first Greeting is sent to a from another address, again and again, while b is linked or silent."""
    a = net.add("a")
    config = NodeConfig(
        name="b", endpoint=endpoint, incarnation=1, identity=identity_of("b"), sender_key=key_of("b"), peers=(SEED,)
    )
    b = net.put("192.0.2.2:4747", OverlayNode(config, random=random.Random(1).random, now=net.now))
    net.run(2)
    greeting = next(data for _, _, data in net.sent if isinstance(messages.decode_frame(data), Greeting))
    if not is_alive:
        net.cut = {"192.0.2.2:4747"}
        net.run(limits.LINK_TIMEOUT_S + 0.5)
    for _ in range(10):
        assert a.handle_message("192.0.2.66:4747", greeting, net.now) is None
        net.run(0.3)
        assert a.links()[0].endpoint == "192.0.2.2:4747"
    net.cut = set()
    net.run(limits.LINK_TIMEOUT_S + 1)
    assert (linked_peers(a), linked_peers(b)) == ({"b"}, {"a"})
    assert states_of(net, a, "b") == ([True] if is_alive else [True, False, True])


def test_number_of_replies_to_greetings_is_bounded(net: Net, pair: Pair) -> None:
    """Goal: Greetings, which anybody can repeat, do not make a node send without end.
    Method: a thousand at one time, of a known node and of messages for other nodes."""
    a, b = pair
    forger = Forger("m")
    greeting = forger.envelopes.greeting(forger.record, SEED)
    foreign = forger.seal(b, Goodbye(number=1, **forger.header()))
    before = len(net.sent)
    for data in (greeting, foreign):
        for _ in range(1000):
            assert a.handle_message("", data, net.now) is None
    net.pump()
    assert len(net.sent) - before <= limits.GREETINGS_PER_S + 10


# ---- records and keys of others


def test_hello_with_the_record_of_another_node_is_refused(net: Net, pair: Pair) -> None:
    """Goal: a record alone does not make its holder that node.
    Method: a member sends the record of b in a frame that it seals itself: as b, and with b's record as its own."""
    a, b = pair
    forger = Forger("m")
    stamp, own = a.record.stamp, forger.record
    forger.record = b.record
    forger.number = 1 << 21
    assert forger.hello(a) == MessageRefusal.SEAL
    forger.record = own
    hello = Hello(number=1, acked_stamp=stamp, **forger.header())
    frame = messages.decode_frame(forger.seal(a, hello))
    assert isinstance(frame, SealedMessage)
    swapped = msgspec.structs.replace(frame, record=records.on_wire(b.record, has_keys=False))
    assert a.handle_message("", messages.encode_frame(swapped), net.now) == MessageRefusal.MESSAGE_MALFORMED
    net.run(3)
    assert states_of(net, a, "b") == [True]
    assert [record.name for record in a.records()] == ["b"]


def test_keys_that_the_record_does_not_name_are_refused(net: Net, pair: Pair) -> None:
    """Goal: nobody can give a node other sender keys, so that its datagrams are not opened, or forged ones are.
    Method: other keys beside the record of b in a report, and beside the member's own record in its Hello."""
    a, b = pair
    forger = Forger("m")
    assert forger.hello(a) is None
    for keys in ({"sender_key": key_of("x")}, {"second_key": key_of("x")}):
        other = msgspec.structs.replace(b.record, **keys)
        assert forger.report(a, other) == MessageRefusal.RECORD_SIGNATURE
    content = Content(msgspec.Raw(messages.encode_message(Hello(number=1, **forger.header()))), [], (key_of("x"), b""))
    frame = messages.decode_frame(forger.seal_bytes(a, msgspec.msgpack.encode(content)))
    assert isinstance(frame, SealedMessage)
    frame = msgspec.structs.replace(frame, record=records.on_wire(forger.record, has_keys=False))
    assert a.handle_message("", messages.encode_frame(frame), net.now) == MessageRefusal.RECORD_SIGNATURE
    assert {record.name: record.sender_key for record in a.records()} == {"b": key_of("b"), "m": key_of("m")}


def test_message_in_the_name_of_another_member_is_malformed(net: Net, pair: Pair) -> None:
    """Goal: what is sealed by a member is from that member.  Method: it seals messages of b."""
    a, b = pair
    forger = Forger("m")
    assert forger.hello(a) is None
    head = Header(sender=b.record.node_id, incarnation=b.record.incarnation, endpoint=b.record.endpoint)
    for message in (
        Goodbye(number=1 << 40, **head),
        DirectoryUpdate(records=[], **head),
        Heartbeat(number=1 << 40, acked_stamp=None, directory_digest=b"", **head),
    ):
        assert forger.send(a, message) == MessageRefusal.MESSAGE_MALFORMED
    net.run(2)
    assert states_of(net, a, "b") == [True]


def test_liars_about_an_endpoint_do_not_keep_two_nodes_apart(net: Net) -> None:
    """Goal: a node that names no address is found at the address that an honest node reports, whatever many members
    report.  Method: more liars than a peer has places for endpoints report b at other addresses, before and after a
    does; then c, which only listens, and b, which has no peers left but c, are linked."""
    a = net.add("a")
    config = NodeConfig(
        name="b", endpoint="0.0.0.0:4747", incarnation=1, identity=identity_of("b"), sender_key=key_of("b"),
        peers=(SEED,),
    )  # fmt: skip
    b = net.put("192.0.2.2:4747", OverlayNode(config, random=random.Random(1).random, now=net.now))
    net.run(1)
    liars = [Forger(f"m{number}", at=f"192.0.2.{100 + number}:4747") for number in range(20)]
    c = net.add("c", at="192.0.2.3:4747")
    original = b.handle_message
    b.handle_message = lambda *_, **__: None  # type: ignore[method-assign]
    for number, liar in enumerate(liars):
        assert liar.hello(c) is None
        assert liar.report(c, msgspec.structs.replace(b.record, endpoint=f"192.0.2.{200 + number}:4747")) is None
    net.run(1)
    peer = next(each for each in c._peer_table.peers.values() if each.record.name == "b")
    assert len(peer._reported_endpoints) <= limits.REPORTED_ENDPOINTS_MAX
    honest = Forger.of(a)
    assert honest.hello(c) is None
    for liar in liars[:3]:
        assert liar.report(c, msgspec.structs.replace(b.record, endpoint="192.0.2.250:4747")) is None
    assert honest.report(c, msgspec.structs.replace(b.record, endpoint="192.0.2.2:4747")) is None
    b.handle_message = original  # type: ignore[method-assign]
    net.cut = {SEED}
    net.run(20)
    assert "b" in linked_peers(c)
    assert "c" in linked_peers(b)


@pytest.mark.parametrize("way", ["report", "greeting"])
def test_newer_record_that_others_forward_moves_no_node(net: Net, way: str) -> None:
    """Goal: a member that forwards a new record before its node does cannot direct that node's streams elsewhere.
    Method: a node on a wildcard address makes new versions; a member sends each of them to a first, with another
    endpoint, by report and from another address as a Greeting."""
    a = net.add("a")
    config = NodeConfig(
        name="b", endpoint="0.0.0.0:4747", incarnation=1, identity=identity_of("b"), sender_key=key_of("b"),
        peers=(SEED,),
    )  # fmt: skip
    b = net.put("192.0.2.2:4747", OverlayNode(config, random=random.Random(1).random, now=net.now))
    net.run(1)
    forger = Forger("m")
    assert forger.hello(a) is None
    for epoch in range(1, 6):
        b.set_keys(net.now, sender_key=key_of(str(epoch)), key_epoch=epoch)
        if way == "report":
            assert forger.report(a, msgspec.structs.replace(b.record, endpoint="192.0.2.66:4747")) is None
        else:
            greeting = forger.envelopes.greeting(b.record, "")
            assert a.handle_message("192.0.2.66:4747", greeting, net.now) is None
        net.now += 2 * limits.HELLO_INTERVAL_S
        for node in (a, b):
            node.handle_timeout(net.now)
        transmits = list(iter(a.poll_transmit, None))
        for endpoint, data in transmits:
            if endpoint == "192.0.2.2:4747":
                assert b.handle_message(SEED, data, net.now) is None, "b receives what a has sent before b's Hello"
        assert [link.endpoint for link in a.links() if link.name == "b"] == ["192.0.2.2:4747"]
        net.run(1)
    assert states_of(net, a, "b") == states_of(net, b, "a") == [True]
    assert next(each for each in a.records() if each.name == "b").sender_key == key_of("5")


# ---- clones, names, node ids


@pytest.mark.parametrize("incarnation", [1, 3], ids=["clock behind", "clock ahead"])
def test_clone_is_noticed_on_both_sides_and_the_later_one_gives_up(net: Net, incarnation: int) -> None:
    """Goal: a copied identity harms neither the older node nor its peers, and both operators learn of it.
    Method: the clone starts on another host while the older one is linked, with any clock."""
    a = net.add("a")
    older = net.add("b", at="192.0.2.2:4747", incarnation=2, peers=(SEED,))
    net.run(1)
    clone = net.add("b", at="192.0.2.3:4747", incarnation=incarnation, peers=(SEED,))
    net.run(limits.NAME_TAKEN_S + 3)
    assert texts(net, clone, NoticeKind.NAME_TAKEN) == [
        "the name b is in use by the node at 192.0.2.2:4747, with this node's identity: remove the copy of its file"
    ]
    assert NoticeKind.NAME_TAKEN not in net.notices(older)
    assert len(texts(net, a, NoticeKind.CLONE)) <= 1
    if incarnation > 2:
        assert "192.0.2.3:4747" in texts(net, older, NoticeKind.CLONE)[0]
    assert linked_peers(clone) == set()
    assert states_of(net, a, "b") == states_of(net, older, "a") == [True]


def lost_identity(net: Net, *, at: str, **options: Any) -> OverlayNode:
    """Start a node of the name b whose identity file was lost."""
    return net.add("b", at=at, identity=identity_of("new identity"), incarnation=9, **options)


def test_pinned_name_with_another_identity_is_refused_and_logged_on_both_sides(net: Net) -> None:
    """Goal: nobody takes the name of a node that is away, and both logs name the remedy.
    Method: b ends; a node with its name and another identity starts at its address."""
    a = net.add("a")
    b = net.add("b", at="192.0.2.2:4747", peers=(SEED,))
    net.run(1)
    del net.nodes[b.record.endpoint]
    net.run(limits.LINK_TIMEOUT_S + 1)
    other = lost_identity(net, at="192.0.2.2:4747", peers=(SEED,))
    net.run(limits.NAME_TAKEN_S + 3)
    assert linked_peers(a) == linked_peers(other) == set()
    (text,) = texts(net, a, NoticeKind.NAME_PINNED)
    assert text.startswith("b at 192.0.2.2:4747 has another identity than before and is refused")
    assert text.endswith("if it should, run pipeline identity forget b")
    for kind in (NoticeKind.NAME_PINNED, NoticeKind.NAME_TAKEN):
        assert "run there: pipeline identity forget b" in texts(net, other, kind)[0]
    assert not any(key_of("a") in data for _, _, data in net.sent)


def test_forget_moves_a_pin(net: Net) -> None:
    """Goal: the operator's command gives the name to the new identity, and takes it from the old one.
    Method: the node that was refused is linked after `forget`; then the former one returns."""
    members = OpenMembers()
    a = net.add("a", members=members)
    b = net.add("b", at="192.0.2.2:4747", peers=(SEED,))
    net.run(1)
    del net.nodes[b.record.endpoint]
    net.run(limits.LINK_TIMEOUT_S + 1)
    other = lost_identity(net, at="192.0.2.3:4747", peers=(SEED,))
    net.run(3)
    assert linked_peers(a) == set()
    assert members.forget("b")
    net.run(3)
    assert (linked_peers(a), linked_peers(other)) == ({"b"}, {"a"})
    del net.nodes[other.record.endpoint]
    net.run(limits.LINK_TIMEOUT_S + 1)
    again = net.add("b", at="192.0.2.2:4747", incarnation=10, peers=(SEED,))
    net.run(3)
    assert linked_peers(a) == linked_peers(again) == set()


def test_name_of_a_live_node_is_in_use_rather_than_pinned(net: Net) -> None:
    """Goal: the operator of a second host with a name is not told to remove the identity of the first one.
    Method: a namesake starts while the pinned node is linked."""
    a = net.add("a")
    b = net.add("b", at="192.0.2.2:4747", peers=(SEED,))
    net.run(1)
    other = lost_identity(net, at="192.0.2.3:4747", peers=(SEED,))
    net.run(limits.NAME_TAKEN_S + 3)
    assert texts(net, other, NoticeKind.NAME_TAKEN) == [
        "the name b is in use by the node at 192.0.2.2:4747: choose another --name"
    ]
    assert "give it another --name" in texts(net, a, NoticeKind.NAMESAKE)[0]
    assert NoticeKind.NAME_PINNED not in net.notices(other) + net.notices(a)
    assert states_of(net, a, "b") == states_of(net, b, "a") == [True]


def test_identity_with_the_node_id_of_a_live_node_takes_no_link_down(
    net: Net, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a member that has searched for a key with another node's id does not replace that node at its peers.
    Method: a derivation in which a member's identity has the id of b; it sends Greetings and Hellos to a."""
    a, b = pair
    node_id, forger = b.record.node_id, Forger("m")
    monkeypatch.setattr("pipeline.overlay.records.derive_node_id", lambda key, _: {b.record.public_key: node_id}.get(
        key, a.record.node_id if key == a.record.public_key else node_id))  # fmt: skip
    forger = Forger("m", node_id=node_id, incarnation=9)
    for _ in range(5):
        assert forger.greet(a) is None
        assert forger.hello(a) is None
        net.run(0.5)
    held = next(record for record in a.records() if record.node_id == node_id)
    assert held.public_key == b.record.public_key
    assert states_of(net, a, "b") == states_of(net, b, "a") == [True]


# ---- a change of the network key


@pytest.mark.parametrize("is_restarted", [False, True], ids=["reloaded", "restarted"])
def test_excluded_node_is_linked_when_it_has_moved_to_the_new_key(net: Net, pair: Pair, is_restarted: bool) -> None:
    """Goal: a node that moves later than its peers is linked from then on.
    Method: b has not proved to have the new key when a ends the old one; it moves by a reload, or by a restart."""
    a, b = pair
    net.cut = {b.record.endpoint}
    assert a.exclude_older(2, net.now) == ["b"]
    net.run(limits.LINK_TIMEOUT_S + 1)
    assert a.records() == []
    net.cut = set()
    if is_restarted:
        del net.nodes[b.record.endpoint]
        b = net.add("b", at=b.record.endpoint, incarnation=2, peers=(SEED,))
    net.run(10)
    assert (linked_peers(a), linked_peers(b)) == ({"b"}, {"a"})
    b.join(GROUP, ANY_SOURCE, net.now)
    net.run(1)
    assert a.members(GROUP) == ["b"]


# ---- a restored host


def test_restored_node_is_linked_again_with_new_keys(net: Net, pair: Pair) -> None:
    """Goal: no number of before a restore is used again with the same key, and all links come back.
    Method: a linked node begins another incarnation; what it had sealed before has no effect any more."""
    a, b = pair
    before, probe_keys = b.record, net.events_of(a, RecordChanged)[-1].probe_keys
    net.sent.clear()
    net.run(6)
    captured = [data for _, to, data in net.sent if to == a.record.endpoint]
    b.begin_incarnation(before.incarnation + 7, key_of("restored"), net.now)
    net.run(1)
    assert (linked_peers(a), linked_peers(b)) == ({"b"}, {"a"})
    held = a.records()[0]
    assert (held.incarnation, held.sender_key) == (before.incarnation + 7, key_of("restored"))
    assert held.key_epoch == before.key_epoch + 1
    assert net.events_of(a, RecordChanged)[-1].probe_keys != probe_keys
    assert captured, "b has sent heartbeats"
    for data in captured:
        a.handle_message(b.record.endpoint, data, net.now)
    assert a.records()[0] == held
    assert linked_peers(a) == {"b"}
