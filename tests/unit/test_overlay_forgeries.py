"""Goal: a member that forges messages about itself, others or the receiver harms no other node.

Method: two honest nodes are linked; a third member's messages are forged by hand.  Afterwards the link is up, the other
node still accepts the victim's messages, and the state kept of forged messages is bounded.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline import limits, messages
from pipeline.address import ANY_SOURCE, Address, parse
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import EngineContext, LinkState, Transmit
from pipeline.engines.nemo import messages as nemo_messages
from pipeline.engines.nemo.engine import Nemo
from pipeline.engines.replica import Advert, MemoryBudget, Pull, Replica, ReplicaSource, Update
from pipeline.errors import WireError
from pipeline.messages import DirectoryUpdate, EngineMessage, Header, Heartbeat, Hello, NodeRecord
from pipeline.overlay.events import NodeIdMoved, Notice, NoticeKind, PeerChanged, RecordGone
from pipeline.overlay.node import OverlayNode
from tests.unit.overlay_net import Net, key_of, linked_peers

GROUP = parse("239.1.2.3")
HUGE = (1 << 63) - 1
Pair = tuple[OverlayNode, OverlayNode]
FORGER = Header(sender=99, incarnation=1, endpoint="192.0.2.99:4747")


def send_to(node: OverlayNode, message: messages.AnyNodeMessage, now: float) -> str | None:
    return node.handle_message("192.0.2.99", messages.encode_node(message), now)


def record_of(node: OverlayNode, **changes: Any) -> NodeRecord:
    return msgspec.structs.replace(node.record, **changes)


def invented(number: int, **changes: Any) -> NodeRecord:
    values = {
        "node_id": number, "name": f"invented{number}", "incarnation": 1, "version": 1, "addresses": (), "lanes": 1,
        "endpoint": f"10.99.9.9:{number}", "key_epoch": 0, "sender_key": key_of("x"), "engine": "mesh",
        "explicit_addresses": False,
    }  # fmt: skip
    return NodeRecord(**values | changes)


def assert_still_linked(net: Net, a: OverlayNode, b: OverlayNode) -> None:
    net.run(5)
    assert (linked_peers(a), linked_peers(b)) == ({"b"}, {"a"})
    b.join(GROUP, ANY_SOURCE, net.now)
    net.run(1)
    assert a.members(GROUP) == ["b"]


# ---- records of the receiver


@pytest.mark.parametrize("field", ["version", "incarnation"])
@pytest.mark.parametrize("value", [HUGE, limits.INCARNATION_MAX, limits.INCARNATION_MAX - 1])
def test_forged_counts_do_not_make_the_own_record_overflow(net: Net, pair: Pair, field: str, value: int) -> None:
    """Goal: the victim can still make a next version.  Method: its record with counts near the end of their range."""
    a, b = pair
    try:
        forged = record_of(a, **{field: value})
        send_to(a, DirectoryUpdate(records=[forged], **FORGER), net.now)
    except WireError:
        return
    assert_still_linked(net, a, b)


FORGED: list[dict[str, Any]] = [
    {"incarnation": limits.INCARNATION_MAX, "version": HUGE},
    {"incarnation": limits.INCARNATION_MAX - 1},
    {"incarnation": 2},
    {"version": HUGE},
    {"name": "A"},
    {"name": "A", "endpoint": "192.0.2.99:4747"},
    {"incarnation": 2, "endpoint": "192.0.2.99:4747"},
]
"""Changes of a node's record that a member may report; "A" is a smaller name than any of the nodes has."""


@pytest.mark.parametrize("target", ["peer", "subject"])
@pytest.mark.parametrize("changes", FORGED, ids=str)
def test_forged_report_about_a_live_node_takes_no_link_down(
    net: Net, pair: Pair, changes: dict[str, Any], target: str
) -> None:
    """Goal: a member's report removes no node that is alive, not even for a moment.
    Method: the record of b with one change, sent twenty times to its peer or to b itself."""
    a, b = pair
    for _ in range(20):
        forged = record_of(b, **changes)
        send_to(a if target == "peer" else b, DirectoryUpdate(records=[forged], **FORGER), net.now)
        net.run(0.3)
    assert_still_linked(net, a, b)
    for node in (a, b):
        assert [event.is_up for event in net.events_of(node, PeerChanged)] == [True]
        assert net.events_of(node, NodeIdMoved) == []
    assert a.records()[0].endpoint == b.record.endpoint


@pytest.mark.parametrize("changes", FORGED, ids=str)
def test_forged_report_about_a_silent_node_does_not_keep_it_out(net: Net, pair: Pair, changes: dict[str, Any]) -> None:
    """Goal: a node that comes back is linked at once, whatever a member has reported about it.
    Method: b is cut off and times out; a receives the forged record; b comes back, and then restarts."""
    a, b = pair
    net.cut = {b.record.endpoint}
    net.run(limits.LINK_TIMEOUT_S + 0.5)
    assert linked_peers(a) == set()
    send_to(a, DirectoryUpdate(records=[record_of(b, **changes)], **FORGER), net.now)
    net.run(1)
    net.cut = set()
    net.run(limits.LINK_TIMEOUT_S)
    assert_still_linked(net, a, b)
    del net.nodes[b.record.endpoint]
    again = net.add("b", at=b.record.endpoint, incarnation=3, peers=(a.record.endpoint,))
    net.run(0.5)
    assert (linked_peers(a), linked_peers(again)) == ({"b"}, {"a"})


def test_node_id_is_kept_when_forged_records_hold_all_others(net: Net) -> None:
    """Goal: a node that has no link yet survives forged records of its id.
    Method: more records with a smaller name than there are attempts, each with its present id."""
    a = net.add("b", at="192.0.2.1:4747")
    for number in range(2 * limits.NODE_ID_ATTEMPTS_MAX):
        forged = record_of(a, name="A", endpoint=f"192.0.2.99:{number + 1}", incarnation=number)
        assert send_to(a, DirectoryUpdate(records=[forged], **FORGER), net.now) is None
    net.add("c", peers=(a.record.endpoint,))
    net.run(5)
    assert "c" in linked_peers(a)


def test_acknowledgement_of_a_version_never_sent_is_not_followed(net: Net, pair: Pair) -> None:
    """Goal: a node does not raise its version to a forged one.
    Method: a Heartbeat with a huge acknowledged version."""
    a, b = pair
    head = Header(sender=b.record.node_id, incarnation=b.record.incarnation, endpoint=b.record.endpoint)
    forged = (a.record.incarnation, HUGE)
    assert send_to(a, Heartbeat(number=1000, acked_stamp=forged, directory_digest=b"", **head), net.now) is None
    assert a.record.version < limits.RESTORE_STEP
    assert send_to(a, Heartbeat(number=0, acked_stamp=a.record.stamp, directory_digest=b"", **head), net.now) is None


def test_reported_older_namesake_does_not_stop_a_linked_node(net: Net, pair: Pair) -> None:
    """Goal: only a node without links gives up its name.  Method: an older incarnation of it is reported for long."""
    a, b = pair
    older = record_of(a, incarnation=0, endpoint="192.0.2.99:4747")
    for _ in range(20):
        send_to(a, DirectoryUpdate(records=[older], **FORGER), net.now)
        net.run(limits.NAME_TAKEN_S / 10)
    assert NoticeKind.NAME_TAKEN not in net.notices(a)
    assert_still_linked(net, a, b)


# ---- records of the sender and of others


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
        {"second_epoch": 1, "second_key": b"short"},
        {"second_key": key_of("x")},
        {"addresses": ((parse("224.0.0.1"), 32),)},
        {"addresses": ((parse("127.0.0.1"), 8),)},
        {"addresses": ((parse("255.255.255.255"), 32),)},
        {"incarnation": HUGE},
    ],
)
def test_record_that_no_node_makes_is_malformed(net: Net, pair: Pair, changes: dict[str, Any]) -> None:
    """Goal: names are printable, endpoints numeric, keys and addresses valid.  Method: records with one fault each."""
    a, b = pair
    assert (
        send_to(a, DirectoryUpdate(records=[invented(7, **changes)], **FORGER), net.now)
        == MessageRefusal.MESSAGE_MALFORMED
    )
    assert [record.name for record in a.records()] == ["b"]
    assert_still_linked(net, a, b)


def test_record_without_a_key_is_refused_where_datagrams_are_sealed(net: Net, pair: Pair) -> None:
    """Goal: no host of the underlay can send in the name of a node.  Method: records without key."""
    a, b = pair
    unsealed = record_of(b, version=b.record.version + 1, sender_key=b"")
    assert send_to(a, DirectoryUpdate(records=[unsealed], **FORGER), net.now) == MessageRefusal.RECORD_UNSEALED
    hello = Hello(number=1, record=invented(7, sender_key=b""), sender=7, incarnation=1, endpoint="192.0.2.7:1")
    assert send_to(a, hello, net.now) == MessageRefusal.RECORD_UNSEALED
    assert [record.sender_key for record in a.records()] == [b.record.sender_key]
    assert_still_linked(net, a, b)


@pytest.fixture
def small_overlay(monkeypatch: pytest.MonkeyPatch) -> int:
    """Lower the bound on nodes; returns it."""
    monkeypatch.setattr(limits, "NODES_MAX", 50)
    return limits.NODES_MAX


def test_node_that_sends_for_itself_gets_a_place_in_a_full_directory(net: Net, pair: Pair, small_overlay: int) -> None:
    """Goal: invented nodes keep no real one out.  Method: a directory is filled with them, then a node starts."""
    a, b = pair
    records = [invented(1000 + number) for number in range(small_overlay + 20)]
    send_to(a, DirectoryUpdate(records=records, **FORGER), net.now)
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
        records = [invented(1000 + number * 1000 + each, engine=f"e{each}") for each in range(40)]
        send_to(a, DirectoryUpdate(records=records, **FORGER), net.now)
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
        message = EngineMessage(
            engine="mesh", body=body, sender=b.record.node_id, incarnation=b.record.incarnation, endpoint=""
        )
        assert send_to(a, message, net.now) == verdict


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
