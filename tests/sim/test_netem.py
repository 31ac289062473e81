"""Goal: the virtual network impairs datagrams as configured, from one seed.  Method: many datagrams, counted."""

from __future__ import annotations

import random

import pytest

from pipeline.sim.clock import Clock
from pipeline.sim.netem import Impairment, Network


def arrivals(impairment: Impairment, count: int = 2000, seed: int = 1) -> list[tuple[float, int]]:
    """Return arrival times and numbers of `count` datagrams that are sent 1 ms apart."""
    clock = Clock()
    network = Network(clock, random.Random(seed), impairment)
    arrived: list[tuple[float, int]] = []
    network.attach(("b", "data"), lambda _, number: arrived.append((clock.now, number)))
    for number in range(count):
        clock.call_at(number * 0.001, network.send, "a", ("b", "data"), number)
    clock.run_until(60)
    assert clock.now == 60
    return arrived


def test_path_without_loss_only_delays() -> None:
    """Goal: order and spacing are kept.  Method: three datagrams on a path of 0.5 s."""
    assert arrivals(Impairment(delay_s=0.5), 3) == [(0.5, 0), (0.501, 1), (0.502, 2)]


def test_loss_and_duplication_have_the_configured_share() -> None:
    """Goal: the shares are those of the impairment.  Method: 2,000 datagrams, within 10 %."""
    numbers = [number for _, number in arrivals(Impairment(loss=0.25))]
    assert len(numbers) == pytest.approx(1500, rel=0.1)
    assert numbers == sorted(numbers)
    assert len(arrivals(Impairment(duplicate=0.5))) == pytest.approx(3000, rel=0.1)


@pytest.mark.parametrize("impairment", [Impairment(jitter_s=0.01), Impairment(reorder=0.1)])
def test_jitter_and_reordering_change_the_order(impairment: Impairment) -> None:
    """Goal: datagrams overtake each other, and none is lost.  Method: the numbers in order of arrival."""
    numbers = [number for _, number in arrivals(impairment)]
    assert sorted(numbers) == list(range(2000))
    assert numbers != sorted(numbers)


def test_seed_determines_all_arrivals() -> None:
    """Goal: runs can be repeated.  Method: the same seed twice, and another one."""
    bad = Impairment(jitter_s=0.01, loss=0.1, duplicate=0.1)
    assert arrivals(bad, seed=1) == arrivals(bad, seed=1) != arrivals(bad, seed=2)


def test_partition_and_single_path_impairment() -> None:
    """Goal: islands are separate until the partition heals, and one direction of a path can be bad alone.

    Method: a is cut off, and b → c loses all.
    """
    clock = Clock()
    network = Network(clock, random.Random(1))
    arrived: list[tuple[str, str]] = []
    for name in "abc":
        network.attach((name, "data"), lambda sender, datagram: arrived.append((sender, datagram)))
    network.partition(["a"])
    network.impair("b", "c", Impairment(loss=1.0))
    for sender, receiver in ("ab", "bc", "cb"):
        network.send(sender, (receiver, "data"), sender + receiver)
    clock.run_until(1)
    assert arrived == [("c", "cb")]
    network.heal()
    network.send("a", ("b", "data"), "ab")
    network.send("a", ("absent", "data"), "")
    clock.run_until(2)
    assert arrived[1:] == [("a", "ab")]
    assert network.counters == {"sent": 5, "lost": 1, "unreachable": 2}
