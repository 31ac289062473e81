"""Goal: the virtual network does what it is told, from one seed.  Method: many datagrams, counted."""

from __future__ import annotations

import random

import pytest

from pipeline.sim.clock import Clock
from pipeline.sim.netem import Impairment, Network


def carried(impairment: Impairment, count: int = 2000, seed: int = 1) -> list[tuple[float, int]]:
    """When and which of `count` datagrams, 1 ms apart, arrive."""
    clock = Clock()
    network = Network(clock, random.Random(seed), impairment)
    arrived: list[tuple[float, int]] = []
    network.attach(("b", "data"), lambda _, number: arrived.append((clock.now, number)))
    for number in range(count):
        clock.call_at(number * 0.001, network.send, "a", ("b", "data"), number)
    clock.run_until(60)
    assert clock.now == 60
    return arrived


def test_a_clean_path_only_delays() -> None:
    assert carried(Impairment(delay_s=0.5), 3) == [(0.5, 0), (0.501, 1), (0.502, 2)]


def test_loss_and_duplicates_are_of_the_share_asked_for() -> None:
    numbers = [number for _, number in carried(Impairment(loss=0.25))]
    assert len(numbers) == pytest.approx(1500, rel=0.1)
    assert numbers == sorted(numbers)
    assert len(carried(Impairment(duplicate=0.5))) == pytest.approx(3000, rel=0.1)


def test_jitter_and_reordering_overtake() -> None:
    for impairment in (Impairment(jitter_s=0.01), Impairment(reorder=0.1)):
        numbers = [number for _, number in carried(impairment)]
        assert sorted(numbers) == list(range(2000))
        assert numbers != sorted(numbers)


def test_the_seed_decides() -> None:
    bad = Impairment(jitter_s=0.01, loss=0.1, duplicate=0.1)
    assert carried(bad, seed=1) == carried(bad, seed=1) != carried(bad, seed=2)


def test_partition_and_single_paths() -> None:
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
    network.send("a", ("nobody", "data"), "")
    clock.run_until(2)
    assert arrived[1:] == [("a", "ab")]
    assert network.counters == {"sent": 5, "lost": 1, "unreachable": 2}
