"""Goal: a worker runs on its CPU, and an absent CPU is found before any worker starts.
Method: the CPUs of this machine, and one that no machine has."""

from __future__ import annotations

import os

from pipeline.io import process

NO_CPU = 1023


def test_absent_cpus_are_found_and_affinity_is_kept() -> None:
    """Goal: only CPUs that cannot be used are listed, and the caller keeps its own affinity.
    Method: a present and an absent CPU; the affinity before and after."""
    before = os.sched_getaffinity(0)
    present = min(before)
    assert process.absent_cpus([present, NO_CPU, NO_CPU]) == [NO_CPU]
    assert os.sched_getaffinity(0) == before


def test_pin_to_absent_cpu_changes_nothing() -> None:
    """Goal: a worker whose CPU is removed runs on any other.  Method: pin to a CPU that no machine has."""
    before = os.sched_getaffinity(0)
    assert not process.pin(NO_CPU)
    assert os.sched_getaffinity(0) == before
