"""Goal: a member that forges messages about itself, others or the receiver harms no other node.

Method: two honest nodes are linked; a third member has a modified program, an identity of its own and whatever it has
received before.  Afterwards the link is up, the other node still accepts the victim's messages, and the state kept of
forged messages is bounded.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline import limits, messages
from pipeline.address import ANY_SOURCE, Address, derive_node_id, parse
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import EngineContext, LinkState, Transmit
from pipeline.engines.nemo import messages as nemo_messages
from pipeline.engines.nemo.engine import Nemo
from pipeline.engines.replica import Advert, MemoryBudget, Pull, Replica, ReplicaSource, Update
from pipeline.messages import (
    DirectoryUpdate,
    EngineMessage,
    Goodbye,
    Header,
    Heartbeat,
    Hello,
    NodeRecord,
    Refusal,
    RefusalReason,
)
from pipeline.overlay import records
from pipeline.overlay.events import NodeIdMoved, Notice, NoticeKind, PeerChanged, RecordGone
from pipeline.overlay.node import OverlayNode
from tests.unit.overlay_net import Forger, Net, identity_of, key_of, linked_peers

GROUP = parse("239.1.2.3")
HUGE = (1 << 63) - 1
AT = "192.0.2.99:4747"
Pair = tuple[OverlayNode, OverlayNode]


def member(*nodes: OverlayNode) -> Forger:
    """Return a forger that is a peer of these nodes."""
    forger = Forger("m", at=AT)
    for node in nodes:
        assert forger.hello(node) is None
    return forger


def send_unsigned(node: OverlayNode, message: messages.AnyNodeMessage) -> str | None:
    """Send a message of protocol 1."""
    return node.handle_message("192.0.2.99", messages.encode_unsigned(message), node._now)


def changed(node: OverlayNode, **changes: Any) -> NodeRecord:
    """Return the record of a node with changes, which the node itself has signed: its identity is stolen."""
    return records.sign(msgspec.structs.replace(node.record, **changes), identity_of(node.record.name))


def invented(number: int, **changes: Any) -> NodeRecord:
    """Return the record of a node that does not exist, signed with an identity of its own."""
    return Forger(f"invented{number}", at=f"10.99.9.9:{number}", **changes).record


def states_of(net: Net, node: OverlayNode, name: str) -> list[bool]:
    """Return the changes of the link to a peer."""
    return [event.is_up for event in net.events_of(node, PeerChanged) if event.record.name == name]


def assert_still_linked(net: Net, a: OverlayNode, b: OverlayNode) -> None:
    net.run(5)
    assert (linked_peers(a), linked_peers(b)) == ({"b"}, {"a"})
    b.join(GROUP, ANY_SOURCE, net.now)
    net.run(1)
    assert a.members(GROUP) == ["b"]


# ---- records of the receiver


@pytest.mark.parametrize("field", ["version", "incarnation"])
@pytest.mark.parametrize("value", [HUGE, limits.INCARNATION_MAX, limits.INCARNATION_MAX - 1])
def test_counts_of_a_stolen_identity_do_not_make_the_own_record_overflow(
    net: Net, pair: Pair, field: str, value: int
) -> None:
    """Goal: the victim can still make a next version that others decode, and causes no messages without end.
    Method: its record with counts near the end of their range, signed with its identity, to it and to its peer."""
    a, b = pair
    forger = member(a, b)
    for node in (a, b):
        forger.report(node, changed(a, **{field: value}))
    before = len(net.sent)
    net.run(30)
    assert len(net.sent) - before < 1000
    a.set_keys(net.now, sender_key=key_of("next"))
    own = a.record
    assert records.verify(records.on_wire(own, has_keys=False), identity_of("c")) is not None, own


FORGED: list[dict[str, Any]] = [
    {"incarnation": limits.INCARNATION_MAX, "version": HUGE},
    {"incarnation": limits.INCARNATION_MAX - 1},
    {"incarnation": 2},
    {"version": HUGE},
    {"name": "A"},
    {"name": "A", "endpoint": AT},
    {"incarnation": 2, "endpoint": AT},
]
"""Changes of a node's record that a member may report; "A" is a smaller name than any of the nodes has."""
WAYS = ["altered", "signed by another", "other identity", "protocol 1"]


def send_forged(forger: Forger, node: OverlayNode, victim: OverlayNode, changes: dict[str, Any], way: str) -> None:
    """Report a changed record of a node in one of WAYS."""
    record = msgspec.structs.replace(victim.record, **changes)
    signed = records.sign(record, identity_of("m"))
    match way:
        case "altered":
            altered = msgspec.structs.replace(signed, signature=victim.record.signature)
            assert forger.report(node, altered) == MessageRefusal.RECORD_SIGNATURE
        case "signed by another":
            assert forger.report(node, signed) == MessageRefusal.RECORD_SIGNATURE
        case "other identity":
            other = identity_of("second identity of m")
            namesake = msgspec.structs.replace(record, public_key=other.public_key)
            assert forger.report(node, records.sign(namesake, other)) is None
        case _:
            head = Header(sender=99, incarnation=1, endpoint=AT)
            assert send_unsigned(node, DirectoryUpdate(records=[records.unsigned(record)], **head)) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", ["peer", "subject"])
@pytest.mark.parametrize("changes", FORGED, ids=str)
def test_forged_report_about_a_live_node_takes_no_link_down(
    net: Net, pair: Pair, changes: dict[str, Any], target: str, way: str
) -> None:
    """Goal: a member's report removes no node that is alive, not even for a moment.
    Method: the record of b with one change, sent twenty times to its peer or to b itself."""
    a, b = pair
    forger = member(a, b)
    for _ in range(20):
        send_forged(forger, a if target == "peer" else b, b, changes, way)
        net.run(0.3)
    assert_still_linked(net, a, b)
    for node, peer in ((a, "b"), (b, "a")):
        assert states_of(net, node, peer) == [True]
        assert net.events_of(node, NodeIdMoved) == []
    held = next(each for each in a.records() if each.node_id == b.record.node_id)
    assert held.endpoint == b.record.endpoint


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("changes", FORGED, ids=str)
def test_forged_report_about_a_silent_node_does_not_keep_it_out(
    net: Net, pair: Pair, changes: dict[str, Any], way: str
) -> None:
    """Goal: a node that comes back is linked at once, whatever a member has reported about it.
    Method: b is cut off and times out; a receives the forged record; b comes back, and then restarts."""
    a, b = pair
    net.cut = {b.record.endpoint}
    net.run(limits.LINK_TIMEOUT_S + 0.5)
    assert linked_peers(a) == set()
    send_forged(member(a), a, b, changes, way)
    net.run(1)
    net.cut = set()
    net.run(limits.LINK_TIMEOUT_S)
    assert_still_linked(net, a, b)
    del net.nodes[b.record.endpoint]
    again = net.add("b", at=b.record.endpoint, incarnation=3, peers=(a.record.endpoint,))
    net.run(0.5)
    assert (linked_peers(a), linked_peers(again)) == ({"b"}, {"a"})


@pytest.mark.parametrize("is_alive", [True, False], ids=["alive", "silent"])
def test_old_record_that_a_member_has_kept_changes_nothing(net: Net, pair: Pair, is_alive: bool) -> None:
    """Goal: a record that its node has replaced does not return.
    Method: a member reports the first record of b, whose keys and endpoint were changed since."""
    a, b = pair
    old = b.record
    b.set_keys(net.now, sender_key=key_of("next"), key_epoch=1)
    net.run(1)
    if not is_alive:
        net.cut = {b.record.endpoint}
        net.run(limits.LINK_TIMEOUT_S + 0.5)
    forger = member(a)
    for _ in range(5):
        assert forger.report(a, old) is None
        net.run(0.3)
    held = next(each for each in a.records() if each.name == "b")
    assert (held.sender_key, held.version) == (key_of("next"), b.record.version)
    net.cut = set()
    assert_still_linked(net, a, b)


@pytest.mark.parametrize("kind", ["Hello", "Heartbeat", "Goodbye", "DirectoryUpdate"])
@pytest.mark.parametrize("target", ["peer", "subject"])
def test_message_of_protocol_1_in_the_name_of_a_node_with_an_identity_is_refused(
    net: Net, pair: Pair, kind: str, target: str
) -> None:
    """Goal: a program with the network key cannot speak for a node that has an identity.
    Method: messages of protocol 1 with b's id, incarnation and record, to its peer and to b itself."""
    a, b = pair
    head = Header(sender=b.record.node_id, incarnation=b.record.incarnation, endpoint=AT)
    stamp = a.record.stamp
    message: messages.AnyNodeMessage = {
        "Hello": Hello(number=HUGE, record=records.unsigned(b.record), acked_stamp=stamp, **head),
        "Heartbeat": Heartbeat(number=HUGE, acked_stamp=stamp, directory_digest=b"", **head),
        "Goodbye": Goodbye(number=HUGE, **head),
        "DirectoryUpdate": DirectoryUpdate(records=[records.unsigned(invented(7))], **head),
    }[kind]
    assert send_unsigned(a if target == "peer" else b, message) == MessageRefusal.IDENTITY
    assert_still_linked(net, a, b)
    assert states_of(net, a, "b") == states_of(net, b, "a") == [True]
    assert [record.name for record in a.records()] == ["b"]


def test_node_id_is_kept_when_forged_records_hold_all_others(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a node that has no link yet survives nodes with its id.
    Method: a derivation in which each of many identities with a smaller key has the present id of the node; more of
    them than there are attempts send a Hello."""
    greatest = max("abcdefgh", key=lambda name: identity_of(name).public_key)
    own_key = identity_of(greatest).public_key
    ids: dict[tuple[bytes, int], int] = {}

    def derive_id(public_key: bytes, attempt: int) -> int:
        return ids.get((public_key, attempt)) or derive_node_id(public_key, attempt)

    monkeypatch.setattr("pipeline.overlay.records.derive_node_id", derive_id)
    a = net.add(greatest, at="192.0.2.1:4747", derive_id=derive_id)
    names = (f"m{number}" for number in range(1000))
    smaller = (name for name in names if identity_of(name).public_key < own_key)
    for number in range(2 * limits.NODE_ID_ATTEMPTS_MAX):
        name, node_id = next(smaller), a.record.node_id
        ids[identity_of(name).public_key, 0] = node_id
        forger = Forger(name, at=f"192.0.2.99:{number + 1}", node_id=node_id)
        assert forger.send(a, Hello(number=1, record=forger.record, **forger.header())) is None
    assert a.record.id_attempt == limits.NODE_ID_ATTEMPTS_MAX - 1
    net.add("z", peers=(a.record.endpoint,))
    net.run(5)
    assert "z" in linked_peers(a)


def test_acknowledgement_of_a_version_never_sent_is_not_followed(net: Net, pair: Pair) -> None:
    """Goal: a node does not raise its version to a forged one.
    Method: a Heartbeat with a huge acknowledged version."""
    a, b = pair
    forged = (a.record.incarnation, HUGE)
    for forger in (member(a), Forger.of(b)):
        head = forger.header()
        assert forger.send(a, Heartbeat(number=HUGE - 1, acked_stamp=forged, directory_digest=b"", **head)) is None
        assert a.record.version < limits.RESTORE_STEP
        assert forger.send(a, Heartbeat(number=0, acked_stamp=a.record.stamp, directory_digest=b"", **head)) is None


def test_reported_older_namesake_does_not_stop_a_linked_node(net: Net, pair: Pair) -> None:
    """Goal: only a node without links gives up its name.
    Method: an older record of it, from another address, is reported for long, and sent with refusals of each kind."""
    a, b = pair
    older = changed(a, incarnation=0, endpoint=AT)
    forger = member(a, b)
    for _ in range(20):
        forger.report(a, older)
        for reason in RefusalReason:
            refusal = Refusal(reason=reason, detail="none", records=[older], **forger.header())
            assert forger.send(a, refusal) is None
        net.run(limits.NAME_TAKEN_S / 10)
    assert NoticeKind.NAME_TAKEN not in net.notices(a)
    assert_still_linked(net, a, b)
    assert states_of(net, a, "b") == [True]


# ---- records of the sender and of others


@pytest.mark.parametrize("is_direct", [True, False], ids=["own Hello", "report"])
@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a\nready name=x"},
        {"name": "\x1b[2J"},
        {"name": "x\n"},
        {"engine": "\x1b]0;x\x07"},
        {"endpoint": "attacker.example:80"},
        {"endpoint": "192.0.2.1"},
        {"endpoint": "192.0.2.1:0"},
        {"endpoint": "192.0.2.1:4747;192.0.2.2:1"},
        {"endpoint": "[192.0.2.1]:1"},
        {"endpoint": "224.0.0.1:4747"},
        {"endpoint": ""},
        {"sender_key": b"short"},
        {"sender_key": bytes(33)},
        {"second_epoch": 1, "second_key": b"short"},
        {"second_epoch": 1, "second_key": bytes(33)},
        {"second_key": key_of("x")},
        {"addresses": ((parse("224.0.0.1"), 32),)},
        {"addresses": ((parse("127.0.0.1"), 8),)},
        {"addresses": ((parse("255.255.255.255"), 32),)},
        {"incarnation": HUGE},
        {"lanes": 0},
        {"lanes": limits.LANES_MAX + 1},
        {"protocols": (0, 2)},
        {"id_attempt": limits.NODE_ID_ATTEMPTS_MAX},
    ],
)
def test_record_that_no_node_makes_is_malformed(net: Net, pair: Pair, changes: dict[str, Any], is_direct: bool) -> None:
    """Goal: names are printable, endpoints numeric, keys and addresses valid.
    Method: records with one fault each, well signed, from their own node and from another one."""
    a, b = pair
    faulty = Forger("faulty", at="10.99.9.9:7")
    faulty.record = records.sign(msgspec.structs.replace(faulty.record, **changes), identity_of("faulty"))
    forger = member(a)
    verdict = faulty.hello(a) if is_direct else forger.report(a, faulty.record)
    assert verdict in {MessageRefusal.MESSAGE_MALFORMED, MessageRefusal.RECORD_SIGNATURE}
    assert {record.name for record in a.records()} == {"b", "m"}
    assert_still_linked(net, a, b)


def test_record_without_a_key_is_refused_where_datagrams_are_sealed(net: Net, pair: Pair) -> None:
    """Goal: no host of the underlay can send in the name of a node.
    Method: records without key: by report, in a Hello and a Greeting of protocol 2, and in a Hello of protocol 1."""
    a, b = pair
    open_node = Forger("open", at="192.0.2.7:1", is_sealing=False)
    assert member(a).report(a, open_node.record) == MessageRefusal.RECORD_UNSEALED
    assert open_node.hello(a) == MessageRefusal.RECORD_UNSEALED
    assert open_node.greet(a) == MessageRefusal.RECORD_UNSEALED
    unsigned = records.unsigned(open_node.record)
    hello = Hello(number=1, record=unsigned, **open_node.header())
    assert send_unsigned(a, hello) == MessageRefusal.RECORD_UNSEALED
    assert {record.name: record.sender_key for record in a.records()} == {"b": key_of("b"), "m": key_of("m")}
    assert_still_linked(net, a, b)


def test_reported_record_without_its_keys_is_not_taken(net: Net, pair: Pair) -> None:
    """Goal: a member that withholds the keys of a record does not add a node whose datagrams cannot be opened.
    Method: a Greeting's record, which has no keys, is reported."""
    a, b = pair
    bare = msgspec.structs.replace(Forger("quiet", at="192.0.2.7:1").record, sender_key=b"")
    assert member(a).report(a, bare) is None
    assert {record.name for record in a.records()} == {"b", "m"}
    assert_still_linked(net, a, b)


@pytest.fixture
def small_overlay(monkeypatch: pytest.MonkeyPatch) -> int:
    """Lower the bound on nodes; returns it."""
    monkeypatch.setattr(limits, "NODES_MAX", 50)
    return limits.NODES_MAX


def test_node_that_sends_for_itself_gets_a_place_in_a_full_directory(net: Net, pair: Pair, small_overlay: int) -> None:
    """Goal: invented nodes keep no real one out.  Method: a directory is filled with them, then a node starts."""
    a, b = pair
    invention = [invented(1000 + number) for number in range(small_overlay + 20)]
    assert member(a).report(a, *invention) is None
    assert len(a.records()) == small_overlay
    c = net.add("c", peers=(a.record.endpoint,))
    net.run(1)
    assert "c" in linked_peers(a)
    assert "a" in linked_peers(c)
    assert len(a.records()) == small_overlay
    assert len(net.events_of(a, RecordGone)) >= 1
    assert b.record.name in linked_peers(a)


def test_notices_about_invented_nodes_are_bounded(net: Net, pair: Pair, small_overlay: int) -> None:
    """Goal: the log does not grow with invented nodes.  Method: three series of 40 nodes."""
    a, _ = pair
    for number in range(3):
        net.run(limits.NODE_FORGET_S + 1)
        invention = [invented(1000 + number * 1000 + each, engine=f"e{each}") for each in range(40)]
        assert member(a).report(a, *invention) is None
    net.pump()
    assert 40 < len(net.events_of(a, Notice)) <= small_overlay


# ---- replicated maps


def test_weight_of_replicas_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: long values count, small entries still fit, and one replica does not use the whole budget."""
    monkeypatch.setattr(limits, "REPLICA_WEIGHT_MAX", 1000)
    monkeypatch.setattr(limits, "REPLICAS_WEIGHT_MAX", 1500)
    budget = MemoryBudget()
    replicas = [Replica(budget), Replica(budget)]
    for replica in replicas:
        for number in range(100):
            replica.apply(Update(number, number + 1, 0, 0, [(b"%d" % number, bytes(400))]))
    assert [replica.weight for replica in replicas] == [909, 505]
    assert budget.left == 1500 - 909 - 505
    assert all(replica.is_short for replica in replicas)
    replicas[0].discard()
    replicas[1].apply(Update(100, 101, 0, 0, [(b"more", bytes(400))]))
    assert replicas[1].weight == 606
    assert not replicas[1].differs(Advert(101, 12345)), "an entry over the budget is not requested again and again"


def test_pull_beyond_all_versions_is_answered_but_not_followed() -> None:
    """Goal: a forged version does not change the source.  Method: a pull with a huge version."""
    source, replica = ReplicaSource(), Replica()
    source.set(b"key", b"value")
    parts = source.updates(Pull(HUGE, 0, anew=False))
    assert source.version == 1
    replica.apply(parts[0])
    assert replica.entries == {b"key": b"value"}


def test_forged_update_is_corrected_by_the_next_adverts() -> None:
    """Goal: a replica with versions that its owner does not have starts anew.  Method: two rounds of adverts."""
    source, replica = ReplicaSource(), Replica()
    source.set(b"key", b"value")
    replica.apply(Update(0, HUGE, 0, 0, [(b"forged", b"")]))
    for _ in range(2):
        if replica.differs(source.advert()):
            for update in source.updates(replica.pull()):
                replica.apply(update)
    assert replica.entries == {b"key": b"value"}


def test_list_of_sources_is_bounded(net: Net, pair: Pair) -> None:
    """Goal: a filter above the bound of sources is malformed.  Method: the bound, and one source more."""
    a, b = pair
    sources: list[Address] = [number.to_bytes(4) for number in range(limits.SOURCES_PER_GROUP_MAX + 1)]
    for count, verdict in ((limits.SOURCES_PER_GROUP_MAX, None), (limits.SOURCES_PER_GROUP_MAX + 1, "mesh_malformed")):
        value = b"\0" + b"".join(sources[:count])
        version = 1000 + count
        body = msgspec.msgpack.encode(Update(0, version, 0, 0, [(b"M" + GROUP, value)]))
        forger = Forger.of(b)
        forger.number += count
        assert forger.send(a, EngineMessage(engine="mesh", body=body, **forger.header())) == verdict


# ---- nemo


def test_nemo_keeps_a_bounded_number_of_sources_and_groups(monkeypatch: pytest.MonkeyPatch, small_overlay: int) -> None:
    """Goal: sources and groups that a member invents are bounded.  Method: 200 of each."""
    monkeypatch.setattr(limits, "GROUPS_MAX", 100)
    engine = Nemo(EngineContext(node_id=1, random=lambda: 0.5), 0.0)
    engine.join(GROUP, ANY_SOURCE, 0.0)
    for number in range(200):
        source = nemo_messages.encode(nemo_messages.Source(GROUP, 1000 + number, 1))
        assert engine.handle_message(7, source, 0.1) is None
        other = bytes([239, 9, number >> 8, number & 0xFF])
        assert engine.handle_message(7, nemo_messages.encode(nemo_messages.RootQuery(other, 0, 0, 0)), 0.1) is None
    assert len(list(engine.nodes())) == small_overlay + 1, "the sources and the rendezvous"
    assert len(engine._rendezvous._roots) == 100


def test_nemo_ignores_a_view_beyond_all_versions() -> None:
    """Goal: a leader can still make a next view that others decode.  Method: views with versions out of range."""
    engine = Nemo(EngineContext(node_id=1, random=lambda: 0.5), 0.0)
    engine.handle_link(7, LinkState.UP, 0.0)
    engine.join(GROUP, ANY_SOURCE, 0.0)
    for version in ((1 << 62) - 1, nemo_messages.VERSION_SANE + 1):
        view = nemo_messages.View(GROUP, 0, version, 1, {1: (), 7: ()}, (1,), ())
        assert engine.handle_message(7, nemo_messages.encode(view), 0.1) is None
    engine.handle_timeout(5.0)
    while (output := engine.poll_output()) is not None:
        if isinstance(output, Transmit):
            nemo_messages.decoder.decode(output.message)
