"""Fuzzing of the Python side with atheris (coverage-guided): `python -m tests.fuzz.fuzz_python SECONDS`.

The first byte of an input selects the target by its index in TARGETS, as in corpus/atheris.  The run begins with a
message of each type for each target.  Where atheris has no wheel, the same targets get mutations only (mutation.py), as
in the unit tests.  Further arguments are passed to libFuzzer.
"""

from __future__ import annotations

import hashlib
import random
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
        from tests.fuzz import mutation, nemo, overlay_node  # noqa: PLC0415
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    targets = list(TARGETS.values())
    kinds = [next((kind for kind in (overlay_node, nemo) if name in kind.TARGETS), mutation) for name in TARGETS]

    def one(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)](data[1:])

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        """Mutate an input; half of the mutations keep messages well formed, as others hardly ever pass the decoder."""
        kind = kinds[data[0] % len(targets)] if data else mutation
        if seed & 1 and kind is not mutation:
            return data[:1] + kind.twisted_script(random.Random(seed), data[1:])[: size - 1]
        changed: bytes = atheris.Mutate(data, size)
        return changed

    found = HERE / "bin" / "found" / "python"
    found.mkdir(parents=True, exist_ok=True)
    begin = HERE / "bin" / "seeds"
    begin.mkdir(exist_ok=True)
    for number in range(len(targets)):
        for data in kinds[number].seeds():
            name = hashlib.blake2b(data, digest_size=8).hexdigest()
            (begin / f"{number}-{name}").write_bytes(bytes([number]) + data)
    options = [f"-max_total_time={seconds}", "-max_len=4096", f"-artifact_prefix={found.parent}/"]
    options += ["-verbosity=0", "-print_final_stats=1", *sys.argv[2:]]
    corpora = [str(found), str(HERE / "corpus" / "atheris"), str(begin)]
    atheris.Setup([sys.argv[0], *options, *corpora], one, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
