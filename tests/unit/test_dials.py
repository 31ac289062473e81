"""Goal: endpoints that do not answer get few connections, however many records name them; honest ones wait for none.
Method: Dials on virtual time."""

from __future__ import annotations

import random

import pytest

from pipeline import limits
from pipeline.io.dials import Dials


@pytest.fixture
def dials() -> Dials:
    return Dials(("192.0.2.9:4747",), random=random.Random(1).random, now=0.0)


def endpoint(number: int) -> str:
    return f"198.51.100.{number % 250 + 1}:{4747 + number // 250}"


def count_begun(dials: Dials, endpoints: list[str], *, seconds: float = 0.0) -> int:
    """Ask for all endpoints ten times a second."""
    steps = int(seconds * 10) + 1
    return sum(dials.begin(each, step / 10) for step in range(steps) for each in endpoints)


def test_invented_endpoints_share_a_budget(dials: Dials) -> None:
    """Goal: 12 connections in the worst minute.  Method: 900 records of 900 hosts."""
    endpoints = [endpoint(number) for number in range(900)]
    for number, each in enumerate(endpoints):
        dials.record_received(each, f"203.0.113.{number}")
    assert limits.DIALS_MAX < count_begun(dials, endpoints, seconds=60) <= limits.DIALS_MAX + 60 / limits.DIALS_REFILL_S
    assert dials.refused > 1000


def test_one_host_does_not_use_the_places_of_all(dials: Dials) -> None:
    """Goal: records of another host get connections too.  Method: one host invents 100 endpoints first."""
    invented = [endpoint(number) for number in range(100)]
    for each in invented:
        dials.record_received(each, "203.0.113.1")
    assert count_begun(dials, invented) == limits.DIALS_PER_REPORTER
    dials.record_received("192.0.2.50:4747", "203.0.113.2")
    assert dials.begin("192.0.2.50:4747", 0.0)


def test_answers_give_places_back(dials: Dials) -> None:
    """Goal: 1,000 nodes that answer are all connected at once.  Method: each answers before the next is called."""
    for number in range(1000):
        assert dials.begin(endpoint(number), 0.0)
        dials.answered(endpoint(number))
    assert dials.begin(endpoint(0), 0.0), "a node that has answered is called without a limit"


def test_silent_endpoint_is_called_less_and_less(dials: Dials) -> None:
    """Goal: connections to one endpoint become rare.  Method: ten minutes of requests ten times a second."""
    assert 4 <= count_begun(dials, ["192.0.2.50:4747"], seconds=600) <= 12


def test_configured_peer_and_host_that_has_connected_have_no_share_in_it(dials: Dials) -> None:
    """Goal: a flood of records delays no node that the operator has named, or that calls itself.
    Method: the budget is used up before."""
    count_begun(dials, [endpoint(number) for number in range(100)])
    assert dials.begin("192.0.2.9:4747", 0.0)
    assert dials.begin("192.0.2.9:4747", 0.0)
    assert not dials.begin("192.0.2.50:4747", 0.0)
    dials.host_connected("192.0.2.50", 0.0)
    assert dials.begin("192.0.2.50:4747", 0.0)
    assert count_begun(dials, [f"192.0.2.50:{port}" for port in range(5000, 6000)]) == limits.DIALS_PER_HOST - 1
