"""Goal: a simulated run depends on its seed alone, and its figures are those of what happens in it.

Method: small runs, some twice; runs in which a host fails or is cut off at a given time.
"""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from pipeline.overlay.directory_view import PartialView
from pipeline.sim.experiment import GROUP, Experiment, Partition, Scenario, churn_of, run

STABLE_TREES = {"repair": "none", "merge_probability": 0, "refine_probability": 0, "refine_undersized_probability": 0}
"""Options of nemo: no member changes its cluster after all have joined."""


def small(**fields: Any) -> Scenario:
    """A scenario of 12 nodes and 20 measured seconds, but for these fields."""
    return Scenario(**{"nodes": 12, "duration_s": 40.0, "warmup_s": 20.0, "join_s": 5.0, **fields})


def test_run_depends_on_its_seed_only() -> None:
    """Goal: the same seed gives the same figures, another one does not.  Method: three runs with churn."""
    first = run(small(engine="nemo", seed=1, mttf_s=20, mttr_s=5))
    assert run(small(engine="nemo", seed=1, mttf_s=20, mttr_s=5)) == first
    assert run(small(engine="nemo", seed=2, mttf_s=20, mttr_s=5)) != first


def test_engines_share_places_and_churn() -> None:
    """Goal: engines are compared under the same conditions.  Method: trace and a delay for two engines."""
    scenarios = [small(engine=engine, mttf_s=30) for engine in ("mesh", "nemo")]
    assert churn_of(scenarios[0]) == churn_of(scenarios[1]) != []
    delays = [Experiment(scenario).underlay.delay_s(3, 7) for scenario in scenarios]
    assert delays[0] == delays[1]


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("engine", ["mesh", "nemo"])
def test_packets_arrive_exactly_once_without_failures(engine: str, seed: int) -> None:
    """Goal: nothing is lost or duplicated, and each receiver costs one copy.  Method: runs without failures."""
    figures = run(small(engine=engine, options=STABLE_TREES if engine == "nemo" else {}, seed=seed))
    assert (figures["delivery_ratio"], figures["duplicates_per_packet"]) == (1.0, 0.0)
    assert figures["packets"] >= 200
    assert figures["out_degree"]["mean"] == pytest.approx(11 / 12, rel=0.01)


def test_partial_view_delivers_as_the_full_view() -> None:
    """Goal: nodes that know only some others lose nothing.  Method: a run of nemo with partial views."""
    figures = run(small(engine="nemo", view=PartialView, options={**STABLE_TREES, "crew_size": 2}))
    assert (figures["delivery_ratio"], figures["duplicates_per_packet"]) == (1.0, 0.0)


def test_repair_makes_up_for_loss() -> None:
    """Goal: with repair almost nothing is lost at 2 % loss.

    Method: the mean of four seeds, because a delayed control message costs a single run packets by chance.
    """

    def delivery(**options: object) -> float:
        runs = (run(small(engine="nemo", options=options, seed=seed, loss=0.02, nodes=20)) for seed in range(1, 5))
        return statistics.fmean(figures["delivery_ratio"] for figures in runs)

    assert delivery(repair="none") < 0.96
    assert delivery() > 0.999


def test_partition_costs_packets_and_ends() -> None:
    """Goal: hosts that were cut off receive again.  Method: 30 % of the hosts are cut off for 3 of 100 s."""
    figures = run(small(engine="nemo", partition=Partition(25, 28, 0.3), duration_s=120.0))
    assert 0.5 < figures["delivery_ratio"] < 1


def test_engines_are_given_the_round_trip_time_of_every_link() -> None:
    """Goal: as with the stages' probes, a node knows the round-trip time to each peer whose link is up.

    Method: all links after a run, beside the delays of the underlay.
    """
    experiment = Experiment(small(engine="nemo"))
    experiment.run()
    for station in experiment.stations:
        context = station.node._engine._context  # type: ignore[attr-defined]
        assert context.up
        for peer in context.up:
            other = next(each for each in experiment.stations if each.node_id == peer)
            rtt_s = 2 * experiment.underlay.delay_s(station.index, other.index)
            assert context.rtt(peer) == pytest.approx(rtt_s, rel=0.01)


@pytest.mark.parametrize("back_at_s", [13.0, 25.0])
def test_outage_of_a_failed_host_is_not_counted(back_at_s: float) -> None:
    """Goal: time to repair is that of hosts that are up.

    Method: a host is cut off, and fails before its missed packets are evaluated.
    """
    experiment = Experiment(Scenario(nodes=3, warmup_s=5.0, join_s=1.0, duration_s=30.0))
    experiment.clock.run_until(10.05)
    experiment.underlay.partition([2])
    experiment.clock.run_until(12.25)
    experiment.fail_host(2)
    experiment.underlay.heal()
    experiment.clock.run_until(back_at_s)
    experiment.restart_host(2)
    assert experiment.run()["repair_s"]["count"] == 0


@pytest.mark.parametrize("crew_size", [1, 3])
def test_stream_that_stalls_is_repaired_in_time(crew_size: int) -> None:
    """Goal: members notice a stalled stream, which shows no gap, while missing packets can still be sent again.

    Method: the whole crew of a cluster fails at once; the grace period of nemo's failure detector is 15 s.
    """
    options = {"crew_size": crew_size}
    experiment = Experiment(
        Scenario(engine="nemo", options=options, nodes=24, view=PartialView, warmup_s=30.0, join_s=5.0, duration_s=80.0)
    )
    experiment.clock.run_until(40.05)
    clusters = {
        each.node_id: each.node._engine._groups[GROUP].hierarchy.memberships[0]  # type: ignore[attr-defined]
        for each in experiment.stations
    }
    led = [each for node, each in clusters.items() if each.leader == node and len(each.members) > crew_size]
    lost = next(each for each in led if experiment.stations[0].node_id not in each.members)
    for station in experiment.stations:
        if station.node_id in lost.crew:
            experiment.fail_host(station.index)
    assert len(lost.crew) == crew_size
    assert experiment.run()["delivery_ratio"] >= 0.996, "of 18 seeds the worst has 0.9969"


def test_restarted_node_receives_all_records_again() -> None:
    """Goal: with a partial view, records that a former incarnation held are sent to the next one.

    Method: each node fails and restarts at once.  The successor of a root is asked for again after 4 s.
    """
    experiment = Experiment(Scenario(engine="nemo", view=PartialView, nodes=24, join_s=3.0, warmup_s=5.0))
    experiment.clock.run_until(10.0)
    for station in experiment.stations[1:]:
        experiment.fail_host(station.index)
        experiment.restart_host(station.index)
        experiment.clock.run_until(experiment.clock.now + 5.0)
        assert station.node.members(GROUP), station.name


def test_equal_records_are_one_object() -> None:
    """Goal: a run with thousands of nodes fits into memory.  Method: the record of n3 at two other nodes."""
    experiment = Experiment(Scenario(nodes=4, join_s=1.0))
    experiment.clock.run_until(5.0)
    first, second, third = (station.node for station in experiment.stations[1:])
    known = [next(record for record in node.records() if record.name == "n3") for node in (first, second)]
    assert known[0] is known[1]
    assert known[0] == third.record
