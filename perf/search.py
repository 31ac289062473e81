"""Search for the highest rate that passes: which rate to try next.

The search does not know what a trial is. A trial passes or fails, and reports the rate that was really reached, since a
slow sender reaches less than the planned rate. Trials are noisy on a shared machine: one pass is enough for a rate, and
two failures in a row are needed before it counts as too high.

    ramp ── fails twice ──▶ bisect ── bounds within `precision` ──▶ confirm ── passes ──▶ done
      └──── reached less than planned ───────────────────────────▶     └─ fails: `step_back`, again
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

REACHED_SHARE = 0.93
"""A trial that reached less than this share of the planned rate has shown the limit of the sender."""

FAILURES = 2
"""Failed trials after which a rate counts as too high."""


class Phase(Enum):
    """Phase of a search."""

    RAMP = "ramp"
    BISECT = "bisect"
    CONFIRM = "confirm"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """Next trial of a search. A confirming trial is longer, since its figures are the ones that are reported."""

    rate: float
    confirms: bool


class RateSearch:
    """Search driven by its caller: run `next_trial()`, pass the outcome to `record()`, until there is no next trial.

    `best` is then the highest confirmed rate, or None.
    """

    def __init__(
        self,
        start: float,
        *,
        low: float = 100.0,
        growth: float = 1.6,
        precision: float = 1.06,
        step_back: float = 0.94,
        trials_max: int = 40,
    ) -> None:
        assert 0 < low <= start, "a search starts above its lowest rate"
        self.phase = Phase.RAMP
        self.best: float | None = None
        self.trials = 0
        self._rate = start
        self._low = low
        self._passed: float | None = None
        self._failed: float | None = None
        self._growth = growth
        self._precision = precision
        self._step_back = step_back
        self._trials_max = trials_max
        self._failures = 0

    def next_trial(self) -> PlannedTrial | None:
        if self.phase is Phase.DONE:
            return None
        return PlannedTrial(self._rate, confirms=self.phase is Phase.CONFIRM)

    def record(self, *, passed: bool, reached: float) -> None:
        assert self.phase is not Phase.DONE, "the search is over"
        self.trials += 1
        if passed:
            self._failures = 0
            self._handle_pass(reached)
        else:
            self._failures += 1
            if self._failures >= FAILURES:
                self._failures = 0
                self._handle_failure()
        if self.trials >= self._trials_max:
            self.phase = Phase.DONE

    def _handle_pass(self, reached: float) -> None:
        if self.phase is Phase.CONFIRM:
            self.best = min(reached, self._rate)
            self.phase = Phase.DONE
            return
        self._passed = self._rate
        if reached < REACHED_SHARE * self._rate:
            self._passed = reached
            self._confirm()
        elif self._failed is None:
            self._rate *= self._growth
        else:
            self._narrow()

    def _handle_failure(self) -> None:
        if self._rate <= self._low:
            self.phase = Phase.DONE
        elif self.phase is Phase.CONFIRM:
            self._rate = max(self._low, self._rate * self._step_back)
        else:
            self._failed = self._rate
            if self._passed is None:
                self._rate = max(self._low, self._rate / self._growth**2)
            else:
                self._narrow()

    def _narrow(self) -> None:
        assert self._passed is not None, "no rate has passed"
        assert self._failed is not None, "no rate has failed"
        if self._failed / self._passed <= self._precision:
            self._confirm()
            return
        self.phase = Phase.BISECT
        self._rate = (self._passed * self._failed) ** 0.5

    def _confirm(self) -> None:
        assert self._passed is not None, "no rate has passed"
        self.phase = Phase.CONFIRM
        self._rate = self._passed
