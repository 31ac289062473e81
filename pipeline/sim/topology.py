"""Topologies: one-way delays between hosts and, where known, the physical links between them.

There are four kinds, each made from one seed: a matrix of measured round-trip times, points on a plane, a transit-stub
network, and a power-law network like those of Inet.  Hosts are numbered from 0.  A topology knows no overlay and no
time.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from array import array
from collections.abc import Sequence
from typing import Protocol, TypeAlias

PhysicalLink: TypeAlias = tuple[int, int]

SPEED_S = 0.1
"""One-way delay along a side of the unit square: about 20,000 km of fibre."""
LAST_MILE_S = 0.0005
"""One-way delay between a host and its router."""


class Topology(Protocol):
    """Places of hosts."""

    def delay_s(self, one: int, other: int) -> float:
        """Return the one-way delay between two hosts."""

    def path(self, one: int, other: int) -> Sequence[PhysicalLink]:
        """Return the physical links between two hosts; none if the topology does not model links."""


class Matrix:
    """Hosts at random places of a matrix of round-trip times in ms; hosts share places if there are too few."""

    def __init__(self, rows: Sequence[Sequence[float]], hosts: int, generator: random.Random) -> None:
        places = list(range(len(rows)))
        chosen = generator.sample(places, hosts) if hosts <= len(places) else generator.choices(places, k=hosts)
        self._rows, self._place = rows, chosen

    def delay_s(self, one: int, other: int) -> float:
        """Return half of the round-trip time."""
        a, b = self._place[one], self._place[other]
        return max(LAST_MILE_S, self._rows[a][b] / 2e3)

    def path(self, one: int, other: int) -> Sequence[PhysicalLink]:  # noqa: ARG002
        """Return no links: they are unknown."""
        return ()


def read_matrix(text: str) -> list[list[float]]:
    """Return rows of round-trip times in ms; ValueError names the line that is wrong."""
    rows: list[list[float]] = []
    lines = [(number, line.replace(",", " ").split()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, words) for number, words in lines if words]
    if not lines:
        raise ValueError("expected round-trip times in ms, a row a line")
    for number, words in lines:
        if len(words) != len(lines):
            raise ValueError(f"line {number} has {len(words)} numbers: expected as many as rows, {len(lines)}")
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = [math.nan]
        if not all(0 <= each < math.inf for each in row):
            raise ValueError(f"line {number}: expected round-trip times in ms, 0 or more")
        rows.append(row)
    return rows


class Plane:
    """Hosts at random points of a unit square."""

    def __init__(self, hosts: int, generator: random.Random) -> None:
        self._points = [(generator.random(), generator.random()) for _ in range(hosts)]

    def delay_s(self, one: int, other: int) -> float:
        """Return the delay of a straight line and of both last miles."""
        return 2 * LAST_MILE_S + SPEED_S * math.dist(self._points[one], self._points[other])

    def path(self, one: int, other: int) -> Sequence[PhysicalLink]:  # noqa: ARG002
        """Return no links: there are none."""
        return ()


class Routers:
    """Hosts at routers of a graph; packets take the shortest path."""

    def __init__(self, graph: Sequence[dict[int, float]], places: Sequence[int]) -> None:
        self._graph = graph
        """By router: its neighbours and the delay to each."""
        self._place = places
        """By host: its router."""
        self._trees: dict[int, tuple[array[float], array[int]]] = {}

    def delay_s(self, one: int, other: int) -> float:
        """Return the delay of the shortest path and of both last miles."""
        a, b = self._place[one], self._place[other]
        if b in self._trees:
            a, b = b, a
        return 2 * LAST_MILE_S + self._tree(a)[0][b]

    def path(self, one: int, other: int) -> Sequence[PhysicalLink]:
        """Return the links between the routers of two hosts."""
        a, b = self._place[one], self._place[other]
        previous = self._tree(a)[1]
        links = []
        while b != a:
            links.append((previous[b], b))
            b = previous[b]
        return links

    def _tree(self, root: int) -> tuple[array[float], array[int]]:
        """Return the delay of each router from `root`, and its predecessor on the shortest path (Dijkstra)."""
        found = self._trees.get(root)
        if found is not None:
            return found
        distance, previous = [math.inf] * len(self._graph), [root] * len(self._graph)
        distance[root] = 0.0
        queue = [(0.0, root)]
        while queue:
            so_far, router = heapq.heappop(queue)
            if so_far > distance[router]:
                continue
            for neighbour, delay_s in self._graph[router].items():
                through = so_far + delay_s
                if through < distance[neighbour]:
                    distance[neighbour], previous[neighbour] = through, router
                    # A router with one link is on no path between others.
                    if len(self._graph[neighbour]) > 1:
                        heapq.heappush(queue, (through, neighbour))
        # Arrays, because lists would take three times the memory with thousands of hosts and routers.
        found = self._trees[root] = array("d", distance), array("i", previous)
        return found


def _connect(graph: list[dict[int, float]], one: int, other: int, delay_s: float) -> None:
    if one != other:
        graph[one][other] = graph[other][one] = delay_s


def transit_stub(hosts: int, generator: random.Random) -> Routers:
    """Return transit domains with stub domains of four routers at each transit router (Zegura et al., 1996)."""
    domains, transits, stubs, size = 4, 4, 3, 4
    graph: list[dict[int, float]] = [{} for _ in range(domains * transits * (1 + stubs * size))]
    core = [list(range(domain * transits, (domain + 1) * transits)) for domain in range(domains)]
    for domain in core:
        for one, other in zip(domain, domain[1:] + domain[:1], strict=True):
            _connect(graph, one, other, generator.uniform(0.005, 0.02))
    for a in range(domains):
        for b in range(a):
            _connect(graph, generator.choice(core[a]), generator.choice(core[b]), generator.uniform(0.02, 0.05))
    at = domains * transits
    edge = list(range(at, len(graph)))
    for transit in range(domains * transits):
        for _ in range(stubs):
            members = list(range(at, at + size))
            at += size
            _connect(graph, transit, members[0], generator.uniform(0.002, 0.01))
            for one, other in itertools.pairwise(members):
                _connect(graph, one, other, generator.uniform(0.0005, 0.002))
    return Routers(graph, [generator.choice(edge) for _ in range(hosts)])


def power_law(hosts: int, routers: int, generator: random.Random) -> Routers:
    """Return routers that attach to others in proportion to their degree, as in Inet; links have 1 … 4 ms."""
    graph: list[dict[int, float]] = [{} for _ in range(routers)]
    ends: list[int] = [0, 1]
    _connect(graph, 0, 1, generator.uniform(0.001, 0.004))
    for router in range(2, routers):
        for _ in range(1 + (generator.random() < 0.6)):
            other = generator.choice(ends)
            _connect(graph, router, other, generator.uniform(0.001, 0.004))
            ends += [router, other]
    leaves = [router for router in range(routers) if len(graph[router]) <= 2]
    places = generator.sample(leaves, hosts) if hosts <= len(leaves) else generator.choices(leaves, k=hosts)
    return Routers(graph, places)
