"""What the commands share: groups of commands, flags, output."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.cli import completion
from pipeline.errors import UsageError

EXAMPLE = Path(sys.prefix, "share/mcast-pipeline/pipeline.toml")
"""The commented configuration file of an installed package; in the repository it is configs/pipeline.toml."""


class Group(click.Group):
    """Group of commands; the error for an unknown command names the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names."""
        word = args[0]
        if not ctx.resilient_parsing and not word.startswith("-") and word not in self.commands:
            near = difflib.get_close_matches(word, self.commands, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(self.commands))}"
            raise UsageError(f"no such command: {' '.join([*ctx.command_path.split()[1:], word])} ({hint})")
        return super().resolve_command(ctx, args)


def instance_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --name to a command."""
    option = click.option(
        "--name",
        metavar="NAME",
        shell_complete=completion.instances,
        help="Instance (default: the host name, or the only one that runs).",
    )
    return option(command)


def json_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json to a command."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(command)


config_flag = click.option(
    "--config",
    "config",
    metavar="FILE",
    envvar="MCAST_PIPELINE_CONFIG",
    shell_complete=completion.files,
    help=f"TOML file; {EXAMPLE if EXAMPLE.exists() else 'configs/pipeline.toml'} has every key.",
)


def print_value(noun: str, value: Any, *, as_json: bool, detail: bool = False) -> None:
    """Write a value to stdout: one JSON object, or text for people."""
    if as_json:
        import json

        sys.stdout.write(json.dumps({"schema": 1, noun: value}, ensure_ascii=False) + "\n")
    else:
        from pipeline.cli.tables import render

        render(noun, value, detail=detail)
