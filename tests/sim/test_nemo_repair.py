"""Goal: nodes that miss packets detect a dead forwarder, and what they miss is repaired once.

Method: requests and replies of one node by hand; then small simulated overlays in which the busiest node dies, with
and without repair.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator

import pytest

from pipeline.address import NodeId, parse
from pipeline.engines.api import Output, Resend, Transmit
from pipeline.engines.nemo import failure_detector, forwarding, messages
from pipeline.engines.nemo.cluster_membership import ClusterMembership
from pipeline.engines.nemo.clusters import Crew
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.failure_detector import FailureDetector
from pipeline.engines.nemo.hierarchy import Hierarchy
from pipeline.engines.nemo.options import Options
from pipeline.engines.nemo.recovery import PARENT_RETRIES_MAX, Recovery
from pipeline.sim.experiment import Experiment, Scenario

GROUP = parse("239.1.2.3")
OWN, PARENT, OTHER, ABOVE, CHILD, SOURCE = 1, 2, 3, 4, 5, 9
RTT_S = 0.05


class Bench:
    """Recovery of one node, its messages and its suspects."""

    def __init__(self) -> None:
        self.context = Context(OWN, Options(), random.Random(1).random)
        for node in (PARENT, OTHER, ABOVE, CHILD):
            self.context.record_rtt(node, RTT_S)
        self.suspects: list[NodeId] = []
        self.recovery = Recovery(
            GROUP,
            self.context,
            lambda _origin, _number, vias: list(dict.fromkeys([PARENT, OTHER, *vias])),
            lambda node, _: self.suspects.append(node),
        )

    def sent(self) -> Iterator[tuple[NodeId, messages.Message]]:
        while self.context.outputs:
            output = self.context.outputs.popleft()
            if isinstance(output, Transmit):
                yield output.peer, messages.decoder.decode(output.message)

    def run_until_due(self) -> float:
        """Let time pass until something is due, and do it.  Return the time."""
        now = self.recovery.due
        assert now is not None
        self.recovery.handle_timeout(now)
        return now


def nack(number: int, suspect: NodeId = 0) -> messages.Nack:
    return messages.Nack(GROUP, SOURCE, (number,), suspect)


def test_parent_that_lacks_the_packet_too_is_tried_again_before_others() -> None:
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), PARENT, 0.0)
    for _ in range(1 + PARENT_RETRIES_MAX):
        now = bench.run_until_due()
        assert list(bench.sent()) == [(PARENT, nack(7))]
        bench.recovery.handle_nack_reply(
            PARENT, messages.NackReply(GROUP, SOURCE, (7,), (ABOVE,), is_circular=False), now + RTT_S
        )
    bench.run_until_due()
    assert list(bench.sent()) == [(ABOVE, nack(7))], "then the node that the parent would try"
    assert bench.suspects == []


def test_requests_to_a_parent_that_lacks_packets_are_combined() -> None:
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), PARENT, 0.0)
    now = bench.run_until_due()
    assert list(bench.sent()) == [(PARENT, nack(7))]
    bench.recovery.handle_nack_reply(PARENT, messages.NackReply(GROUP, SOURCE, (7,), (), is_circular=False), now)
    bench.recovery.handle_gap(SOURCE, (7, 10), PARENT, now)
    while not (sent := list(bench.sent())):
        bench.run_until_due()
    assert sent == [(PARENT, messages.Nack(GROUP, SOURCE, (7, 10), 0))]


def test_reply_names_the_last_senders_as_providers() -> None:
    """The last sender alone is not enough: it may have sent a repair, or a packet of another stripe."""
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), ABOVE, 0.0)
    bench.recovery.handle_gap(SOURCE, (7, 8), CHILD, 0.0)
    bench.recovery.handle_nack(99, nack(7), 0.0)
    ((_, answer),) = bench.sent()
    assert isinstance(answer, messages.NackReply)
    assert answer.providers == (OTHER, CHILD, ABOVE, PARENT), "the last sender first"


def test_silent_parent_is_suspected_and_skipped() -> None:
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), PARENT, 0.0)
    requested_at = bench.run_until_due()
    list(bench.sent())
    assert bench.run_until_due() == pytest.approx(requested_at + 2 * RTT_S)
    assert list(bench.sent()) == [(OTHER, nack(7, suspect=PARENT))]
    assert bench.suspects == [PARENT]
    bench.recovery.handle_gap(SOURCE, (10,), PARENT, 0.3)
    bench.run_until_due()
    assert (OTHER, nack(10, suspect=PARENT)) in list(bench.sent()), (
        "the next packet is requested from the other node at once"
    )


def test_packet_just_passed_on_is_not_resent() -> None:
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), PARENT, 0.0)
    bench.recovery.handle_nack(CHILD, nack(7), 0.01)
    assert list(bench.sent()) == [(CHILD, messages.NackReply(GROUP, SOURCE, (7,), (OTHER, PARENT), is_circular=False))]
    bench.recovery.handle_gap(SOURCE, (), PARENT, 0.1)
    for now, is_sent in ((0.1 + RTT_S / 2, False), (0.1 + 2 * RTT_S, True)):
        bench.recovery.handle_nack(CHILD, nack(7), now)
        outputs: list[Output] = list(bench.context.outputs)
        bench.context.outputs.clear()
        assert any(isinstance(output, Resend) for output in outputs) is is_sent


def test_suspect_that_answers_is_alive_and_another_is_dead() -> None:
    context = Context(OWN, Options(), random.Random(1).random)
    detector = FailureDetector(Hierarchy(GROUP, context))
    detector.probe(PARENT, 0.0)
    detector.handle_alive(PARENT, 0.05)
    assert detector.due is None
    detector.probe(PARENT, 0.1)
    assert detector.due is None, "it has just answered"
    detector.probe(PARENT, 0.1 + failure_detector.ALIVE_S)
    for tries in range(1, failure_detector.TRIES + 1):
        assert detector.due is not None
        assert detector.handle_timeout(detector.due) == ([PARENT] if tries == failure_detector.TRIES else [])
    assert detector.due is None
    assert len(context.outputs) == 1 + failure_detector.TRIES


def test_providers_start_with_the_parent_and_lead_towards_the_source() -> None:
    """Method: cluster 1 … 4 led by 1 with crew 1, 2, 3; above it 1, 5, 6, with the crews 1-3, 5 and 6."""
    below: Crew = (1, 2, 3)
    members: dict[NodeId, Crew] = dict.fromkeys(range(1, 5), ())
    low = ClusterMembership(0, 1, 1, members, below, super_crew=(5, 6, 1))
    high = ClusterMembership(1, 5, 1, {5: (5,), 6: (6,), 1: below}, (5, 6, 1))
    assert forwarding.providers(4, {0: low}, 1, 9, ())[0] == 2, "a plain member: the crew of its cluster"
    assert forwarding.providers(2, {0: low}, 1, 9, ())[0] == 6, "the representative of the cluster: the crew above"
    assert forwarding.providers(2, {0: low}, 1, 4, ())[0] == 4, "a source of the own cluster"
    assert forwarding.providers(1, {0: low, 1: high}, 2, 9, (6,))[:2] == [0, 6], "at the top: the last sender"
    high.members[6] = (6, 7, 8)
    assert forwarding.providers(1, {0: low, 1: high}, 2, 9, (6,))[1] == 8, (
        "the representative of the last sender's cluster"
    )
    assert forwarding.providers(1, {0: low, 1: high}, 2, 9, (3, 6))[1] == 8, (
        "also if another node has sent a packet since"
    )
    assert set(forwarding.providers(4, {0: low}, 0, 9, (7,))) == {1, 2, 3, 5, 6, 7}, "every node that may have it"


def run_with_death_of_the_busiest(*, seed: int = 3, **options: object) -> dict[str, float]:
    """Return the longest outage, duplicates and delivery of a run in which the node that sends most dies."""
    scenario = Scenario(engine="nemo", nodes=40, seed=seed, duration_s=60, warmup_s=30, join_s=5, options=options)
    experiment = Experiment(scenario)

    def kill() -> None:
        busiest = max(experiment.stations[1:], key=lambda station: experiment.measures.copies[station.index])
        experiment.fail_host(busiest.index)

    experiment.clock.call_at(40.0, kill)
    figures = experiment.run()
    return {
        "outage_s": figures["repair_s"]["max"] or 0.0,
        "duplicates": figures["duplicates_per_packet"],
        "delivery": figures["delivery_ratio"],
    }


def test_dead_forwarder_is_replaced_long_before_its_grace_period() -> None:
    found = run_with_death_of_the_busiest(repair="none")
    assert 0 < found["outage_s"] < 5, "the grace period is 15 s"


@pytest.mark.timeout(180)  # four simulations
def test_packets_of_a_dead_forwarder_are_repaired_once() -> None:
    runs = [run_with_death_of_the_busiest(seed=seed) for seed in range(1, 5)]
    assert all(found["delivery"] > 0.9995 for found in runs)
    assert statistics.fmean(found["duplicates"] for found in runs) < 0.25
