"""The log: one event a line on stderr, as text or JSON.  Stdout is for data.

Events are state changes, never packets; fields are worker, peer, link, group, source, ring, reason and the like.
"""

from __future__ import annotations

import contextlib
import logging
import select
import sys
from typing import TextIO, cast

import structlog

from pipeline.config import LogSection
from pipeline.terminal import has_styles, one_line, printable

LINES_MAX = 1024
"""Bound of distinct lines of a OnceLogger, so that peers can fill neither the disk nor the memory."""


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


class OnceLogger:
    """Logger of warnings that a peer could repeat at will: it writes each distinct line once."""

    def __init__(self) -> None:
        self._lines: set[str] = set()

    def warning(self, text: str, **fields: str) -> None:
        """Log a warning, unless the same one was logged before or LINES_MAX others were."""
        line = f"{text} {sorted(fields.items())}"
        if line not in self._lines and len(self._lines) < LINES_MAX:
            self._lines.add(line)
            structlog.get_logger().warning(text, **fields)


def print_error(text: str) -> None:
    """Print the one line of an error that ends a command."""
    _Stderr().write(f"pipeline: {one_line(text)}\n")


def _escape(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters in the text and the fields of an event; the JSON renderer has its own escapes."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def configure(settings: LogSection) -> None:
    """Set up structlog for this process and its children."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if as_json
        else [_escape, structlog.dev.ConsoleRenderer(colors=has_styles(sys.stderr))]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Stderr())),
    )
