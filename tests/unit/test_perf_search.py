"""The search for the highest rate, against senders and networks made of arithmetic."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from perf.search import Phase, RateSearch


def run(search: RateSearch, passes: Callable[[float], bool], sender_max: float = 1e9) -> list[float]:
    """Drive a search to its end; the rates that it asked for."""
    asked = []
    while ask := search.ask():
        asked.append(ask.rate)
        reached = min(ask.rate, sender_max)
        search.tell(passed=passes(reached), reached=reached)
    return asked


@pytest.mark.parametrize("ceiling", [150.0, 3_000.0, 8_000.0, 51_700.0, 400_000.0])
def test_finds_a_ceiling_from_either_side(ceiling: float) -> None:
    """Goal: the answer is at most the ceiling and within the precision of it.
    Method: everything up to the ceiling passes, from a start of 8,000."""
    search = RateSearch(8_000)
    asked = run(search, lambda rate: rate <= ceiling)
    assert search.best is not None
    assert ceiling / 1.07 <= search.best <= ceiling
    assert len(asked) < 30


def test_start_near_an_earlier_answer_is_shorter() -> None:
    """Goal: later rounds cost less.
    Method: count the trials from far and from near to a ceiling of 100,000."""
    far, near = RateSearch(8_000), RateSearch(85_000, growth=1.2)
    far_trials, near_trials = (len(run(search, lambda rate: rate <= 100_000)) for search in (far, near))
    assert near_trials < far_trials
    assert near.best == pytest.approx(100_000, rel=0.07)


def test_sender_is_the_ceiling() -> None:
    """Goal: a sender that cannot go faster ends the search with what it reached.
    Method: nothing is ever lost, the sender does 30,000."""
    search = RateSearch(8_000)
    run(search, lambda _: True, sender_max=30_000)
    assert search.best == pytest.approx(30_000, rel=0.08)


def test_nothing_passes() -> None:
    """Goal: the search ends, and says that there is no rate.
    Method: every trial fails."""
    search = RateSearch(8_000)
    run(search, lambda _: False)
    assert search.best is None
    assert search.phase is Phase.DONE


def test_one_failure_by_chance_is_forgiven() -> None:
    """Goal: noise does not halve the answer.
    Method: one trial in ten fails whatever its rate, with a hundred seeds."""
    found = []
    for seed in range(100):
        chance = random.Random(seed)
        search = RateSearch(8_000)
        run(search, lambda rate, chance=chance: rate <= 60_000 and chance.random() > 0.1)
        assert search.best is not None
        found.append(search.best)
    assert max(found) <= 60_000
    assert sorted(found)[10] > 50_000


def test_what_cannot_be_confirmed_is_lowered() -> None:
    """Goal: the answer is what a long trial confirmed.
    Method: short trials pass up to 50,000, the confirming ones only up to 40,000."""
    search = RateSearch(8_000)
    while ask := search.ask():
        search.tell(passed=ask.rate <= (40_000 if ask.confirms else 50_000), reached=ask.rate)
    assert search.best is not None
    assert 36_000 < search.best <= 40_000


def test_always_ends() -> None:
    """Goal: the number of trials is bounded whatever comes.
    Method: trials pass and fail at random."""
    for seed in range(50):
        chance = random.Random(seed)
        search = RateSearch(8_000, trials_max=25)
        assert len(run(search, lambda _, chance=chance: chance.random() < 0.5)) <= 25
