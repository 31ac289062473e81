"""Goal: a child of the supervisor has its turn soon, keeps its place among others, and has a name.

Method: a real child; what the kernel says about it.
"""

import os
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.io import process

KEEPS_SLICES = (6, 12)
"""The Linux that lets a process choose the length of its turn."""


def _child(parent: int, answer: Connection) -> None:
    os.nice(3)
    process.become_child(parent, "mp-a-long-name-indeed")
    schedule = Path("/proc/self/sched").read_text(encoding="ascii").splitlines()
    slices = [int(line.split(":")[1]) for line in schedule if line.startswith("se.slice")]
    answer.send((slices, os.nice(0), Path("/proc/self/comm").read_text(encoding="ascii").strip()))


def test_a_child_takes_short_slices_and_keeps_its_priority() -> None:
    ours, theirs = get_context("fork").Pipe()
    child = get_context("fork").Process(target=_child, args=(os.getpid(), theirs))
    before = os.nice(0)
    child.start()
    assert ours.poll(5), "the child says nothing"
    slices, nice, name = ours.recv()
    child.join(5)
    assert child.exitcode == 0
    assert nice == min(before + 3, 19)
    assert name == "mp-a-long-name-"
    running = tuple(int(part) for part in os.uname().release.split(".")[:2])
    assert slices == [process.SLICE_NS] or running < KEEPS_SLICES
