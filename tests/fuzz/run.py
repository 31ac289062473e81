"""Run one fuzz target of membership or credentials with atheris (libFuzzer with coverage of Python code) on its corpus.

    python -m tests.fuzz.run igmp [-max_total_time=60 …]       flags are passed to libFuzzer

Inputs that reach new code are written to the directory `--into`, or to a temporary one.  So a longer run can add to the
corpus: `--into tests/fuzz/corpus/igmp`.  A crash ends the run; its input is written to the working directory.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pipeline.wire", "pipeline.membership", "pipeline.keys"]):
    from tests.fuzz import credentials, membership

TARGETS = membership.TARGETS | credentials.TARGETS

CORPUS = Path(__file__).resolve().parent / "corpus"


def main(arguments: list[str]) -> None:
    """Run the target that the first argument names."""
    name, *rest = arguments
    into = Path(rest[rest.index("--into") + 1]) if "--into" in rest else Path(tempfile.mkdtemp(prefix="fuzz-"))
    flags = [word for word in rest if word.startswith("-") and word != "--into"]

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        if seed & 1 and name in credentials.TARGETS:
            return credentials.twisted(random.Random(seed), data)[:size]
        changed: bytes = atheris.Mutate(data, size)
        return changed

    atheris.Setup([sys.argv[0], *flags, str(into), str(CORPUS / name)], TARGETS[name], custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
