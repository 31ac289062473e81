"""Goal: a step of the wall clock counts as a restored host, the usual corrections do not.

Method: a clock that the test moves; the generation of the virtual machine is tested in namespaces, with events of the
kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.control.restore_detector import CLOCK_STEP_S, RestoreDetector


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], bool]]:
    """Return a check of a detector, after the wall clock has stepped by some seconds."""
    clock, stepped_s = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: clock() + stepped_s)
    under_test = RestoreDetector()

    def check_after(step_s: float) -> bool:
        nonlocal stepped_s
        stepped_s += step_s
        return under_test.has_been_restored()

    yield check_after
    under_test.close()


@pytest.mark.parametrize("step_s", [CLOCK_STEP_S + 1, -CLOCK_STEP_S - 1, 3600.0])
def test_step_of_the_clock_is_noticed_once(detector: Callable[[float], bool], step_s: float) -> None:
    """Goal: one step makes keys anew once.  Method: the wall clock steps, the time since boot does not."""
    assert [detector(each) for each in (0.0, step_s, 0.0, 0.0)] == [False, True, False, False]


def test_small_corrections_are_no_sign(detector: Callable[[float], bool]) -> None:
    """Goal: a time server causes no new sessions.  Method: the wall clock is corrected by a second, many times."""
    assert not any(detector(1.0) for _ in range(100))
