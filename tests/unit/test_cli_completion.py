"""Goal: bash, zsh and fish complete commands, options, nouns, engines, instances and files.

Method: the protocol of each shell (words typed so far in the environment, candidates on stdout), and the completion
script of each shell that is installed in that shell; bash always is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.io import rundir

COMMAND = [sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())"]
SHELLS = ["bash", "zsh", "fish"]

SCRIPTS = {
    "bash": """
        eval "$(_PIPELINE_COMPLETE=bash_source pipeline)"
        COMP_WORDS=(pipeline show r) COMP_CWORD=2
        _pipeline_completion pipeline
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { : }
        compadd() { shift 4; print -l "${(P)1[@]}" }
        _describe() { print -l "${(P)3[@]}" }
        eval "$(_PIPELINE_COMPLETE=zsh_source pipeline)"
        words=(pipeline show r) CURRENT=3
        _pipeline_completion
    """,
    "fish": """
        _PIPELINE_COMPLETE=fish_source pipeline | source
        complete --do-complete "pipeline show r"
    """,
}
"""Program of each shell that loads the completion script and prints the candidates for `pipeline show r`."""


def environment(**more: str) -> dict[str, str]:
    """Return the environment without settings of the project."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MCAST_PIPELINE_")} | more


def completed(shell: str, *words: str) -> list[str]:
    """Return the candidates for the last of these words, as the shell is sent them."""
    line = ["pipeline", *words]
    typed = " ".join(line[:-1]) if shell == "fish" else " ".join(line)
    position = words[-1] if shell == "fish" else str(len(words))
    variables = {"_PIPELINE_COMPLETE": f"{shell}_complete", "COMP_WORDS": typed, "COMP_CWORD": position}
    done = subprocess.run(
        COMMAND, env=environment(**variables), capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    if shell == "zsh":  # three lines a candidate: kind, word, description
        return done.stdout.splitlines()[1::3]
    return [line.replace("\t", ",").split(",")[1] for line in done.stdout.splitlines() if "," in line]


@pytest.fixture
def instance() -> Iterator[str]:
    """The name of an instance that holds its lock, as a supervisor does."""
    name = f"completed-{os.getpid()}"
    held = rundir.RuntimeDirectory(name)
    yield name
    held.remove()


@pytest.mark.parametrize("shell", SHELLS)
def test_words_are_completed(shell: str) -> None:
    """Goal: commands, nouns, engines, formats and options complete.  Method: a beginning of each."""
    assert completed(shell, "sh") == ["show"]
    assert completed(shell, "config", "") == ["check", "show"]
    assert completed(shell, "show", "r") == ["routes", "rings"]
    assert completed(shell, "launch", "--overlay", "ne") == ["nemo"]
    assert completed(shell, "show", "--format", "m") == ["mermaid"]
    assert "--workers" in completed(shell, "launch", "--w")


@pytest.mark.parametrize("shell", SHELLS)
def test_instances_are_completed(shell: str, instance: str) -> None:
    """Goal: `--name` completes to instances that run.  Method: one that runs in this process."""
    assert instance in completed(shell, "status", "--name", "complet")


def test_file_names_are_left_to_the_shell() -> None:
    """Goal: the shell completes paths itself.  Method: the argument of `config check`."""
    variables = {"_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": "pipeline config check x", "COMP_CWORD": "3"}
    done = subprocess.run(COMMAND, env=environment(**variables), capture_output=True, text=True, check=True)
    assert done.stdout == "file,x\n"


def test_unknown_words_have_no_candidates() -> None:
    """Goal: a mistyped command completes to nothing and prints no error into the command line."""
    assert completed("bash", "lanch", "--n") == []


def test_unknown_shell_is_a_usage_error() -> None:
    """Goal: one line with the known names.  Method: a shell without completion."""
    done = subprocess.run(
        COMMAND, env=environment(_PIPELINE_COMPLETE="tcsh_source"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "bash_source" in done.stderr


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_shell_completes_by_script(shell: str, tmp_path: Path) -> None:
    """Goal: the script that `_PIPELINE_COMPLETE=SHELL_source pipeline` prints works in its shell.
    Method: load it in each shell that is installed, with a `pipeline` that runs this interpreter."""
    program = tmp_path / "pipeline"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{COMMAND[2]}" "$@"\n')
    program.chmod(0o755)
    variables = environment(PATH=f"{tmp_path}:{os.environ['PATH']}", HOME=str(tmp_path))
    done = subprocess.run(
        [shell, "-c", SCRIPTS[shell]], env=variables, capture_output=True, text=True, check=False, timeout=30
    )
    words = [line.partition("\t")[0].partition(":")[0] for line in done.stdout.splitlines()]
    assert sorted(filter(None, words)) == ["rings", "routes"], done.stdout + done.stderr
