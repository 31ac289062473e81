"""Fuzzing of the Python side with atheris (coverage-guided): `python -m tests.fuzz.fuzz_python SECONDS`.

The first byte of an input picks the target.  Where atheris has no wheel the same targets are fed with mutations of the
corpus only (mutation.py), which the unit tests do in any case.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    seconds = int(sys.argv[1])
    try:
        import atheris  # noqa: PLC0415
    except ImportError:
        from tests.fuzz import mutation  # noqa: PLC0415

        print(f"no atheris here: {mutation.run(seconds)} mutations of the corpus")
        return 0
    with atheris.instrument_imports(include=["pipeline"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    targets = list(TARGETS.values())

    def one(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)](data[1:])

    found = HERE / "bin" / "found" / "python"
    found.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", "-max_len=2048", f"-artifact_prefix={found.parent}/"]
    options += ["-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(found), str(HERE / "corpus" / "python")], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
