"""Goal: no bytes upset the membership parsers or the router (issue 4: a fuzzer with a bounded run and its corpus).
Method: every input of the corpus once, then a few thousand that atheris makes of them, the same ones in every run, so
that the same code has the same verdict; new ones are for `python -m tests.fuzz.run igmp -max_total_time=3600`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.membership import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
RUNS = 6000


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    """What was found once stays found."""
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_fuzzed(name: str, tmp_path: Path) -> None:
    """A bounded run; its end names the input that broke something."""
    new = tmp_path / "new"
    new.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.run", name, f"-runs={RUNS}", "-seed=1", "-timeout=10"]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/", "--into", str(new)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
