"""Goal: nodes link, stay linked, notice failures, restarts and conflicts, and refuse malformed messages.

Method: a few OverlayNodes on virtual time; the test carries, loses or inspects their messages.
"""

from __future__ import annotations

import random

import msgspec
import pytest

from pipeline import limits, messages
from pipeline.address import ANY_SOURCE, derive_addresses, include, parse
from pipeline.drop_reasons import MessageRefusal
from pipeline.messages import Goodbye
from pipeline.overlay import records
from pipeline.overlay.events import (
    AddressMoved,
    NodeIdMoved,
    Notice,
    NoticeKind,
    PeerChanged,
    RecordChanged,
    RecordGone,
)
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig
from pipeline.overlay.peer import TRANSITIONS, PeerState, Signal
from tests.unit.overlay_net import Forger, Net, identity_of, key_of, linked_peers

GROUP = parse("239.1.2.3")
Pair = tuple[OverlayNode, OverlayNode]


def add_on_wildcard(net: Net, name: str, at: str, incarnation: int) -> OverlayNode:
    """Start a node that listens on all addresses of the host at `at`."""
    config = NodeConfig(
        name=name,
        endpoint="0.0.0.0:4747",
        incarnation=incarnation,
        identity=identity_of(name),
        sender_key=key_of(f"{name} at {at}"),
        peers=("192.0.2.1:4747",),
    )
    return net.put(at, OverlayNode(config, random=random.Random(1).random, now=net.now))


# ---- links


def test_state_table_has_a_row_for_each_state_and_signal() -> None:
    """Goal: the state machine of a peer is complete.  Method: compare the keys of the table."""
    assert set(TRANSITIONS) == {(state, signal) for state in PeerState for signal in Signal}


def test_key_of_a_peer_is_known_before_its_link_is_up(net: Net, pair: Pair) -> None:
    """Goal: the data plane can open a datagram before it may arrive.  Method: order of the events on both nodes."""
    for node, other in (pair, pair[::-1]):
        assert linked_peers(node) == {other.record.name}
        events = [event for event in net.events[node.record.endpoint] if isinstance(event, RecordChanged | PeerChanged)]
        assert isinstance(events[0], RecordChanged)
        assert events[0].record.sender_key == other.record.sender_key
        assert [event.is_up for event in net.events_of(node, PeerChanged)] == [True]


def test_link_is_up_only_when_the_peer_has_acknowledged_the_key(net: Net) -> None:
    """Goal: no datagram is sent to a peer that cannot open it.  Method: the first messages one by one."""
    a = net.add("a")
    b = net.add("b", peers=("192.0.2.1:4747",))
    transmit = b.poll_transmit()
    assert transmit is None, "nothing is sent before it is due"
    b.handle_timeout(net.now)
    transmit = b.poll_transmit()
    assert transmit is not None
    a.handle_message("", transmit[1], net.now)
    for node, other in ((a, b), (b, a)):
        answer = node.poll_transmit()
        assert answer is not None
        assert linked_peers(node) == set(), "the other node does not know this one's key yet"
        other.handle_message("", answer[1], net.now)
    assert (linked_peers(a), linked_peers(b)) == (set(), set()), "no endpoint has answered a probe yet"
    net.pump()
    assert (linked_peers(a), linked_peers(b)) == ({"b"}, {"a"})


def test_seed_that_starts_later_is_found(net: Net) -> None:
    """Goal: the order of starts does not matter.  Method: the seed starts after 30 s."""
    b = net.add("b", at="192.0.2.2:4747", peers=("192.0.2.1:4747",))
    net.run(30)
    assert [(link.name, link.endpoint, link.is_up) for link in b.links()] == [("", "192.0.2.1:4747", False)]
    net.add("a", at="192.0.2.1:4747")
    net.run(limits.RECONNECT_SHARE * 31 * 1.25)
    assert linked_peers(b) == {"a"}
    assert len(b.links()) == 1


def test_seed_that_does_not_answer_causes_one_notice(net: Net) -> None:
    """Goal: the log shows a mistyped address or another network key.  Method: a seed at which no node is."""
    b = net.add("b", at="192.0.2.2:4747", peers=("192.0.2.1:4747",))
    net.run(limits.ANSWER_EXPECTED_S - 1)
    assert net.notices(b) == []
    net.run(100)
    assert net.notices(b) == [NoticeKind.NO_ANSWER]
    assert "192.0.2.1:4747" in net.events_of(b, Notice)[0].text


def test_node_recognises_itself_as_a_seed(net: Net) -> None:
    """Goal: all nodes may have the same list of seeds.  Method: a node that names itself sends one message."""
    a = net.add("a", at="0.0.0.0:4747", peers=("192.0.2.1:4747",))
    net.nodes["192.0.2.1:4747"] = net.nodes.pop("0.0.0.0:4747")
    net.events["192.0.2.1:4747"] = []
    net.run(5)
    assert a.links() == []
    assert len(net.sent) == 1


def test_gossip_through_one_seed_links_all_nodes(net: Net) -> None:
    """Goal: one common seed is enough.  Method: five nodes."""
    nodes = [net.add("a"), *(net.add(name, peers=("192.0.2.1:4747",)) for name in "bcde")]
    net.run(0.3)
    for node in nodes:
        assert linked_peers(node) == set("abcde") - {node.record.name}


def test_cut_link_is_down_within_3_s_and_comes_back(net: Net, pair: Pair) -> None:
    """Goal: a failed link is noticed, and tried again in intervals that grow.  Method: no messages for 23 s."""
    a, b = pair
    net.run(5)
    net.cut = {b.record.endpoint}
    net.run(3)
    assert (linked_peers(a), linked_peers(b)) == (set(), set())
    net.run(20)
    net.cut = set()
    net.run(23 * limits.RECONNECT_SHARE * 1.25 + 0.1)
    assert (linked_peers(a), linked_peers(b)) == ({"b"}, {"a"})


def test_one_way_loss_takes_the_link_down_on_both_sides(net: Net, pair: Pair) -> None:
    """Goal: a link is up in both directions or in none.  Method: one node ignores all messages for some time."""
    a, b = pair
    net.run(2)
    original = a.handle_message
    a.handle_message = lambda *_, **__: None  # type: ignore[method-assign]
    net.run(limits.LINK_TIMEOUT_S + 0.5)
    assert (linked_peers(a), linked_peers(b)) == (set(), set())
    a.handle_message = original  # type: ignore[method-assign]
    net.run(3)
    assert (linked_peers(a), linked_peers(b)) == ({"b"}, {"a"})


def test_goodbye_takes_the_link_down_at_once(net: Net, pair: Pair) -> None:
    """Goal: an ended node is noticed without a timeout.  Method: stop one of two nodes."""
    a, b = pair
    b.stop(net.now)
    net.pump()
    assert linked_peers(a) == set()


def test_goodbye_that_was_overtaken_is_ignored(net: Net, pair: Pair) -> None:
    """Goal: an old Goodbye does not end a new session.
    Method: Goodbyes of the former incarnation and with an old number."""
    a, b = pair
    old = Goodbye(sender=b.record.node_id, incarnation=b.record.incarnation - 1, endpoint=b.record.endpoint, number=999)
    overtaken = Goodbye(sender=b.record.node_id, incarnation=b.record.incarnation, endpoint=b.record.endpoint, number=1)
    forger = Forger.of(b)
    for message in (old, overtaken):
        assert forger.send(a, message) in {None, MessageRefusal.MESSAGE_MALFORMED}
    assert linked_peers(a) == {"b"}


def test_restarted_node_begins_without_memberships(net: Net, pair: Pair) -> None:
    """Goal: memberships of the former incarnation end.  Method: a member is replaced by a new incarnation."""
    a, b = pair
    b.join(GROUP, ANY_SOURCE, net.now)
    net.pump()
    assert a.members(GROUP) == ["b"]
    del net.nodes[b.record.endpoint]
    again = net.add("b", at=b.record.endpoint, incarnation=2, peers=("192.0.2.1:4747",))
    net.run(0.2)
    assert (linked_peers(a), linked_peers(again)) == ({"b"}, {"a"})
    assert [event.is_up for event in net.events_of(a, PeerChanged)] == [True, False, True]
    assert a.members(GROUP) == [], "memberships of the former incarnation are dropped"


def test_node_whose_clock_stepped_back_is_linked_again(net: Net, pair: Pair) -> None:
    """Goal: a node with an older incarnation than its predecessor chooses a newer one.
    Method: start it with incarnation 0."""
    a, b = pair
    del net.nodes[b.record.endpoint]
    again = net.add("b", at=b.record.endpoint, incarnation=0, peers=("192.0.2.1:4747",))
    net.run(0.5)
    assert (linked_peers(a), linked_peers(again)) == ({"b"}, {"a"})
    assert again.record.incarnation > b.record.incarnation


@pytest.mark.parametrize("incarnation", [0, 2], ids=["clock behind", "clock ahead"])
@pytest.mark.parametrize("wildcard", [False, True])
def test_node_with_any_clock_and_a_new_address_is_linked_when_its_former_process_is_silent(
    net: Net, incarnation: int, wildcard: bool
) -> None:
    """Goal: a clock that was set back delays no link.
    Method: a node ends without Goodbye and starts at another address, with a lower or a higher incarnation."""
    a, c = net.add("a"), net.add("c", peers=("192.0.2.1:4747",))
    old = net.add("b", incarnation=1, peers=("192.0.2.1:4747",))
    net.run(1)
    del net.nodes[old.record.endpoint]
    new = add_on_wildcard(net, "b", "192.0.2.77:4747", incarnation) if wildcard else None
    new = new or net.add("b", at="192.0.2.77:4747", incarnation=incarnation, peers=("192.0.2.1:4747",))
    net.run(limits.LINK_TIMEOUT_S + 1.5)
    assert (linked_peers(a), linked_peers(c), linked_peers(new)) == ({"b", "c"}, {"a", "b"}, {"a", "c"})
    assert NoticeKind.NAME_TAKEN not in net.notices(new)


def test_node_that_stays_away_is_forgotten_and_its_link_index_released(net: Net, pair: Pair) -> None:
    """Goal: a dead node takes up no place for ever.  Method: wait for the time after which it is forgotten."""
    a, b = pair
    del net.nodes[b.record.endpoint]
    net.run(limits.NODE_FORGET_S + 2 * limits.LINK_TIMEOUT_S)
    assert a.links() == []
    assert [event.link for event in net.events_of(a, RecordGone)] == [0]


def test_peer_on_a_wildcard_endpoint_is_known_by_its_source_address(net: Net) -> None:
    """Goal: a node that listens on all addresses needs no configured one.  Method: a node on 0.0.0.0."""
    a = net.add("a", at="192.0.2.1:4747")
    b = add_on_wildcard(net, "b", "192.0.2.2:4747", 1)
    net.run(0.3)
    assert (linked_peers(a), linked_peers(b)) == ({"b"}, {"a"})
    assert a.links()[0].endpoint == "192.0.2.2:4747"


def test_link_follows_a_peer_on_a_wildcard_endpoint_to_its_new_address(net: Net) -> None:
    """Goal: a host that gets another address is answered there from the first message on, and no link goes down."""
    a = net.add("a", at="192.0.2.1:4747")
    b = add_on_wildcard(net, "b", "192.0.2.2:4747", 1)
    net.run(2)
    net.nodes["192.0.2.9:4747"] = net.nodes.pop("192.0.2.2:4747")
    net.events["192.0.2.9:4747"] = net.events.pop("192.0.2.2:4747")
    net.run(10)
    assert a.links()[0].endpoint == "192.0.2.9:4747"
    assert [event.is_up for node in (a, b) for event in net.events_of(node, PeerChanged)] == [True, True]


# ---- names, ids, addresses


def test_second_node_of_a_name_is_refused_while_the_first_is_alive(net: Net) -> None:
    """Goal: the second node is reported the conflict, and the first one keeps its link.
    Method: a second node of the same name on another host."""
    a = net.add("a")
    old = net.add("b", incarnation=1, peers=("192.0.2.1:4747",))
    net.run(1)
    new = net.add("b", incarnation=2, peers=("192.0.2.1:4747",))
    net.run(30)
    assert linked_peers(a) == {"b"}
    assert a.links()[0].endpoint == old.record.endpoint
    assert [event.is_up for event in net.events_of(a, PeerChanged)] == [True], "no flapping"
    assert net.notices(new)[0] is NoticeKind.NAME_TAKEN, "the driver then stops the node"
    assert net.notices(a) == [NoticeKind.CLONE]


@pytest.mark.parametrize("incarnation", [1, 3], ids=["clock behind", "clock ahead"])
def test_clone_on_a_wildcard_endpoint_ends_with_the_reason(net: Net, incarnation: int) -> None:
    """Goal: the second of two hosts with one name reports that the name is in use, and by which host.
    Method: both listen on all addresses, as by default; the clone's clock is behind or ahead."""
    a = net.add("a")
    old = add_on_wildcard(net, "b", "192.0.2.2:4747", 2)
    net.run(1)
    clone = add_on_wildcard(net, "b", "192.0.2.3:4747", incarnation)
    net.run(limits.ANSWER_EXPECTED_S)
    notice = next(each for each in net.events_of(clone, Notice) if each.kind is NoticeKind.NAME_TAKEN)
    assert "name b is in use by the node at 192.0.2.2:4747" in notice.text
    assert NoticeKind.NO_ANSWER not in net.notices(clone)
    assert (linked_peers(a), linked_peers(old)) == ({"b"}, {"a"})
    assert [event.is_up for event in net.events_of(a, PeerChanged)] == [True], "no flapping"


def test_clone_that_calls_its_namesake_takes_no_link_down(net: Net) -> None:
    """Goal: all hosts may have the same list of seeds, clones too.
    Method: a clone names the older node of its name, which listens on all addresses and is linked."""
    a = net.add("a")
    old = add_on_wildcard(net, "b", "192.0.2.2:4747", 2)
    net.run(1)
    clone = net.add("b", at="192.0.2.3:4747", incarnation=3, peers=("192.0.2.2:4747",))
    net.run(limits.ANSWER_EXPECTED_S)
    assert NoticeKind.NAME_TAKEN in net.notices(clone)
    assert NoticeKind.CLONE in net.notices(old)
    assert linked_peers(a) == {"b"}
    assert [event.is_up for event in net.events_of(a, PeerChanged)] == [True], "no flapping"


def test_node_on_another_host_is_accepted_once_the_old_one_is_silent(net: Net) -> None:
    """Goal: a node can move to another host.  Method: the old one ends before the new one starts."""
    a = net.add("a")
    old = net.add("b", incarnation=1, peers=("192.0.2.1:4747",))
    net.run(1)
    del net.nodes[old.record.endpoint]
    new = net.add("b", incarnation=2, at="192.0.2.77:4747", peers=("192.0.2.1:4747",))
    net.run(limits.LINK_TIMEOUT_S + 2)
    assert (linked_peers(a), linked_peers(new)) == ({"b"}, {"a"})
    assert net.notices(new) == []


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_greater_of_two_public_keys_with_one_node_id_takes_another_id(
    net: Net, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: nodes whose public keys have the same hash are both linked.
    Method: a derivation with a collision, in both orders."""
    a, b, c = (identity_of(name).public_key for name in "abc")
    ids = {(min(a, b), 0): 5, (max(a, b), 0): 5, (max(a, b), 1): 6, (c, 0): 7}

    def derive_id(public_key: bytes, attempt: int) -> int:
        return ids[public_key, attempt]

    monkeypatch.setattr("pipeline.overlay.records.derive_node_id", derive_id)

    third = net.add("c", derive_id=derive_id)
    first, second = (net.add(name, derive_id=derive_id, peers=("192.0.2.1:4747",)) for name in order)
    net.run(5)
    smaller, greater = sorted((first, second), key=lambda node: node.record.public_key)
    assert (smaller.record.node_id, greater.record.node_id) == (5, 6)
    assert linked_peers(third) == {"a", "b"}
    assert linked_peers(smaller) == {greater.record.name, "c"}
    assert linked_peers(greater) == {smaller.record.name, "c"}
    assert [event.new for event in net.events_of(greater, NodeIdMoved)] == [6]


def test_derived_address_gives_way_to_an_explicit_one(net: Net) -> None:
    """Goal: a configured address wins, and the other node takes its next one.
    Method: one node is configured with the address that the other one derives."""
    a = net.add("a")
    v4, v6 = derive_addresses("a", 0)
    b = net.add("b", peers=("192.0.2.1:4747",), addresses=((v4, 16),))
    net.run(0.5)
    moved = net.events_of(a, AddressMoved)
    assert len(moved) == 1
    next_v4, next_v6 = derive_addresses("a", 1)
    assert moved[0].addresses == a.record.addresses == ((next_v4, 16), (next_v6, 64))
    assert b.address_owners()[v4] == b.record.node_id == a.address_owners()[v4]
    assert v6 not in b.address_owners()
    assert b.links()[0].addresses == a.record.addresses


@pytest.mark.parametrize("incarnations", [(1, 2), (2, 1)], ids=str)
def test_conflict_of_explicit_addresses_causes_one_notice_on_each_side(net: Net, incarnations: tuple[int, int]) -> None:
    """Goal: an operator is informed, and all nodes agree that the node that started first is the owner.
    Method: two nodes with one configured address, of which either starts first."""
    address = parse("10.77.0.1")
    a = net.add("a", addresses=((address, 16),), incarnation=incarnations[0])
    b = net.add("b", peers=("192.0.2.1:4747",), addresses=((address, 16),), incarnation=incarnations[1])
    net.run(5)
    first = min(a, b, key=lambda node: node.record.incarnation)
    for node in (a, b):
        assert net.notices(node) == [NoticeKind.ADDRESS_CONFLICT]
        assert f"unicast goes to {first.record.name}" in net.events_of(node, Notice)[0].text
        assert node.address_owners() == {address: first.record.node_id}


# ---- malformed and forged messages


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"GET / HTTP/1.1\r\n", bytes(1000)])
def test_malformed_message_is_refused_and_changes_nothing(net: Net, pair: Pair, data: bytes) -> None:
    """Goal: garbage has a drop reason and no effect.  Method: the snapshots before and after."""
    a, _ = pair
    before = a.snapshot(net.now)
    assert a.handle_message("192.0.2.66", data, net.now) in {
        MessageRefusal.MESSAGE_MALFORMED,
        MessageRefusal.PROTOCOL_VERSION,
    }
    assert a.snapshot(net.now) == before


def test_malformed_engine_message_is_refused_with_the_engines_reason(net: Net, pair: Pair) -> None:
    """Goal: the engine's own check decides.  Method: a body that the mesh cannot decode."""
    a, b = pair
    header = {"sender": b.record.node_id, "incarnation": b.record.incarnation, "endpoint": b.record.endpoint}
    message = messages.EngineMessage(engine="mesh", body=b"nonsense", **header)  # type: ignore[arg-type]
    assert Forger.of(b).send(a, message) == "mesh_malformed"


def test_peer_with_another_engine_causes_one_notice(net: Net, pair: Pair) -> None:
    """Goal: an operator is informed once.  Method: two Hellos of such a peer."""
    a, _ = pair
    other = Forger("z", engine="tree")
    for _ in range(2):
        assert other.hello(a) is None
    net.pump()
    assert net.notices(a) == [NoticeKind.ENGINE_MISMATCH]


def test_forged_record_of_this_node_is_superseded(net: Net, pair: Pair) -> None:
    """Goal: a forged record does not cut a node off.  Method: a record with a newer version and another key."""
    a, b = pair
    forged = msgspec.structs.replace(a.record, version=a.record.version + 5, sender_key=key_of("forged"))
    forged = records.sign(forged, identity_of("a"))
    Forger.of(b).report(a, forged)
    net.run(2)
    assert a.record.sender_key != key_of("forged")
    assert a.record.version > forged.version, "this node's own version is the newest"
    assert linked_peers(b) == {"a"}


# ---- a restart of the control process


def test_peers_do_not_notice_a_restart_of_the_control_process(net: Net, pair: Pair) -> None:
    """Goal: key, incarnation, link indices and memberships survive a restart.
    Method: restore the checkpoint one second later."""
    a, b = pair
    b.join(GROUP, include([parse("10.77.9.9")]), net.now)
    net.run(2)
    checkpoint = b.snapshot(net.now)
    config = NodeConfig(
        name="b",
        endpoint=b.record.endpoint,
        incarnation=77,
        identity=identity_of("b"),
        sender_key=key_of("other"),
        peers=("192.0.2.1:4747",),
    )
    del net.nodes[b.record.endpoint]
    net.run(1.0)
    again = OverlayNode(config, random=random.Random(2).random, now=net.now)
    again.restore(checkpoint, net.now)
    net.put(b.record.endpoint, again)
    net.run(10)
    assert [event.is_up for event in net.events_of(a, PeerChanged)] == [True]
    assert (linked_peers(a), linked_peers(again), a.members(GROUP)) == ({"b"}, {"a"}, ["b"])
    assert (again.record.incarnation, again.record.sender_key) == (b.record.incarnation, b.record.sender_key)
    assert {link.link for link in again.links()} == {link.link for link in b.links()}


def test_membership_changed_after_the_checkpoint_is_corrected(net: Net, pair: Pair) -> None:
    """Goal: peers do not keep a membership that the restarted process no longer has.
    Method: a join after the checkpoint."""
    a, b = pair
    checkpoint = b.snapshot(net.now)
    b.join(GROUP, ANY_SOURCE, net.now)
    net.pump()
    assert a.members(GROUP) == ["b"]
    config = NodeConfig(
        name="b",
        endpoint=b.record.endpoint,
        incarnation=77,
        identity=identity_of("b"),
        sender_key=key_of("b"),
        peers=("192.0.2.1:4747",),
    )
    again = OverlayNode(config, random=random.Random(2).random, now=net.now)
    again.restore(checkpoint, net.now)
    net.put(b.record.endpoint, again)
    net.run(2)
    assert a.members(GROUP) == []


def test_other_data_than_a_checkpoint_of_this_node_is_refused(net: Net, pair: Pair) -> None:
    """Goal: a damaged or foreign checkpoint is an error.  Method: empty, malformed, and of another node."""
    a, b = pair
    for data in (b"", b"nonsense", b.snapshot(net.now)):
        config = NodeConfig(
            name="a", endpoint=a.record.endpoint, incarnation=5, identity=identity_of("a"), sender_key=key_of("a")
        )
        with pytest.raises(ValueError, match="checkpoint"):
            OverlayNode(config, random=random.Random(3).random, now=net.now).restore(data, net.now)
