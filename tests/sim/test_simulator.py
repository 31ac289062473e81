"""Goal: a simulated run depends on its seed alone, meets the churn of its trace, and its parts do what they say.

Method: small runs twice; topologies, traces, streams, access links and clusters by hand.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

import pytest

from pipeline.overlay.directory_view import PartialView
from pipeline.sim import churn, topology
from pipeline.sim.clock import Clock
from pipeline.sim.experiment import GROUP, Experiment, Scenario, run, trace_of
from pipeline.sim.history import Stream
from pipeline.sim.underlay import Underlay

SMALL = {"nodes": 12, "duration_s": 40.0, "warmup_s": 20.0, "join_s": 5.0}


def test_a_run_depends_on_its_seed_only() -> None:
    first = run(Scenario(engine="nemo", seed=1, mttf_s=20, mttr_s=5, **SMALL))  # type: ignore[arg-type]
    assert run(Scenario(engine="nemo", seed=1, mttf_s=20, mttr_s=5, **SMALL)) == first  # type: ignore[arg-type]
    assert run(Scenario(engine="nemo", seed=2, mttf_s=20, mttr_s=5, **SMALL)) != first  # type: ignore[arg-type]


def test_engines_share_places_and_churn() -> None:
    scenarios = [Scenario(engine=engine, mttf_s=30, **SMALL) for engine in ("mesh", "nemo")]  # type: ignore[arg-type]
    assert trace_of(scenarios[0]) == trace_of(scenarios[1]) != []
    delays = [Experiment(scenario).underlay.delay_s(3, 7) for scenario in scenarios]
    assert delays[0] == delays[1]


STILL = {"repair": "none", "merge_probability": 0, "refine_probability": 0, "refine_undersized_probability": 0}
"""Options of nemo: once all have joined, nobody moves."""


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("engine", ["mesh", "nemo"])
def test_nothing_is_lost_or_doubled_without_trouble(engine: str, seed: int) -> None:
    figures = run(Scenario(engine=engine, options=STILL if engine == "nemo" else {}, seed=seed, **SMALL))  # type: ignore[arg-type]
    assert (figures["delivery_ratio"], figures["duplicates_per_packet"]) == (1.0, 0.0)
    assert figures["packets"] >= 200
    assert figures["out_degree"]["mean"] == pytest.approx(11 / 12, rel=0.01)


def test_a_sparse_overlay_delivers_as_the_dense_one() -> None:
    options = {**STILL, "crew_size": 2}
    figures = run(Scenario(engine="nemo", view=PartialView, options=options, **SMALL))  # type: ignore[arg-type]
    assert (figures["delivery_ratio"], figures["duplicates_per_packet"]) == (1.0, 0.0)


def test_repair_helps_against_loss() -> None:
    """In the mean: control messages are late at times, and what a run loses by one of those is chance."""
    scenario = {**SMALL, "loss": 0.02, "nodes": 20}

    def delivery(**options: object) -> float:
        runs = (run(Scenario(engine="nemo", options=options, seed=seed, **scenario)) for seed in range(1, 5))  # type: ignore[arg-type]
        return statistics.fmean(figures["delivery_ratio"] for figures in runs)

    assert delivery(repair="none") < 0.96
    assert delivery() > 0.999


def test_a_partition_ends() -> None:
    figures = run(Scenario(engine="nemo", partition=(25, 28, 0.3), **{**SMALL, "duration_s": 120.0}))  # type: ignore[arg-type]
    assert 0.5 < figures["delivery_ratio"] < 1


def test_traces_as_text() -> None:
    turns = churn.exponential(range(1, 6), begin_s=10, end_s=500, mttf_s=60, mttr_s=20, generator=random.Random(1))
    assert churn.write(churn.read(churn.write(turns), 6)) == churn.write(turns)
    for host in range(1, 6):
        assert [turn.up for turn in turns if turn.host == host][:2] == [False, True]
    with pytest.raises(ValueError, match="line 2"):
        churn.read("1 2 up\n1 2 sideways\n", 5)


def test_routers_take_the_shortest_way() -> None:
    for places in (topology.transit_stub(30, random.Random(1)), topology.power_law(30, 200, random.Random(1))):
        for one, other in ((0, 1), (5, 20)):
            assert places.delay_s(one, other) == pytest.approx(places.delay_s(other, one))
            links = places.path(one, other)
            assert len(set(links)) == len(links)
    matrix = topology.Matrix(topology.read_matrix("0 10\n20 0\n"), 2, random.Random(1))
    assert {matrix.delay_s(0, 1), matrix.delay_s(1, 0)} == {0.005, 0.01}
    with pytest.raises(ValueError, match="line 1 has 1 numbers: expected as many"):
        topology.read_matrix("1\n3\n")


def test_access_links_queue_and_drop() -> None:
    clock, arrived = Clock(), []
    underlay = Underlay(
        clock, random.Random(1), topology.Plane(2, random.Random(1)), {"a": 0, "b": 1}, bandwidth_bps=1e6
    )
    for number in range(50):
        underlay.carry(0, 1, 1250, arrived.append, number)
    clock.run_until(5)
    assert arrived == list(range(len(arrived)))
    assert 20 <= len(arrived) < 30, "10 ms each, 200 ms of queue"
    assert underlay.packets_lost == 50 - len(arrived)


def test_what_is_lost_of_control_comes_later() -> None:
    """As on a TCP connection: of 1,000 messages all come, a tenth after 0.2 s, a hundredth after 0.6 s."""
    clock, came_at = Clock(), []
    places = topology.Plane(2, random.Random(1))
    underlay = Underlay(clock, random.Random(1), places, {"a": 0, "b": 1}, loss=0.1)
    underlay.attach(("b", "control"), lambda *_: came_at.append(clock.now - places.delay_s(0, 1)))
    for _ in range(1000):
        underlay.send("a", ("b", "control"), b"message")
    clock.run_until(60)
    assert len(came_at) == 1000
    assert 60 < sum(at > 0.1 for at in came_at) < 140
    assert 2 < sum(at > 0.5 for at in came_at) < 30


def test_links_are_measured() -> None:
    """As by the stages' probes: every node knows the round-trip time to each whose link is up, and it is right."""
    experiment = Experiment(Scenario(engine="nemo", **SMALL))  # type: ignore[arg-type]
    experiment.run()
    for station in experiment.stations:
        desk = station.node._engine._desk  # type: ignore[attr-defined]
        assert desk.up
        for peer in desk.up:
            other = next(each for each in experiment.stations if each.node_id == peer)
            rtt_s = 2 * experiment.underlay.delay_s(station.index, other.index)
            assert desk.rtt(peer) == pytest.approx(rtt_s, rel=0.01)


@dataclass(frozen=True)
class Datagram:
    """All that a stream wants to know of one."""

    number: int


def test_streams_know_their_gaps() -> None:
    stream: Stream[Datagram] = Stream(span=4)
    assert not stream.add(Datagram(0))
    assert stream.add(Datagram(3))
    assert stream.missing == {1, 2}
    assert stream.add(Datagram(2))
    assert stream.add(Datagram(9))
    assert stream.missing == {5, 6, 7, 8}, "no farther back than what can be resent"
    assert all(stream.get(number) == Datagram(number) for number in (0, 2, 3, 9))
    assert stream.add(Datagram(5))
    assert stream.missing == {6, 7, 8}
    assert stream.get(5) is None, "what is older than the buffer takes no newer one's place"
    assert stream.get(9) == Datagram(9)


@pytest.mark.parametrize("back_at_s", [13.0, 25.0])
def test_who_is_down_has_no_outage(back_at_s: float) -> None:
    """A host that fails before it is known that it has missed a packet."""
    experiment = Experiment(Scenario(nodes=3, warmup_s=5.0, join_s=1.0, duration_s=30.0))
    experiment.clock.run_until(10.05)
    station = experiment.stations[2]
    experiment.underlay.separate([2])
    experiment.clock.run_until(12.25)
    station.crash()
    experiment.measures.went_down(2)
    experiment.underlay.reunite()
    experiment.clock.run_until(back_at_s)
    station.begin()
    assert experiment.run()["repair_s"]["count"] == 0


@pytest.mark.parametrize("crew_size", [1, 3])
def test_a_stream_that_stops_is_asked_for(crew_size: int) -> None:
    """A cluster's whole crew dies at once: what comes no more shows no gap, and the grace period is 15 s."""
    options = {"crew_size": crew_size}
    experiment = Experiment(
        Scenario(engine="nemo", options=options, nodes=24, view=PartialView, warmup_s=30.0, join_s=5.0, duration_s=80.0)
    )
    experiment.clock.run_until(40.05)
    seats = {each.node_id: each.node._engine._groups[GROUP].seats for each in experiment.stations}  # type: ignore[attr-defined]
    leads = [node for node, held in seats.items() if held[0].leader == node and len(held[0].members) > crew_size]
    lost = next(seats[node][0] for node in leads if experiment.stations[0].node_id not in seats[node][0].members)
    for station in experiment.stations:
        if station.node_id in lost.crew:
            station.crash()
            experiment.measures.went_down(station.index)
    assert len(lost.crew) == crew_size
    assert experiment.run()["delivery_ratio"] == 1.0, "it is noticed while what is missing can still be sent again"


def test_who_comes_back_at_once_is_told_everything_anew() -> None:
    """Sparse: what the former life had been told of is unknown to the next."""
    experiment = Experiment(Scenario(engine="nemo", view=PartialView, nodes=24, join_s=3.0, warmup_s=5.0))
    experiment.clock.run_until(10.0)
    for station in experiment.stations[1:]:
        station.crash()
        station.begin()
        experiment.clock.run_until(experiment.clock.now + 1.0)
        assert station.node.members(GROUP), station.name


def test_equal_records_are_held_once() -> None:
    experiment = Experiment(Scenario(nodes=4, join_s=1.0))
    experiment.clock.run_until(5.0)
    first, second, third = (station.node for station in experiment.stations[1:])
    known = [next(record for record in node.records() if record.name == "n3") for node in (first, second)]
    assert known[0] is known[1]
    assert known[0] == third.record
