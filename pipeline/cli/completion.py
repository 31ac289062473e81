"""Shell completion of the command line, by the protocol of click.

    eval "$(_PIPELINE_COMPLETE=bash_source pipeline)"              in ~/.bashrc
    eval "$(_PIPELINE_COMPLETE=zsh_source pipeline)"               in ~/.zshrc
    _PIPELINE_COMPLETE=fish_source pipeline | source               in ~/.config/fish/config.fish

The script runs `pipeline` at each press of Tab with the words typed so far in the environment, and reads the candidates
from stdout.  The functions below give the candidates of options and arguments that click does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import click
from click.shell_completion import CompletionItem, shell_complete

from pipeline.errors import UsageError

VARIABLE = "_PIPELINE_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
INSTRUCTIONS = frozenset(f"{shell}_{part}" for shell in SHELLS for part in ("source", "complete"))

Completer: TypeAlias = Callable[[click.Context, click.Parameter, str], Sequence[CompletionItem]]


def respond(app: click.Command, instruction: str) -> int:
    """Write the completion script of a shell, or the candidates for a command line, to stdout."""
    if instruction not in INSTRUCTIONS:
        sources = ", ".join(f"{shell}_source" for shell in SHELLS)
        raise UsageError(f"{VARIABLE}={instruction}: unknown; give one of {sources}")
    return shell_complete(app, {}, "pipeline", VARIABLE, instruction)


def words(*candidates: str) -> Completer:
    """Return a completer for fixed words."""
    return lambda _context, _parameter, typed: _starting_with(typed, candidates)


def instances(_context: click.Context, _parameter: click.Parameter, typed: str) -> Sequence[CompletionItem]:
    """Return the names of running instances."""
    from pipeline.client import running_names

    return _starting_with(typed, running_names())


def engines(_context: click.Context, _parameter: click.Parameter, typed: str) -> Sequence[CompletionItem]:
    """Return the names of overlay engines."""
    from pipeline.engines import names

    return _starting_with(typed, names())


def files(_context: click.Context, _parameter: click.Parameter, typed: str) -> Sequence[CompletionItem]:
    """Leave the completion to the shell, which completes file names."""
    return [CompletionItem(typed, type="file")]


def _starting_with(typed: str, candidates: Sequence[str]) -> list[CompletionItem]:
    return [CompletionItem(candidate) for candidate in candidates if candidate.startswith(typed)]
