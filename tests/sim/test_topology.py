"""Goal: topologies give the delays of shortest paths, and the links on them.  Method: small ones from fixed seeds."""

from __future__ import annotations

import random

import pytest

from pipeline.sim import topology


@pytest.mark.parametrize("kind", ["transit-stub", "power-law"])
def test_paths_between_routers_are_symmetric_and_without_loops(kind: str) -> None:
    """Goal: a delay is the same in both directions, and no path uses a link twice.  Method: two pairs of hosts."""
    chance = random.Random(1)
    places = topology.transit_stub(30, chance) if kind == "transit-stub" else topology.power_law(30, 200, chance)
    for one, other in ((0, 1), (5, 20)):
        assert places.delay_s(one, other) == pytest.approx(places.delay_s(other, one))
        links = places.path(one, other)
        assert len(set(links)) == len(links)


def test_matrix_gives_half_of_the_round_trip() -> None:
    """Goal: a delay is half of the matrix's round-trip time, each direction its own.  Method: two hosts."""
    matrix = topology.Matrix(topology.read_matrix("0 10\n20 0\n"), 2, random.Random(1))
    assert {matrix.delay_s(0, 1), matrix.delay_s(1, 0)} == {0.005, 0.01}


def test_matrix_that_is_not_square_is_refused() -> None:
    """Goal: the wrong line is named.  Method: two rows of one number."""
    with pytest.raises(ValueError, match="line 1 has 1 numbers: expected as many"):
        topology.read_matrix("1\n3\n")
