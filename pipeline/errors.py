"""The errors that end a command, each with its exit code (design: 0, 1, 2, 69, 77, 78).

An error's text is one line that says what is wrong and what to do; the command line prints it and nothing else.
What a peer or a program sends wrong is never an exception here: it ends in a counted drop reason.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Anything that ends a command: the text is for the user, `exit_code` for scripts."""

    exit_code = 1


class UsageError(PipelineError):
    """The command was called wrongly."""

    exit_code = 2


class NotRunningError(PipelineError):
    """No instance of that name is running (EX_UNAVAILABLE)."""

    exit_code = 69


class PermissionDeniedError(PipelineError):
    """The kernel refused a right that the command needs (EX_NOPERM)."""

    exit_code = 77


class ConfigError(PipelineError):
    """The configuration, or a key it names, cannot be used (EX_CONFIG)."""

    exit_code = 78


class WireError(ValueError):
    """Bytes that are no message of ours: the caller counts them and drops them."""
