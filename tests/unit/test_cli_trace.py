"""Goal: `pipeline trace` prints every event once, for people and for machines, says what was lost, and ends as told.
Method: a client that answers from a list; the node's side is test_membership_trace.py, both together tests/netns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.cli import trace
from pipeline.cli.app import run
from pipeline.errors import NotRunningError, UsageError

EVENT = {"time_s": 1_700_000_000.9996, "group": "239.1.2.3", "host": None, "rule": "timers ran out"}


class Answers:
    """A control process with two answers; then somebody presses Ctrl-C."""

    def __init__(self, _name: str) -> None:
        self.answers = [
            {"events": [], "after": 7, "lost": 0},
            {"events": [EVENT, EVENT], "after": 12, "lost": 3},
        ]
        self.asked: list[str] = []

    def request(self, verb: str, noun: str, *, arguments: Mapping[str, str]) -> Any:
        assert (verb, noun) == ("trace", "membership")
        self.asked.append(arguments["after"])
        if not self.answers:
            raise KeyboardInterrupt
        return self.answers.pop(0)

    def close(self) -> None:
        assert self.asked == ["", "7", "12"]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "Client", Answers)
    monkeypatch.setattr(trace, "running_pid", lambda _name: 1)


def test_lines_for_people(node: None, capsys: pytest.CaptureFixture[str]) -> None:
    trace.follow("a", seconds=None, as_json=False)
    printed = capsys.readouterr()
    clock, *words = printed.out.splitlines()[0].split()
    assert clock.endswith(".999")
    assert words == ["239.1.2.3", "-", "timers", "ran", "out"]
    assert len(printed.out.splitlines()) == 2
    assert "3 events lost" in printed.err


def test_lines_for_machines(node: None, capsys: pytest.CaptureFixture[str]) -> None:
    trace.follow("a", seconds=None, as_json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"schema": 1, "trace": EVENT}] * 2


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "running_pid", lambda _name: None)
    with pytest.raises(NotRunningError):
        run(["trace", "--membership", "--name", "nobody"])
    with pytest.raises(NotRunningError):
        run(["trace", "--name", "nobody"])
    with pytest.raises(UsageError, match="--seconds soon"):
        run(["trace", "--membership", "--seconds", "soon"])
