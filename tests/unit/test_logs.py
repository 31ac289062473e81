"""Goal: a log that cannot be written never ends or blocks the node.
Method: standard error on a full disk, or on a pipe whose reader has ended or does not read."""

from __future__ import annotations

import os
import sys

import pytest
import structlog

from pipeline import logs
from pipeline.config import LogSection


@pytest.fixture(autouse=True)
def _usual_logs() -> object:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("as_format", ["text", "json"])
def test_full_disk_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch, as_format: str) -> None:
    """Goal: an instance runs on when its log cannot be written.  Method: /dev/full as standard error."""
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    monkeypatch.setattr(sys, "stderr", full)
    logs.configure(LogSection(format=as_format))
    for _ in range(1000):
        structlog.get_logger().warning("restarting", worker="classify")
    logs.print_error("an error")
    os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    full.close()


def test_closed_pipe_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: `pipeline launch 2>&1 | head` runs on.  Method: a pipe whose reading end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stderr", gone)
    logs.configure(LogSection())
    structlog.get_logger().warning("restarting", worker="classify")
    os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())
    gone.close()


def test_full_pipe_does_not_block_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a stopped terminal or an unread pipe does not stop the node.  Method: write more than a pipe holds."""
    reader, writer = os.pipe()
    unread = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stderr", unread)
    logs.configure(LogSection())
    for number in range(200):
        structlog.get_logger().warning("restarting", kind=f"{number}", number=number, filler="x" * 1000)
    first = os.read(reader, 1 << 20).splitlines()
    assert b'"number": 0' in first[0]
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in first)
    structlog.get_logger().warning("restarting", number=-1)
    assert b'"number": -1' in os.read(reader, 1 << 20)
    unread.close()
    os.close(reader)


def test_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: an error is one line with the name of the program.  Method: print one."""
    logs.print_error("port 4747 is in use")
    assert capsys.readouterr().err == "pipeline: port 4747 is in use\n"
