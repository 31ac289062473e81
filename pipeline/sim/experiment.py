"""One simulated run from one seed: a source, hosts that join, failures, and the figures.

Hosts join at random times during the first `join_s`.  Packets count from `warmup_s` on.  Host n0 is the source and the
rendezvous, and never fails.  Each purpose has a random generator of its own, derived from the seed: engines that run
with the same seed have the same places, join times and churn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from pipeline import engines
from pipeline.address import NodeId, parse
from pipeline.messages import NodeRecord, Stamp
from pipeline.overlay.directory_view import DirectoryView, FullView, PartialView
from pipeline.overlay.node_config import NodeConfig
from pipeline.sim import churn, topology
from pipeline.sim.clock import Clock
from pipeline.sim.host import endpoint_of
from pipeline.sim.identity import SimulatedIdentity
from pipeline.sim.measures import Measures
from pipeline.sim.station import Station
from pipeline.sim.topology import Topology
from pipeline.sim.underlay import Underlay

GROUP = parse("239.1.2.3")
PARTIAL_VIEW_FROM = 65
"""Number of nodes from which they have partial views, if the engine supports that."""
PROGRESS_STEPS = 200
"""Progress reports of a run, at most one for each virtual second."""

Progress: TypeAlias = Callable[[float, float], object]
"""Called at times with the virtual seconds that are done, and with all of them."""


class Partition(NamedTuple):
    """A share of the hosts that is cut off from the others for a time."""

    begin_s: float
    end_s: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Parameters of a run."""

    engine: str = "mesh"
    options: Mapping[str, object] = field(default_factory=dict)
    """The engine's own table of the configuration."""
    nodes: int = 128
    seed: int = 1
    duration_s: float = 600.0
    join_s: float = 60.0
    warmup_s: float = 120.0
    rate_pps: float = 10.0
    packet_bytes: int = 100
    late_s: float = 5.0
    """Time after which a packet counts as lost."""
    topology: str = "plane"
    """plane, transit-stub, power-law or matrix."""
    routers: int = 3072
    """Routers of a power-law topology."""
    matrix: Sequence[Sequence[float]] = ()
    """Round-trip times in ms."""
    loss: float = 0.0
    """Share of all datagrams and of all TCP segments that is lost."""
    bandwidth_bps: float | None = None
    """Rate of each direction of an access link; None: not limited."""
    mttf_s: float | None = None
    """Mean time to failure of a host; None: no churn, unless there is a trace."""
    mttr_s: float = 120.0
    """Mean time from a failure to the host's return."""
    churn_s: tuple[float, float] | None = None
    """Begin and end of churn; by default it lasts from warm-up to the end of the run."""
    trace: Sequence[churn.ChurnEvent] | None = None
    """Takes the place of random churn."""
    partition: Partition | None = None
    view: type[DirectoryView] | None = None
    """None: by the number of nodes and the engine."""


def generator(scenario: Scenario, purpose: str) -> random.Random:
    """Return a generator that depends on the seed and the purpose alone."""
    return random.Random(f"{scenario.seed}/{purpose}")


def default_view(scenario: Scenario) -> type[DirectoryView]:
    """Return the view of a scenario that names none."""
    is_large = scenario.nodes >= PARTIAL_VIEW_FROM
    return PartialView if is_large and engines.load(scenario.engine).supports_partial_view else FullView


def topology_of(scenario: Scenario) -> Topology:
    """Return the places of the hosts."""
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


def churn_of(scenario: Scenario) -> list[churn.ChurnEvent]:
    """Return the failures and returns of hosts."""
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
    """One object for equal records: every node holds the records of hundreds of others."""

    def __init__(self) -> None:
        self._held: dict[tuple[NodeId, Stamp, bool], NodeRecord] = {}

    def share(self, record: NodeRecord) -> NodeRecord:
        """Return the first of all equal records."""
        held = self._held.setdefault((record.node_id, record.stamp, record.has_keys), record)
        return held if held == record else record


class Experiment:
    """A run that is ready to start."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = Clock()
        places = topology_of(scenario)
        self.underlay = Underlay(
            self.clock,
            generator(scenario, "network"),
            places,
            {endpoint_of(index): index for index in range(scenario.nodes)},
            loss=scenario.loss,
            bandwidth_bps=scenario.bandwidth_bps,
        )
        self.stations: list[Station] = []
        self.measures = Measures(self.clock, places, self.stations, scenario.late_s)
        self._make_stations()
        self._schedule()

    def _make_stations(self) -> None:
        scenario = self.scenario
        options = dict(scenario.options)
        if scenario.engine == "nemo":
            options.setdefault("rendezvous", ("n0",))
        view = scenario.view or default_view(scenario)
        hosts_by_id: dict[NodeId, int] = {}
        records = SharedRecords()
        chance = generator(scenario, "hosts")
        for index in range(scenario.nodes):
            config = NodeConfig(
                name=f"n{index}",
                identity=SimulatedIdentity(f"n{index}"),
                endpoint=endpoint_of(index),
                incarnation=1,
                sender_key=b"",
                engine=scenario.engine,
                engine_options=options,
                peers=(endpoint_of(0),),
                view=view,
                share=records.share,
            )
            station = Station(
                index,
                config,
                self.clock,
                self.underlay,
                random.Random(chance.random()),
                measures=self.measures,
                hosts_by_id=hosts_by_id,
                stations=self.stations,
                packet_bytes=scenario.packet_bytes,
                group=GROUP,
            )
            self.stations.append(station)

    def _schedule(self) -> None:
        scenario, call = self.scenario, self.clock.call_at
        chance = generator(scenario, "joins")
        call(0.0, self.stations[0].start)
        call(0.1, self.stations[0].register_source, GROUP)
        for station in self.stations[1:]:
            call(0.2 + chance.random() * scenario.join_s, station.start)
        for event in churn_of(scenario):
            call(event.at_s, self.restart_host if event.is_up else self.fail_host, event.host)
        if scenario.partition is not None:
            hosts = range(1, scenario.nodes)
            cut = generator(scenario, "partition").sample(hosts, int(scenario.partition.share * len(hosts)))
            call(scenario.partition.begin_s, self.underlay.partition, cut)
            call(scenario.partition.end_s, self.underlay.heal)
        call(scenario.warmup_s / 2, self._send)
        call(scenario.warmup_s, self._begin_measures)

    def _control_sent(self) -> tuple[int, int]:
        return self.underlay.control_bytes, self.underlay.control_messages

    def _begin_measures(self) -> None:
        self.measures.begin(self._control_sent())

    def _send(self) -> None:
        self.stations[0].send()
        if self.clock.now < self.scenario.duration_s:
            self.clock.call_at(self.clock.now + 1 / self.scenario.rate_pps, self._send)

    def fail_host(self, index: int) -> None:
        """Stop a host without notice, unless it is down."""
        station = self.stations[index]
        if station.is_running:
            station.crash()
            self.measures.record_failure(index)

    def restart_host(self, index: int) -> None:
        """Start a host that is down."""
        if not self.stations[index].is_running:
            self.stations[index].start()

    def run(self, progress: Progress | None = None) -> dict[str, Any]:
        """Run to the end, and return the figures."""
        end = self.scenario.duration_s
        step = max(1.0, end / PROGRESS_STEPS)
        while self.clock.now < end:
            self.clock.run_until(min(end, self.clock.now + step))
            if progress is not None:
                progress(self.clock.now, end)
        self.measures.end(self._control_sent())
        self.clock.run_until(end + self.scenario.late_s)
        return self.measures.figures()


def run(scenario: Scenario, progress: Progress | None = None) -> dict[str, Any]:
    """Run a scenario, and return its figures; ConfigError if there is no such engine."""
    engines.load(scenario.engine)
    return Experiment(scenario).run(progress)
