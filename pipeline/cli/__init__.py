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

INTERRUPTED = 130
"""128 + SIGINT, as a shell would report it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: whoever read our output has enough of it; nothing to complain about."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code.  Whatever goes wrong ends in one line on stderr and never in a traceback."""
    try:
        from pipeline.cli.app import run

        code = run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit complains
        code = BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # the last resort of a program that promises one line
        code = _complain(error)
    return code


def _complain(error: Exception) -> int:
    if os.environ.get("MCAST_PIPELINE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    code, text = _explain(error)
    sys.stderr.write("pipeline: " + " ".join(text.split()) + "\n")
    return code


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code (design §6) and text of an error."""
    from pipeline.errors import PermissionDeniedError, PipelineError

    if isinstance(error, PipelineError):
        return error.exit_code, str(error)
    if isinstance(error, PermissionError):
        return PermissionDeniedError.exit_code, f"{error.filename or 'no permission'}: {error.strerror or error}"
    if isinstance(error, OSError):
        return PipelineError.exit_code, f"{error.filename}: {error.strerror}" if error.filename else str(error)
    kind = type(error).__name__
    return PipelineError.exit_code, f"{kind}: {error} (a bug; MCAST_PIPELINE_DEBUG=1 shows where)"
