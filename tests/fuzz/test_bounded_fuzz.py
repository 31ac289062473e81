"""Fuzzing of membership and credentials.  Goal: no bytes break the parsers or the router.

Method: every input of the corpus, then some thousand inputs that atheris makes of them.  These are the same in every
run, so that the same code has the same result; `python -m tests.fuzz.run igmp -max_total_time=3600` makes new ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import credentials, membership

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
RUNS = 6000
TARGETS = membership.TARGETS | credentials.TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_violates_no_invariant(name: str) -> None:
    """Goal: a fault that was found once does not return."""
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_corpus_violates_no_invariant(name: str, tmp_path: Path) -> None:
    """Goal: a bounded run finds nothing; otherwise its output has the input."""
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
