"""One simulated run from one seed: a source, many hosts that join, trouble, and the figures.

Time goes so: hosts join at random times during `join_s`; from `warmup_s` on packets count; churn, loss and partitions
last until `end`.  The rendezvous and the source are spared by churn: n0 is both.  Everything random comes from `seed`,
each purpose with a generator of its own, so that engines with the same seed meet the same places, joins and churn.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import engines
from pipeline.address import NodeId, parse
from pipeline.messages import NodeRecord, Stamp
from pipeline.overlay.directory_view import DirectoryView, FullView, PartialView
from pipeline.overlay.node import NodeConfig
from pipeline.sim import churn, topology
from pipeline.sim.clock import Clock
from pipeline.sim.cluster import endpoint_of
from pipeline.sim.measures import Measures, Progress
from pipeline.sim.station import Station
from pipeline.sim.topology import Topology
from pipeline.sim.underlay import Underlay

GROUP = parse("239.1.2.3")
PARTIAL_VIEW_FROM = 65
"""Number of nodes from which they have partial views, if the engine supports that."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is to be simulated."""

    engine: str = "mesh"
    options: Mapping[str, object] = field(default_factory=dict)
    nodes: int = 128
    seed: int = 1
    duration_s: float = 600.0
    join_s: float = 60.0
    warmup_s: float = 120.0
    rate: float = 10.0
    """Packets a second."""
    packet_bytes: int = 100
    late_s: float = 5.0
    topology: str = "plane"
    """plane, transit-stub, power-law or matrix."""
    routers: int = 3072
    matrix: Sequence[Sequence[float]] = ()
    loss: float = 0.0
    bandwidth_bps: float | None = None
    mttf_s: float | None = None
    mttr_s: float = 120.0
    churn_s: tuple[float, float] | None = None
    """When churn begins and ends; by default from warm-up to the end."""
    trace: Sequence[churn.Turn] | None = None
    """Instead of churn of its own."""
    partition: tuple[float, float, float] | None = None
    """Begin, end, and the share of hosts that is cut off."""
    view: type[DirectoryView] | None = None
    """None: by the number of nodes and the engine."""


def generator(scenario: Scenario, purpose: str) -> random.Random:
    """A generator that depends on the seed and the purpose alone."""
    return random.Random(f"{scenario.seed}/{purpose}")


def default_view(scenario: Scenario) -> type[DirectoryView]:
    """Return the view of a scenario that names none."""
    is_large = scenario.nodes >= PARTIAL_VIEW_FROM
    return PartialView if is_large and engines.load(scenario.engine).supports_partial_view else FullView


def place(scenario: Scenario) -> Topology:
    """The hosts' places."""
    chance = generator(scenario, "places")
    match scenario.topology:
        case "matrix":
            return topology.Matrix(scenario.matrix, scenario.nodes, chance)
        case "transit-stub":
            return topology.transit_stub(scenario.nodes, chance)
        case "power-law":
            return topology.power_law(scenario.nodes, scenario.routers, chance)
        case _:
            return topology.Plane(scenario.nodes, chance)


def trace_of(scenario: Scenario) -> list[churn.Turn]:
    """The churn that every engine meets with this seed."""
    if scenario.trace is not None:
        return sorted(scenario.trace)
    if scenario.mttf_s is None:
        return []
    begin_s, end_s = scenario.churn_s or (scenario.warmup_s, scenario.duration_s)
    return churn.exponential(
        range(1, scenario.nodes),
        begin_s=begin_s,
        end_s=end_s,
        mttf_s=scenario.mttf_s,
        mttr_s=scenario.mttr_s,
        generator=generator(scenario, "churn"),
    )


class SharedRecords:
    """All nodes' records, each once: every node holds those of hundreds of others."""

    def __init__(self) -> None:
        self._held: dict[tuple[NodeId, Stamp], NodeRecord] = {}

    def share(self, record: NodeRecord) -> NodeRecord:
        """The record that was first of those that are equal."""
        held = self._held.setdefault((record.node_id, record.stamp), record)
        return held if held == record else record


class Experiment:
    """A run, ready to go."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = Clock()
        places = place(scenario)
        numbers = {endpoint_of(index): index for index in range(scenario.nodes)}
        self.underlay = Underlay(
            self.clock,
            generator(scenario, "network"),
            places,
            numbers,
            loss=scenario.loss,
            bandwidth_bps=scenario.bandwidth_bps,
        )
        self.measures = Measures(self.clock, places, scenario.nodes, scenario.late_s)
        self.stations: list[Station] = []
        options = dict(scenario.options)
        if scenario.engine == "nemo":
            options.setdefault("rendezvous", ("n0",))
        view = scenario.view or default_view(scenario)
        hosts_by_id: dict[int, int] = {}
        records = SharedRecords()
        chance = generator(scenario, "hosts")
        for index in range(scenario.nodes):
            config = NodeConfig(
                name=f"n{index}",
                endpoint=endpoint_of(index),
                incarnation=1,
                sender_key=b"",
                engine=scenario.engine,
                engine_options=options,
                peers=(endpoint_of(0),),
                view=view,
                share=records.share,
            )
            self.stations.append(
                Station(
                    index,
                    config,
                    self.clock,
                    self.underlay,
                    random.Random(chance.random()),
                    measures=self.measures,
                    numbers=hosts_by_id,
                    stations=self.stations,
                    packet_bytes=scenario.packet_bytes,
                    group=GROUP,
                )
            )
        self.measures.watch(self.stations)
        self._plan()

    def _plan(self) -> None:
        scenario, call = self.scenario, self.clock.call_at
        chance = generator(scenario, "joins")
        call(0.0, self.stations[0].begin)
        call(0.1, self.stations[0].announce)
        for station in self.stations[1:]:
            call(0.2 + chance.random() * scenario.join_s, station.begin)
        for turn in trace_of(scenario):
            call(turn.at_s, self._come_back if turn.up else self._fail, turn.host)
        if scenario.partition is not None:
            begin_s, end_s, share = scenario.partition
            hosts = range(1, scenario.nodes)
            cut = generator(scenario, "partition").sample(hosts, int(share * len(hosts)))
            call(begin_s, self.underlay.separate, cut)
            call(end_s, self.underlay.reunite)
        call(scenario.warmup_s / 2, self._emit)
        call(scenario.warmup_s, self._begin)

    def _control(self) -> tuple[int, int]:
        return self.underlay.control_bytes, self.underlay.control_messages

    def _begin(self) -> None:
        self.measures.begin(self._control())

    def _emit(self) -> None:
        self.stations[0].emit()
        if self.clock.now < self.scenario.duration_s:
            self.clock.call_at(self.clock.now + 1 / self.scenario.rate, self._emit)

    def _fail(self, index: int) -> None:
        station = self.stations[index]
        if station.is_running:
            station.crash()
            self.measures.went_down(index)

    def _come_back(self, index: int) -> None:
        if not self.stations[index].is_running:
            self.stations[index].begin()

    def run(self, progress: Progress | None = None) -> dict[str, Any]:
        """Let it happen; the figures."""
        end = self.scenario.duration_s
        step = max(1.0, end / 200)
        while self.clock.now < end:
            self.clock.run_until(min(end, self.clock.now + step))
            if progress is not None:
                progress(self.clock.now, end)
        self.measures.end(self._control())
        self.clock.run_until(end + self.scenario.late_s)
        return self.measures.figures()


def run(scenario: Scenario, progress: Progress | None = None) -> dict[str, Any]:
    """One run; ConfigError if there is no such engine."""
    engines.load(scenario.engine)
    return Experiment(scenario).run(progress)
