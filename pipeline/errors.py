"""Errors that end a command, each with its exit code: 1, 2, 69, 77 or 78.

The text of an error is one line that states what is wrong and what to do; the command line prints it and nothing else.
A malformed packet or message does not end a command: its WireError becomes a drop reason (drop_reasons.py).
"""

from __future__ import annotations


class PipelineError(Exception):
    """Error that ends a command: the text is for the user, `exit_code` for scripts."""

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
    """Bytes that are not a valid message; the text is the drop reason, which the caller counts."""
