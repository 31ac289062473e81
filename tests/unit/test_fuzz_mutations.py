"""Goal: no bytes raise anything but the errors that callers expect, nor make a core say without end.
Method: mutations of the corpus and of a message of every kind, into every parser and both cores, for a few seconds.
(`make fuzz` does the same, guided by coverage, and with the C side.)"""

from __future__ import annotations

import pytest

from tests.fuzz import mutation
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_sound(target: str) -> None:
    """Goal: the inputs that mutations start from hold themselves.  Method: each into each."""
    for data in [b"", *mutation.seeds()]:
        TARGETS[target](data)


def test_corpus() -> None:
    """Goal: what was found once stays found.  Method: what longer runs of fuzz_python.py have kept."""
    inputs = sorted((mutation.CORPUS / "atheris").iterdir())
    assert inputs
    targets = list(TARGETS.values())
    for path in inputs:
        data = path.read_bytes()
        targets[data[0] % len(targets)](data[1:])


def test_mutations() -> None:
    """Goal: as above.  Method: 4 s of mutations."""
    assert mutation.run(4.0, seed=5) > 20
