"""The command line, `pipeline …`.

    __init__  entry: exit codes, and one line for every error          app       the commands and their flags
    client    finds running instances and talks to their control      tables    values as tables for people

Imports stand where they are used: `pipeline status --wait` runs in scripts' loops and starts in a fraction of the time
that all libraries together take.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

INTERRUPTED = 130
"""128 + SIGINT, as a shell would report it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: whoever read our output has enough of it; nothing to complain about."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code.  Whatever goes wrong ends in one line on stderr and never in a traceback."""
    _open_standard_files()
    try:
        from pipeline.cli.app import run

        code = run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        _give_up(sys.stdout)
        code = BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # the last resort of a program that promises one line
        code = _complain(error)
    return code


def _complain(error: Exception) -> int:
    if os.environ.get("MCAST_PIPELINE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    code, text = _explain(error)
    try:
        sys.stderr.write("pipeline: " + " ".join(text.split()) + "\n")
    except OSError:
        _give_up(sys.stderr)
    return code


def _open_standard_files() -> None:
    """Who starts us may have closed some: the next descriptor opened would be one, and what is said go into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _give_up(file: TextIO) -> None:
    """Nobody takes what is still to be written there: the flush at exit would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code (design §6) and text of an error."""
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
