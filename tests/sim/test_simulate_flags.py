"""Goal: a wrong flag of `pipeline simulate` is refused in one line with the flag, its value and what is expected.

Method: the command line with wrong values of each kind, and with files that are missing or wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINE = (sys.executable, "-c", "from pipeline.cli import main; raise SystemExit(main())")
SMALL = ("--nodes", "5", "--duration", "4")
USAGE, CONFIG = 2, 78


def simulate(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [*PIPELINE, "simulate", *SMALL, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def refusal(*flags: str, code: int) -> str:
    """Return the line on stderr of a command that ends with this exit code."""
    found = simulate(*flags)
    assert found.returncode == code, found
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1, found.stderr
    assert "bug" not in found.stderr
    return found.stderr


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--nodes", "2.5", "expected a whole number from 2"),
        ("--nodes", "nan", "expected a whole number from 2"),
        ("--seed", "-1", "expected a whole number from 0"),
        ("--rate", "0", "expected a number from 0.01"),
        ("--loss", "2", "expected a number from 0 to 1"),
        ("--partition", "3,1,0.5", "begin before it ends"),
        ("--partition", "1,2", "BEGIN,END,SHARE"),
        ("--topology", "moon", "one of plane"),
        ("--warmup", "700", "nothing is left"),
        ("--overlay", "mseh", "did you mean mesh?"),
        ("--option", "k", "NAME=VALUE"),
        ("--option", "k=3", "the engine has no options"),
    ],
)
def test_wrong_value_is_refused_with_the_flag(flag: str, value: str, words: str) -> None:
    """Goal: the line holds flag, value and remedy.  Method: one wrong flag at a time."""
    line = refusal(flag, value, code=USAGE)
    assert f"{flag} {value}" in line
    assert words in line


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("heartbeat_s=abc", "expected a number, got text"),
        ("heartbeat_s=-1", "expected a number > 0"),
        ("k=2.5", "expected a whole number, got text"),
        ("repair=x", "expected one of: nack, none"),
        ("grace_s=1", "must exceed heartbeat_s"),
        ("crew=3", "did you mean overlay.nemo.crew_size?"),
        ("rendezvous=n1", "it is node n0"),
    ],
)
def test_wrong_engine_option_is_refused(option: str, words: str) -> None:
    """Goal: the engine's own check is reported.  Method: 100 nodes, whose sessions follow the engine's intervals."""
    line = refusal("--overlay", "nemo", "--nodes", "100", "--option", option, code=USAGE)
    assert f"--option {option}: " in line
    assert words in line


@pytest.mark.parametrize(
    ("flag", "content", "words"),
    [
        ("--trace", b"1 99 down\n", "line 1: host 99 is none of 1"),
        ("--trace", b"1 1 down\nx 1 up\n", "line 2: expected seconds"),
        ("--trace", b"nan 1 up\n", "line 1: nan is no time"),
        ("--rtt-matrix", b"0 nan\n1 0\n", "line 1: expected round-trip times"),
        ("--rtt-matrix", b"0 1\n-1 0\n", "line 2: expected round-trip times"),
        ("--rtt-matrix", b"0 1\n0\n", "line 2 has 1 numbers"),
        ("--rtt-matrix", b"", "expected round-trip times"),
        ("--rtt-matrix", b"\xff\xfe", "not a text file"),
        ("--rtt-matrix", None, "no such file"),
    ],
)
def test_wrong_file_is_refused_with_its_line(tmp_path: Path, flag: str, content: bytes | None, words: str) -> None:
    """Goal: the line holds flag, path and the line of the file.  Method: one wrong file at a time, or none."""
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    line = refusal(flag, str(file), code=CONFIG)
    assert f"{flag} {file}" in line
    assert words in line


def test_matrix_and_trace_are_used(tmp_path: Path) -> None:
    """Goal: files take the place of a random topology and churn.  Method: three places that are 100 ms apart."""
    matrix, trace = tmp_path / "matrix", tmp_path / "trace"
    matrix.write_text("0 100 100\n100 0 100\n100 100 0\n")
    trace.write_text("2 3 down\n3 3 up\n")
    found = simulate("--rtt-matrix", str(matrix), "--trace", str(trace), "--json")
    assert found.returncode == 0, found.stderr
    figures = json.loads(found.stdout)["simulation"]
    assert figures["topology"] == "matrix"
    assert figures["latency_ms"]["max"] >= 50
    refused = refusal("--rtt-matrix", str(matrix), "--topology", "plane", code=USAGE)
    assert "leave it out" in refused
