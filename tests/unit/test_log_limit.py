"""Goal: nobody fills the disk with the log of a node, and the lines about honest peers are written.

Method: the limit on virtual time, and lines as they leave the process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from pipeline import limits, logs
from pipeline.config import LogSection
from pipeline.log_limit import LogLimit, Summary

DAY_S = 86_400


def lines_of(limit: LogLimit, changes: Iterator[tuple[float, str, str]]) -> tuple[list[tuple[str, str]], list[Summary]]:
    """Return the lines that are written, as (kind, subject), and the summaries."""
    written, summaries = [], []
    for now, kind, subject in changes:
        if limit.admits(kind, subject, "info", now):
            written.append((kind, subject))
        while (summary := limit.poll_summary(now)) is not None:
            summaries.append(summary)
    return written, summaries


def flapping(seconds: int, *, per_s: int, peer: str = "flapping") -> Iterator[tuple[float, str, str]]:
    for number in range(seconds * per_s):
        yield number / per_s, ("link down", "link up")[number % 2], peer


def test_flapping_peer_writes_some_thousand_lines_a_day() -> None:
    """Goal: a link that changes all the time writes a megabyte a day at the most, and the log has the number of its
    changes.  Method: a day with two changes a second."""
    limit = LogLimit()
    written, summaries = lines_of(limit, flapping(DAY_S, per_s=2))
    while (summary := limit.poll_summary(DAY_S, is_end=True)) is not None:
        summaries.append(summary)
    assert len(written) + len(summaries) <= 4 * (DAY_S / 60 + limits.LOG_SUBJECT_BURST)
    assert len(written) + sum(summary.count for summary in summaries) == 2 * DAY_S
    assert {summary.subject for summary in summaries} == {"flapping"}


def test_invented_peers_write_bounded_lines() -> None:
    """Goal: a member that flaps under a new name each time is bounded too, in lines and in memory.
    Method: 100,000 names in ten minutes."""
    limit = LogLimit()
    written, summaries = lines_of(limit, ((number * 0.006, "link up", f"n{number}") for number in range(100_000)))
    assert len(written) <= limits.LOG_KIND_BURST + 600 / limits.LOG_KIND_INTERVAL_S
    assert len(summaries) <= 10
    assert len(limit._buckets) <= limits.LOG_SUBJECTS_MAX


def test_each_honest_link_change_is_written() -> None:
    """Goal: the operator of a network of 64 nodes sees each of them go and return, beside a link that flaps.
    Method: one peer flaps for a minute, then all links go down and come up."""
    limit = LogLimit()
    lines_of(limit, flapping(60, per_s=500))
    peers = [f"n{number}" for number in range(63)]
    for kind in ("link down", "link up"):
        written, _ = lines_of(limit, ((61.0, kind, peer) for peer in peers))
        assert written == [(kind, peer) for peer in peers]


def test_slow_flapping_is_written_line_by_line() -> None:
    """Goal: a link that changes each few minutes has all its lines.  Method: a day of changes each three minutes."""
    changes = [(number * 180.0, "link down", "n2") for number in range(480)]
    written, summaries = lines_of(LogLimit(), iter(changes))
    assert len(written) == len(changes)
    assert not summaries


def test_equal_warnings_without_a_subject_are_written_once() -> None:
    """Goal: garbage on a port causes one line of each kind.  Method: two lines, ten times each, and a minute later."""
    limit = LogLimit()
    lines = [(line, now) for now in (0.0, limits.LOG_SUBJECT_INTERVAL_S) for line in ("a", "b") * 10]
    written = [each for each in lines if limit.admits("refused", "", "warning", each[1], line=each[0])]
    assert written == [(line, now) for now in (0.0, limits.LOG_SUBJECT_INTERVAL_S) for line in ("a", "b")]


def test_kinds_are_bounded() -> None:
    """Goal: lines whose text varies have a common limit in the end.  Method: 10,000 texts."""
    written, _ = lines_of(LogLimit(), ((0.0, f"text {number}", "") for number in range(10_000)))
    assert len(written) <= limits.LOG_KINDS_MAX + limits.LOG_SUBJECT_BURST


@pytest.fixture
def _json_log() -> Iterator[None]:
    logs.configure(LogSection(format="json"))
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_json_log")
def test_one_line_sums_up_the_lines_that_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: one mechanism limits all lines of a process; `kind` stands for a text that varies and is not written.
    Method: 1,000 lines about one peer, 1,000 of a kind with varying texts, then the end of the process."""
    for number in range(1000):
        structlog.get_logger().info("link up", peer="n2", endpoint=f"192.0.2.2:{number}")
        structlog.get_logger().warning(f"no answer from {number}", kind="no_answer")
    logs.write_summaries(is_end=True)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    count = limits.LOG_SUBJECT_BURST
    assert [line["event"] for line in lines].count("link up") == count
    assert len(lines) == 2 * count + 2
    assert not any("kind" in line for line in lines)
    summary, other = lines[-2:]
    assert (summary["event"], summary["mostly"], summary["level"]) == (
        f"link up: {1000 - count} more in 0 s",
        "n2",
        "info",
    )
    assert (other["event"], other["level"]) == (f"no_answer: {1000 - count} more in 0 s", "warning")


@pytest.mark.usefixtures("_json_log")
def test_summary_is_due_after_a_minute() -> None:
    """Goal: the process can sleep until a summary is due.  Method: the deadline with and without one."""
    assert logs.next_summary_at() is None
    for _ in range(limits.LOG_SUBJECT_BURST + 1):
        structlog.get_logger().info("link up", peer="n2")
    assert logs.next_summary_at() is not None
