"""Search for the highest rate, with simulated senders and networks."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from perf.search import Phase, RateSearch


def run(search: RateSearch, passes: Callable[[float], bool], sender_max: float = 1e9) -> list[float]:
    """Run a search to its end; return the rates of its trials."""
    rates = []
    while trial := search.next_trial():
        rates.append(trial.rate)
        reached = min(trial.rate, sender_max)
        search.record(passed=passes(reached), reached=reached)
    return rates


@pytest.mark.parametrize("ceiling", [150.0, 3_000.0, 8_000.0, 51_700.0, 400_000.0])
def test_finds_a_ceiling_from_either_side(ceiling: float) -> None:
    """Goal: the result is at most the ceiling and differs from it by the precision at most.
    Method: every rate up to the ceiling passes; the search starts at 8,000."""
    search = RateSearch(8_000)
    rates = run(search, lambda rate: rate <= ceiling)
    assert search.best is not None
    assert ceiling / 1.07 <= search.best <= ceiling
    assert len(rates) < 30


def test_start_near_the_result_needs_fewer_trials() -> None:
    """Goal: later rounds, which start near the earlier result, need fewer trials.
    Method: number of trials for a ceiling of 100,000 from a start far away and from one nearby."""
    far, near = RateSearch(8_000), RateSearch(85_000, growth=1.2)
    far_trials, near_trials = (len(run(search, lambda rate: rate <= 100_000)) for search in (far, near))
    assert near_trials < far_trials
    assert near.best == pytest.approx(100_000, rel=0.07)


def test_slow_sender_ends_the_search() -> None:
    """Goal: the search ends with the rate of the sender when that is the limit.
    Method: nothing is lost, and the sender reaches 30,000."""
    search = RateSearch(8_000)
    run(search, lambda _: True, sender_max=30_000)
    assert search.best == pytest.approx(30_000, rel=0.08)


def test_search_without_a_pass_has_no_result() -> None:
    """Goal: the search ends without a result when no rate passes.
    Method: every trial fails."""
    search = RateSearch(8_000)
    run(search, lambda _: False)
    assert search.best is None
    assert search.phase is Phase.DONE


def test_single_random_failures_do_not_lower_the_result() -> None:
    """Goal: noise does not halve the result.
    Method: one trial in ten fails at random, with a hundred seeds."""
    found = []
    for seed in range(100):
        chance = random.Random(seed)
        search = RateSearch(8_000)
        run(search, lambda rate, chance=chance: rate <= 60_000 and chance.random() > 0.1)
        assert search.best is not None
        found.append(search.best)
    assert max(found) <= 60_000
    assert sorted(found)[10] > 50_000


def test_unconfirmed_rate_is_lowered() -> None:
    """Goal: the result is a rate that a confirming trial has passed.
    Method: short trials pass up to 50,000, confirming ones only up to 40,000."""
    search = RateSearch(8_000)
    while trial := search.next_trial():
        search.record(passed=trial.rate <= (40_000 if trial.confirms else 50_000), reached=trial.rate)
    assert search.best is not None
    assert 36_000 < search.best <= 40_000


def test_number_of_trials_is_bounded() -> None:
    """Goal: the number of trials is bounded whatever their outcomes.
    Method: trials pass and fail at random."""
    for seed in range(50):
        chance = random.Random(seed)
        search = RateSearch(8_000, trials_max=25)
        assert len(run(search, lambda _, chance=chance: chance.random() < 0.5)) <= 25
