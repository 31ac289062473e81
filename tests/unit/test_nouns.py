"""Goal: a noun of `pipeline show` is declared once, and control, command line and tables all have it.
Method: the declaration against the functions that make the values, the help and the shell completion."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from pipeline.cli.app import app
from pipeline.control import show
from pipeline.control.nouns import Noun


def test_every_noun_has_a_view() -> None:
    """Goal: control answers for each noun, and for nothing else.  Method: compare declaration and functions."""
    assert set(show.VIEWS) == set(Noun)


@pytest.mark.parametrize("noun", Noun)
def test_help_explains_noun(noun: Noun) -> None:
    """Goal: `show --help` has a line for the noun.  Method: read it."""
    lines = CliRunner().invoke(app, ["show", "--help"]).output.splitlines()
    assert any(line.split()[:1] == [noun] and noun.summary in line for line in lines)


def test_shell_completes_nouns() -> None:
    """Goal: completion offers the nouns that begin as typed.  Method: click's own completion of two words."""
    completer = ShellComplete(app, {}, "pipeline", "_PIPELINE_COMPLETE")
    assert [item.value for item in completer.get_completions(["show"], "")] == list(Noun)
    assert [item.value for item in completer.get_completions(["show"], "ro")] == ["routes"]
