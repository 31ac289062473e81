"""Goal: `pipeline trace` prints every event once, as text or JSON, reports lost events, and ends on request.
Method: a client that replies from a list.  test_membership_trace.py has the node's side, tests/netns both together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.cli import trace
from pipeline.cli.app import run
from pipeline.errors import NotRunningError, UsageError

EVENT = {"time_s": 1_700_000_000.9996, "group": "239.1.2.3", "host": None, "rule": "timers ran out"}


class ReplyingClient:
    """Client of a control process with two replies; the third request is interrupted by Ctrl-C."""

    def __init__(self, _name: str) -> None:
        self.replies = [
            {"events": [], "after": 7, "lost": 0},
            {"events": [EVENT, EVENT], "after": 12, "lost": 3},
        ]
        self.requested: list[str] = []

    def request(self, verb: str, noun: str, *, arguments: Mapping[str, str]) -> Any:
        assert (verb, noun) == ("trace", "membership")
        self.requested.append(arguments["after"])
        if not self.replies:
            raise KeyboardInterrupt
        return self.replies.pop(0)

    def close(self) -> None:
        assert self.requested == ["", "7", "12"]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "Client", ReplyingClient)
    monkeypatch.setattr(trace, "running_pid", lambda _name: 1)


def test_text_has_one_line_for_each_event(node: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a line has time, group, host and rule; lost events are reported on stderr.
    Method: two events, three lost ones."""
    trace.follow("a", seconds=None, as_json=False)
    printed = capsys.readouterr()
    clock, *words = printed.out.splitlines()[0].split()
    assert clock.endswith(".999")
    assert words == ["239.1.2.3", "-", "timers", "ran", "out"]
    assert len(printed.out.splitlines()) == 2
    assert "3 events lost" in printed.err


def test_json_has_one_object_for_each_event(node: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a line is one JSON object.  Method: the same events."""
    trace.follow("a", seconds=None, as_json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"schema": 1, "trace": EVENT}] * 2


def test_trace_is_refused_without_instance_or_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the error names the instance or the value.  Method: an absent instance, and a word as time."""
    monkeypatch.setattr(trace, "running_pid", lambda _name: None)
    with pytest.raises(NotRunningError):
        run(["trace", "--membership", "--name", "absent"])
    with pytest.raises(NotRunningError):
        run(["trace", "--name", "absent"])
    with pytest.raises(UsageError, match="--seconds soon"):
        run(["trace", "--membership", "--seconds", "soon"])
