"""Goal: links whose probes are answered cost next to nothing, and what is broken is noticed as soon as on others.

Method: two OverlayNodes by hand on virtual time, told every half second what their data planes would have seen.
"""

from __future__ import annotations

from pipeline import limits
from pipeline.overlay.node import OverlayNode
from tests.unit.overlay_net import Net, up

Pair = tuple[OverlayNode, OverlayNode]


def run_probed(net: Net, pair: Pair, seconds: float, *, heard: bool = True, answered: bool = True) -> int:
    """Time passes; how many messages were sent."""
    before = len(net.sent)
    for _ in range(int(seconds / limits.PROBES_AGE_S)):
        net.run(limits.PROBES_AGE_S)
        for node, other in (pair, pair[::-1]):
            if heard:
                node.handle_probes(other.record.node_id, net.now, are_answered=answered)
    return len(net.sent) - before


def test_answered_probes_save_heartbeats(net: Net, pair: Pair) -> None:
    """Goal: a tenth of the messages, and the links stay up.  Method: a minute with probes and one without."""
    run_probed(net, pair, 30)
    with_probes = run_probed(net, pair, 60)
    without = run_probed(net, pair, 60, heard=False)
    assert (up(pair[0]), up(pair[1])) == ({"b"}, {"a"})
    assert with_probes <= 2 * 60 / limits.PROBED_HEARTBEAT_S + 2 * 60 / limits.ENGINE_SYNC_INTERVAL_MAX_S + 4
    assert without >= 2 * 60 / limits.HELLO_INTERVAL_S


def test_probes_that_are_not_answered_save_nothing(net: Net, pair: Pair) -> None:
    """Goal: who is heard but not known to hear is told each second.  Method: probes heard, none answered."""
    run_probed(net, pair, 5)
    assert run_probed(net, pair, 60, answered=False) >= 2 * 60 / limits.HELLO_INTERVAL_S - 4


def test_one_side_without_answers_takes_the_other_for_alive(net: Net, pair: Pair) -> None:
    """Goal: a probe lost on one side does not end the link.  Method: both are heard, one is answered and rests."""
    answered, other = pair
    events = [len(each) for each in net.events.values()]
    for _ in range(int(30 / limits.PROBES_AGE_S)):
        net.run(limits.PROBES_AGE_S)
        answered.handle_probes(other.record.node_id, net.now, are_answered=True)
        other.handle_probes(answered.record.node_id, net.now, are_answered=False)
    assert [len(each) for each in net.events.values()] == events


def test_data_path_that_breaks_leaves_the_link_up(net: Net, pair: Pair) -> None:
    """Goal: heartbeats take over before anybody gives the other up.  Method: probes end at ten moments."""
    for tenth in range(10):
        run_probed(net, pair, 10)
        net.run(tenth / 10)
        events = [len(events) for events in net.events.values()]
        run_probed(net, pair, 10, heard=False)
        assert [len(events) for events in net.events.values()] == events, tenth


def test_dead_peer_is_noticed_within_3_s(net: Net, pair: Pair) -> None:
    """Goal: no later than without probes.  Method: both paths are cut at once, at several phases."""
    for tenth in range(5):
        run_probed(net, pair, 10)
        net.run(tenth / 10)
        net.cut = {pair[1].record.endpoint}
        net.run(3)
        assert up(pair[0]) == set(), tenth
        net.cut = set()
        net.run(3)
        assert up(pair[0]) == {"b"}


def test_control_that_never_speaks_is_given_up(net: Net, pair: Pair) -> None:
    """Goal: a data plane without its control does not hold a link for ever.  Method: messages are cut, probes go on."""
    run_probed(net, pair, 10)
    net.cut = {pair[1].record.endpoint}
    run_probed(net, pair, 2 * limits.PROBED_HEARTBEAT_S)
    assert up(pair[0]) == {"b"}
    run_probed(net, pair, 2 * limits.PROBED_HEARTBEAT_S)
    assert up(pair[0]) == set()
