"""Goal: a member that lies, about itself, others or the node it speaks to, breaks nothing that is not its own.

Method: two honest nodes are linked; messages are forged by hand.  Afterwards the link is up, what the victim says is
still taken by the other, and what is kept of the lies is bounded.
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
from pipeline.overlay.events import Notice, NoticeKind, RecordGone
from pipeline.overlay.node import OverlayNode
from tests.unit.overlay_net import Net, key_of, up

GROUP = parse("239.1.2.3")
HUGE = (1 << 63) - 1
LIAR = Header(sender=99, incarnation=1, endpoint="192.0.2.99:4747")


def tell(node: OverlayNode, message: messages.AnyNodeMessage, now: float) -> str | None:
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


def assert_all_is_well(net: Net, a: OverlayNode, b: OverlayNode) -> None:
    net.run(5)
    assert (up(a), up(b)) == ({"b"}, {"a"})
    b.join(GROUP, ANY_SOURCE, net.now)
    net.run(1)
    assert a.members(GROUP) == ["b"]


# ---- about the node that is spoken to


@pytest.mark.parametrize("field", ["version", "incarnation"])
@pytest.mark.parametrize("value", [HUGE, limits.INCARNATION_MAX, limits.INCARNATION_MAX - 1])
def test_nobody_makes_our_record_overflow(
    net: Net, pair: tuple[OverlayNode, OverlayNode], field: str, value: int
) -> None:
    """A record of the victim with a count near the end of its range: its own next one would be malformed."""
    a, b = pair
    try:
        told = record_of(a, **{field: value})
        tell(a, DirectoryUpdate(records=[told], **LIAR), net.now)
    except WireError:
        return
    assert_all_is_well(net, a, b)


def test_an_acknowledgement_of_what_was_never_said_is_no_reason_to_go_there(
    net: Net, pair: tuple[OverlayNode, OverlayNode]
) -> None:
    a, b = pair
    head = Header(sender=b.record.node_id, incarnation=b.record.incarnation, endpoint=b.record.endpoint)
    known = (a.record.incarnation, HUGE)
    assert tell(a, Heartbeat(number=1000, acked_stamp=known, directory_digest=b"", **head), net.now) is None
    assert a.record.version < limits.RESTORE_STEP
    assert tell(a, Heartbeat(number=0, acked_stamp=a.record.stamp, directory_digest=b"", **head), net.now) is None


def test_nobody_ends_a_node_that_is_linked_under_its_name(net: Net, pair: tuple[OverlayNode, OverlayNode]) -> None:
    """An older life of our name elsewhere ends a node that has just been started, but not one that has links."""
    a, b = pair
    older = record_of(a, incarnation=0, endpoint="192.0.2.99:4747")
    for _ in range(20):
        tell(a, DirectoryUpdate(records=[older], **LIAR), net.now)
        net.run(limits.NAME_TAKEN_S / 10)
    assert NoticeKind.NAME_TAKEN not in net.notices(a)
    assert_all_is_well(net, a, b)


# ---- about itself and others


@pytest.mark.parametrize(
    "lie",
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
def test_records_that_no_node_writes_are_malformed(
    net: Net, pair: tuple[OverlayNode, OverlayNode], lie: dict[str, Any]
) -> None:
    a, b = pair
    assert tell(a, DirectoryUpdate(records=[invented(7, **lie)], **LIAR), net.now) == MessageRefusal.MESSAGE_MALFORMED
    assert [record.name for record in a.records()] == ["b"]
    assert_all_is_well(net, a, b)


def test_a_record_without_a_key_is_refused_where_datagrams_are_sealed(
    net: Net, pair: tuple[OverlayNode, OverlayNode]
) -> None:
    """It would have anybody on the underlay send in the name of its node."""
    a, b = pair
    unsealed = record_of(b, version=b.record.version + 1, sender_key=b"")
    assert tell(a, DirectoryUpdate(records=[unsealed], **LIAR), net.now) == MessageRefusal.RECORD_UNSEALED
    hello = Hello(number=1, record=invented(7, sender_key=b""), sender=7, incarnation=1, endpoint="192.0.2.7:1")
    assert tell(a, hello, net.now) == MessageRefusal.RECORD_UNSEALED
    assert [record.sender_key for record in a.records()] == [b.record.sender_key]
    assert_all_is_well(net, a, b)


@pytest.fixture
def small_overlay(monkeypatch: pytest.MonkeyPatch) -> int:
    """A directory that is full soon."""
    monkeypatch.setattr(limits, "NODES_MAX", 50)
    return limits.NODES_MAX


def test_who_speaks_for_himself_comes_before_rumours(
    net: Net, pair: tuple[OverlayNode, OverlayNode], small_overlay: int
) -> None:
    """A directory that a liar has filled with invented nodes still takes a real one."""
    a, b = pair
    records = [invented(1000 + number) for number in range(small_overlay + 20)]
    tell(a, DirectoryUpdate(records=records, **LIAR), net.now)
    assert len(a.records()) == small_overlay
    c = net.add("c", peers=(a.record.endpoint,))
    net.run(1)
    assert "c" in up(a)
    assert "a" in up(c)
    assert len(a.records()) == small_overlay
    assert len(net.of(a, RecordGone)) >= 1
    assert b.record.name in up(a)


def test_engines_of_invented_nodes_fill_neither_memory_nor_log(
    net: Net, pair: tuple[OverlayNode, OverlayNode], small_overlay: int
) -> None:
    a, _ = pair
    for number in range(3):
        net.run(limits.NODE_FORGET_S + 1)
        records = [invented(1000 + number * 1000 + each, engine=f"e{each}") for each in range(40)]
        tell(a, DirectoryUpdate(records=records, **LIAR), net.now)
    net.pump()
    assert 40 < len(net.of(a, Notice)) <= small_overlay


# ---- about memberships


def test_a_copy_has_a_bound_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long values count, not only keys; what is small still fits; one copy does not take all the room."""
    monkeypatch.setattr(limits, "REPLICA_WEIGHT_MAX", 1000)
    monkeypatch.setattr(limits, "REPLICAS_WEIGHT_MAX", 1500)
    budget = MemoryBudget()
    copies = [Replica(budget), Replica(budget)]
    for copy in copies:
        for number in range(100):
            copy.apply(Update(number, number + 1, 0, 0, [(b"%d" % number, bytes(400))]))
    assert [copy.weight for copy in copies] == [909, 505]
    assert budget.left == 1500 - 909 - 505
    assert all(copy.is_short for copy in copies)
    copies[0].discard()
    copies[1].apply(Update(100, 101, 0, 0, [(b"more", bytes(400))]))
    assert copies[1].weight == 606
    assert not copies[1].differs(Advert(101, 12345)), "what had no room is not asked for again and again"


def test_a_pull_beyond_all_versions_is_answered_and_not_followed() -> None:
    original, copy = ReplicaSource(), Replica()
    original.set(b"key", b"value")
    parts = original.updates(Pull(HUGE, 0, anew=False))
    assert original.version == 1
    copy.apply(parts[0])
    assert copy.entries == {b"key": b"value"}


def test_an_update_in_the_name_of_another_does_not_last() -> None:
    """A copy that was told of versions which its owner does not have starts anew."""
    original, copy = ReplicaSource(), Replica()
    original.set(b"key", b"value")
    copy.apply(Update(0, HUGE, 0, 0, [(b"lie", b"")]))
    for _ in range(2):
        if copy.differs(original.advert()):
            for update in original.updates(copy.pull()):
                copy.apply(update)
    assert copy.entries == {b"key": b"value"}


def test_a_list_of_sources_is_bounded(net: Net, pair: tuple[OverlayNode, OverlayNode]) -> None:
    a, b = pair
    sources: list[Address] = [number.to_bytes(4) for number in range(limits.SOURCES_PER_GROUP_MAX + 1)]
    for count, verdict in ((limits.SOURCES_PER_GROUP_MAX, None), (limits.SOURCES_PER_GROUP_MAX + 1, "mesh_malformed")):
        value = b"\0" + b"".join(sources[:count])
        version = 1000 + count
        body = msgspec.msgpack.encode(Update(0, version, 0, 0, [(b"M" + GROUP, value)]))
        message = EngineMessage(
            engine="mesh", body=body, sender=b.record.node_id, incarnation=b.record.incarnation, endpoint=""
        )
        assert tell(a, message, net.now) == verdict


# ---- about trees


def test_nemo_remembers_no_end_of_sources_or_groups(monkeypatch: pytest.MonkeyPatch, small_overlay: int) -> None:
    monkeypatch.setattr(limits, "GROUPS_MAX", 100)
    engine = Nemo(EngineContext(node_id=1, random=lambda: 0.5), 0.0)
    engine.join(GROUP, ANY_SOURCE, 0.0)
    for number in range(200):
        said = nemo_messages.encode(nemo_messages.Source(GROUP, 1000 + number, 1))
        assert engine.handle_message(7, said, 0.1) is None
        other = bytes([239, 9, number >> 8, number & 0xFF])
        assert engine.handle_message(7, nemo_messages.encode(nemo_messages.RootQuery(other, 0, 0, 0)), 0.1) is None
    assert len(list(engine.nodes())) == small_overlay + 1, "the sources, and whom the rendezvous names"
    assert len(engine._rendezvous._roots) == 100


def test_nemo_does_not_follow_a_view_beyond_all_versions() -> None:
    """The leader's next one would be malformed, and all others would cut it off."""
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
