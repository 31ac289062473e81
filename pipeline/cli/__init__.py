"""The command line, `pipeline …`: entry, exit codes, and one line for every error.

    app       commands and their flags          completion   shell completion
    settings  configuration of a command        tables, pictures, console   values for people
    demo, demo_view, simulate, top, trace       one command each

Modules import libraries where they use them: scripts run `pipeline status --wait` in loops, and it starts in a fraction
of the time that all libraries together take.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: the reader of our output has closed its end, which is no error."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.  Every error ends in one line on stderr, never in a traceback."""
    _open_standard_files()
    try:
        from pipeline.cli.app import run

        code = run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        _discard_output(sys.stdout)
        code = BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # the last resort of a program that promises one line
        code = _report(error)
    return code


def _open_standard_files() -> None:
    """Open closed standard files on /dev/null: else the next descriptor opened would receive what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _report(error: Exception) -> int:
    """Write an error to stderr and return its exit code."""
    from pipeline.terminal import one_line

    if os.environ.get("MCAST_PIPELINE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    code, text = _code_and_text(error)
    try:
        sys.stderr.write(f"pipeline: {one_line(text)}\n")
    except OSError:
        _discard_output(sys.stderr)
    return code


def _discard_output(file: TextIO) -> None:
    """Redirect a file without a reader to /dev/null, so that the flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def _code_and_text(error: Exception) -> tuple[int, str]:
    """Return exit code and text of an error."""
    from pipeline.errors import PermissionDeniedError, PipelineError

    if isinstance(error, PipelineError):
        return error.exit_code, str(error)
    if isinstance(error, PermissionError):
        return PermissionDeniedError.exit_code, f"{error.filename or 'no permission'}: {error.strerror or error}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return PipelineError.exit_code, where + (error.strerror or str(error)).lower()
    kind = type(error).__name__
    return PipelineError.exit_code, f"{kind}: {error} (a bug; MCAST_PIPELINE_DEBUG=1 shows where)"
