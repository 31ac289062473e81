"""Goal: links whose probes are answered need few messages, and failures are noticed as soon as on other links.

Method: two OverlayNodes on virtual time; every half second they are given the results of their data planes' probes.
"""

from __future__ import annotations

from pipeline import limits
from pipeline.overlay.node import OverlayNode
from tests.unit.overlay_net import Net, linked_peers

Pair = tuple[OverlayNode, OverlayNode]


def run_probed(net: Net, pair: Pair, seconds: float, *, are_received: bool = True, are_answered: bool = True) -> int:
    """Let time pass with probes received and answered, or not; return the number of messages sent."""
    before = len(net.sent)
    for _ in range(int(seconds / limits.PROBES_AGE_S)):
        net.run(limits.PROBES_AGE_S)
        for node, other in (pair, pair[::-1]):
            if are_received:
                node.handle_probes(other.record.node_id, net.now, are_answered=are_answered)
    return len(net.sent) - before


def test_answered_probes_replace_heartbeats(net: Net, pair: Pair) -> None:
    """Goal: a tenth of the messages, and the links stay up.  Method: a minute with probes and one without."""
    run_probed(net, pair, 30)
    with_probes = run_probed(net, pair, 60)
    without = run_probed(net, pair, 60, are_received=False)
    assert (linked_peers(pair[0]), linked_peers(pair[1])) == ({"b"}, {"a"})
    assert with_probes <= 2 * 60 / limits.PROBED_HEARTBEAT_S + 2 * 60 / limits.ENGINE_SYNC_INTERVAL_MAX_S + 4
    assert without >= 2 * 60 / limits.HELLO_INTERVAL_S


def test_unanswered_probes_replace_no_heartbeats(net: Net, pair: Pair) -> None:
    """Goal: heartbeats go on to a peer that may not receive us.  Method: probes are received, but not answered."""
    run_probed(net, pair, 5)
    assert run_probed(net, pair, 60, are_answered=False) >= 2 * 60 / limits.HELLO_INTERVAL_S - 4


def test_link_stays_up_when_probes_are_answered_on_one_side_only(net: Net, pair: Pair) -> None:
    """Goal: a probe lost on one side does not end the link.

    Method: both sides receive probes; one side's are answered, so its heartbeats are rare.
    """
    answered, other = pair
    events = [len(each) for each in net.events.values()]
    for _ in range(int(30 / limits.PROBES_AGE_S)):
        net.run(limits.PROBES_AGE_S)
        answered.handle_probes(other.record.node_id, net.now, are_answered=True)
        other.handle_probes(answered.record.node_id, net.now, are_answered=False)
    assert [len(each) for each in net.events.values()] == events


def test_link_stays_up_when_probes_end(net: Net, pair: Pair) -> None:
    """Goal: heartbeats resume before either side times out.  Method: probes end at ten phases of a second."""
    for tenth in range(10):
        run_probed(net, pair, 10)
        net.run(tenth / 10)
        events = [len(events) for events in net.events.values()]
        run_probed(net, pair, 10, are_received=False)
        assert [len(events) for events in net.events.values()] == events, tenth


def renew_key(node: OverlayNode, now: float) -> None:
    own = node.record
    node.set_keys(now, key_epoch=own.key_epoch, sender_key=own.sender_key, second_epoch=1, second_key=bytes(32))


def test_answered_probes_postpone_no_new_record(net: Net, pair: Pair) -> None:
    """Goal: a new sender key is acknowledged at once; it waited 4 s for the next heartbeat, and so did a stream.
    Method: probes are answered between the change of the key and the next deadline."""
    node, other = pair
    run_probed(net, pair, 10)
    renew_key(node, net.now)
    node.handle_probes(other.record.node_id, net.now, are_answered=True)
    net.run(0.1)
    assert node.is_acknowledged


def test_new_record_that_is_lost_is_sent_again_in_a_second(net: Net, pair: Pair) -> None:
    """Goal: answered probes do not acknowledge a record.  Method: the Hello with a new key is lost, probes arrive."""
    node, other = pair
    run_probed(net, pair, 10)
    net.cut.add(other.record.endpoint)
    renew_key(node, net.now)
    run_probed(net, pair, limits.PROBES_AGE_S)
    net.cut.clear()
    assert not node.is_acknowledged
    run_probed(net, pair, limits.HELLO_INTERVAL_S)
    assert node.is_acknowledged


def test_dead_peer_is_down_within_3_s(net: Net, pair: Pair) -> None:
    """Goal: no later than without probes.  Method: probes and messages are cut at once, at several phases."""
    for tenth in range(5):
        run_probed(net, pair, 10)
        net.run(tenth / 10)
        net.cut = {pair[1].record.endpoint}
        net.run(3)
        assert linked_peers(pair[0]) == set(), tenth
        net.cut = set()
        net.run(3)
        assert linked_peers(pair[0]) == {"b"}


def test_peer_that_sends_probes_but_no_messages_times_out(net: Net, pair: Pair) -> None:
    """Goal: a data plane without its control process does not keep a link up.  Method: messages are cut, probes not."""
    run_probed(net, pair, 10)
    net.cut = {pair[1].record.endpoint}
    run_probed(net, pair, 2 * limits.PROBED_HEARTBEAT_S)
    assert linked_peers(pair[0]) == {"b"}
    run_probed(net, pair, 2 * limits.PROBED_HEARTBEAT_S)
    assert linked_peers(pair[0]) == set()
