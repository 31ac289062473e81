"""Goal: a dead forwarder is found out by those who miss packets from it, and what is missed is repaired once.

Method: questions and answers of one node by hand; then small simulated overlays in which the busiest node dies, with
and without the means that are tested.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator

import pytest

from pipeline.address import NodeId, parse
from pipeline.engines.api import Output, Resend, Transmit
from pipeline.engines.nemo import failure_detector, forwarding, messages
from pipeline.engines.nemo.clusters import Crew, Seat
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.failure_detector import FailureDetector
from pipeline.engines.nemo.options import Options
from pipeline.engines.nemo.recovery import LACKS_MAX, Recovery
from pipeline.sim.experiment import Experiment, Scenario

GROUP = parse("239.1.2.3")
OWN, PARENT, OTHER, ABOVE, CHILD, SOURCE = 1, 2, 3, 4, 5, 9
RTT_S = 0.05


class Bench:
    """One node's recovery; what it says and whom it suspects."""

    def __init__(self) -> None:
        self.desk = Context(OWN, Options(), random.Random(1).random)
        for node in (PARENT, OTHER, ABOVE, CHILD):
            self.desk.measured(node, RTT_S)
        self.suspects: list[NodeId] = []
        self.recovery = Recovery(
            GROUP,
            self.desk,
            lambda _origin, _number, vias: list(dict.fromkeys([PARENT, OTHER, *vias])),
            lambda node, _: self.suspects.append(node),
        )

    def said(self) -> Iterator[tuple[NodeId, messages.Message]]:
        while self.desk.outputs:
            output = self.desk.outputs.popleft()
            if isinstance(output, Transmit):
                yield output.peer, messages.decoder.decode(output.message)

    def pass_time(self) -> float:
        """Until something is due; then it is done."""
        now = self.recovery.due
        assert now is not None
        self.recovery.handle_timeout(now)
        return now


def nack(number: int, instead: NodeId = 0) -> messages.Nack:
    return messages.Nack(GROUP, SOURCE, (number,), instead)


def test_a_parent_that_lacks_it_too_is_waited_for() -> None:
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), PARENT, 0.0)
    for _ in range(1 + LACKS_MAX):
        now = bench.pass_time()
        assert list(bench.said()) == [(PARENT, nack(7))]
        bench.recovery.handle_lack(
            PARENT, messages.NackReply(GROUP, SOURCE, (7,), (ABOVE,), is_yours=False), now + RTT_S
        )
    bench.pass_time()
    assert list(bench.said()) == [(ABOVE, nack(7))], "then whom the parent would ask"
    assert bench.suspects == []


def test_a_parent_that_lacks_one_is_asked_for_all_together() -> None:
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), PARENT, 0.0)
    now = bench.pass_time()
    assert list(bench.said()) == [(PARENT, nack(7))]
    bench.recovery.handle_lack(PARENT, messages.NackReply(GROUP, SOURCE, (7,), (), is_yours=False), now)
    bench.recovery.handle_gap(SOURCE, (7, 10), PARENT, now)
    while not (said := list(bench.said())):
        bench.pass_time()
    assert said == [(PARENT, messages.Nack(GROUP, SOURCE, (7, 10), 0))]


def test_all_who_have_sent_packets_tell_where_they_come_from() -> None:
    """The last one may have sent a repair, or a packet that another turn's tree brings from elsewhere."""
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), ABOVE, 0.0)
    bench.recovery.handle_gap(SOURCE, (7, 8), CHILD, 0.0)
    bench.recovery.handle_nack(99, nack(7), 0.0)
    ((_, answer),) = bench.said()
    assert isinstance(answer, messages.NackReply)
    assert answer.crew == (OTHER, CHILD, ABOVE, PARENT), "the last one first"


def test_a_silent_parent_is_suspected_and_passed_over() -> None:
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), PARENT, 0.0)
    asked_at = bench.pass_time()
    list(bench.said())
    assert bench.pass_time() == pytest.approx(asked_at + 2 * RTT_S)
    assert list(bench.said()) == [(OTHER, nack(7, instead=PARENT))]
    assert bench.suspects == [PARENT]
    bench.recovery.handle_gap(SOURCE, (10,), PARENT, 0.3)
    bench.pass_time()
    assert (OTHER, nack(10, instead=PARENT)) in list(bench.said()), "the next is asked of the other at once"


def test_what_was_just_passed_on_is_not_sent_again() -> None:
    bench = Bench()
    bench.recovery.handle_gap(SOURCE, (7,), PARENT, 0.0)
    bench.recovery.handle_nack(CHILD, nack(7), 0.01)
    assert list(bench.said()) == [(CHILD, messages.NackReply(GROUP, SOURCE, (7,), (OTHER, PARENT), is_yours=False))]
    bench.recovery.handle_gap(SOURCE, (), PARENT, 0.1)
    for now, is_sent in ((0.1 + RTT_S / 2, False), (0.1 + 2 * RTT_S, True)):
        bench.recovery.handle_nack(CHILD, nack(7), now)
        outputs: list[Output] = list(bench.desk.outputs)
        bench.desk.outputs.clear()
        assert any(isinstance(output, Resend) for output in outputs) is is_sent


def test_doubts_end_with_an_answer_or_in_death() -> None:
    desk = Context(OWN, Options(), random.Random(1).random)
    case = FailureDetector(GROUP, desk)
    case.begin(PARENT, 0.0)
    case.end(PARENT, 0.05)
    assert case.due is None
    case.begin(PARENT, 0.1)
    assert case.due is None, "it has just answered"
    case.begin(PARENT, 0.1 + failure_detector.GOOD_S)
    for tries in range(1, failure_detector.TRIES + 1):
        assert case.due is not None
        assert case.handle_timeout(case.due) == ([PARENT] if tries == failure_detector.TRIES else [])
    assert case.due is None
    assert len(desk.outputs) == 1 + failure_detector.TRIES


def test_who_provides_packets() -> None:
    """Cluster 1 … 4 led by 1, of which 1, 2, 3 are crew; above it 1, 5, 6, with the crews 1-3, 5 and 6."""
    below: Crew = (1, 2, 3)
    members: dict[NodeId, Crew] = dict.fromkeys(range(1, 5), ())
    low = Seat(0, 1, 1, members, below, super_crew=(5, 6, 1))
    high = Seat(1, 5, 1, {5: (5,), 6: (6,), 1: below}, (5, 6, 1))
    assert forwarding.providers(4, {0: low}, 1, 9, ())[0] == 2, "a plain member: the crew in turn"
    assert forwarding.providers(2, {0: low}, 1, 9, ())[0] == 6, "who stands for the cluster: the crew above in turn"
    assert forwarding.providers(2, {0: low}, 1, 4, ())[0] == 4, "a source of the own cluster"
    assert forwarding.providers(1, {0: low, 1: high}, 2, 9, (6,))[:2] == [0, 6], "at the top: where it comes from"
    high.members[6] = (6, 7, 8)
    assert forwarding.providers(1, {0: low, 1: high}, 2, 9, (6,))[1] == 8, "who stands there for the other one"
    assert forwarding.providers(1, {0: low, 1: high}, 2, 9, (3, 6))[1] == 8, "also if another has sent one since"
    assert set(forwarding.providers(4, {0: low}, 0, 9, (7,))) == {1, 2, 3, 5, 6, 7}, "anybody who may have it"


def death_of_the_busiest(*, seed: int = 3, **options: object) -> dict[str, float]:
    """The longest outage, the duplicates and the delivery of a run in which the node that sends most dies."""
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


def test_a_dead_forwarder_is_replaced_long_before_its_grace_period() -> None:
    found = death_of_the_busiest(repair="none")
    assert 0 < found["outage_s"] < 5, "the grace period is 15 s"


def test_what_it_did_not_send_is_repaired_once() -> None:
    runs = [death_of_the_busiest(seed=seed) for seed in range(1, 5)]
    assert all(found["delivery"] > 0.9995 for found in runs)
    assert statistics.fmean(found["duplicates"] for found in runs) < 0.25
