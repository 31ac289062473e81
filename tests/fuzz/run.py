"""Runs one fuzz target under atheris (libFuzzer with coverage of Python code) from its committed corpus.

    python -m tests.fuzz.run igmp [-max_total_time=60 …]       flags of libFuzzer go through

New inputs that reach new code go to the directory given by `--into` (a throw-away one if not), so that a longer run can
add to the corpus: `--into tests/fuzz/corpus/igmp`.  A crash is written to the working directory and ends the run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pipeline.wire", "pipeline.membership"]):
    from tests.fuzz.membership import TARGETS

CORPUS = Path(__file__).resolve().parent / "corpus"


def main(arguments: list[str]) -> None:
    """The first argument names the target."""
    name, *rest = arguments
    into = Path(rest[rest.index("--into") + 1]) if "--into" in rest else Path(tempfile.mkdtemp(prefix="fuzz-"))
    flags = [word for word in rest if word.startswith("-") and word != "--into"]
    atheris.Setup([sys.argv[0], *flags, str(into), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
