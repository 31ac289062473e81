"""Mutation fuzzing.  Goal: no bytes raise an unexpected error, or cause endless outputs of a core.

Method: mutations of the corpus and of a message of each type, for every parser and both cores, for a few seconds.
`make fuzz` does the same with coverage guidance, and with the C side.
"""

from __future__ import annotations

import pytest

from tests.fuzz import mutation
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_raise_no_unexpected_error(target: str) -> None:
    """Goal: the inputs before mutation are accepted or refused.  Method: every seed for every target."""
    for data in [b"", *mutation.seeds()]:
        TARGETS[target](data)


def test_corpus_raises_no_unexpected_error() -> None:
    """Goal: a fault that was found once does not return.  Method: the inputs that longer runs of fuzz_python.py
    found."""
    inputs = sorted((mutation.CORPUS / "atheris").iterdir())
    assert inputs
    targets = list(TARGETS.values())
    for path in inputs:
        data = path.read_bytes()
        targets[data[0] % len(targets)](data[1:])


def test_mutations_raise_no_unexpected_error() -> None:
    """Goal: the same for mutated inputs.  Method: 4 s of mutations."""
    assert mutation.run(4.0, seed=5) > 20
