"""The log: one event a line on stderr, as text or JSON.  Stdout is for data.

Events are state changes, never packets; fields are worker, peer, link, group, source, ring, reason and the like.  The
number of lines is limited, whoever causes them (log_limit.py).  A line whose text varies names its `kind`, which is not
written.
"""

from __future__ import annotations

import contextlib
import logging
import select
import sys
import time
from typing import TextIO, cast

import structlog

from pipeline.config import LogSection
from pipeline.log_limit import LogLimit
from pipeline.terminal import has_styles, one_line, printable

SUBJECT_FIELDS = ("peer", "endpoint", "worker", "interface")
"""Fields that name the subject of a line, in the order of precedence."""


class _Stderr:
    """Standard error that neither raises nor blocks.

    A line is lost when the disk is full, or when the reader of a pipe has ended or does not read.
    """

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            if _has_room():
                sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def _has_room() -> bool:
    """Return whether a line can be written without blocking."""
    poll = select.poll()
    try:
        poll.register(sys.stderr.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # a file object without descriptor
        return True
    return bool(poll.poll(0))


class _Limit:
    """Processor of structlog that drops the lines beyond the limits, and writes the summaries of a process."""

    def __init__(self) -> None:
        self._limit = LogLimit()
        self._is_summary = False

    def __call__(self, _logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Return the event, or drop it."""
        kind = str(event.pop("kind", event["event"]))
        subject = next((str(event[name]) for name in SUBJECT_FIELDS if name in event), "")
        line = "" if subject or method != "warning" else str(sorted(event.items()))
        if not self._is_summary and not self._limit.admits(kind, subject, method, time.monotonic(), line=line):
            raise structlog.DropEvent
        return event

    def write_summaries(self, *, is_end: bool) -> None:
        self._is_summary = True
        now = time.monotonic()
        while (summary := self._limit.poll_summary(now, is_end=is_end)) is not None:
            fields = {"mostly": summary.subject} if summary.subject else {}
            text = f"{summary.text}: {summary.count} more in {summary.since_s:.0f} s"
            getattr(structlog.get_logger(), summary.level)(text, **fields)
        self._is_summary = False

    def poll_timeout(self) -> float | None:
        return self._limit.poll_timeout()


_limit = _Limit()
"""Limit of this process; `configure` makes a new one."""


def write_summaries(*, is_end: bool = False) -> None:
    """Write one line for each kind of line that was limited, when it is due; at the end of the process, at once."""
    _limit.write_summaries(is_end=is_end)


def next_summary_at() -> float | None:
    """Return the monotonic time at which `write_summaries` is due."""
    return _limit.poll_timeout()


def print_error(text: str) -> None:
    """Print the one line of an error that ends a command."""
    _Stderr().write(f"pipeline: {one_line(text)}\n")


def _escape(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters in the text and the fields of an event; the JSON renderer has its own escapes."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def configure(settings: LogSection) -> None:
    """Set up structlog for this process; a child begins with limits of its own by calling it again."""
    global _limit  # noqa: PLW0603  # structlog's configuration is global too
    _limit = _Limit()
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if as_json
        else [_escape, structlog.dev.ConsoleRenderer(colors=has_styles(sys.stderr))]
    )
    structlog.configure(
        processors=[
            _limit,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Stderr())),
    )
