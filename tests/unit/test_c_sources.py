"""Goal: the C sources keep their bounds, have no circle, and every acquire names its release.

Method: the text of the sources, without a compiler.  A function begins at a line that starts with its return type and
ends at the first `}` in column 0.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "cffi_build/src").glob("*.[ch]"))
OTHERS = sorted([ROOT / "cffi_build/cdef.h", *(ROOT / "tests").glob("**/*.[ch]"), *(ROOT / "perf").glob("*.c")])
COLUMNS_MAX = 120
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
ONE_SIDED = {"FIB_HIGH_WATER": "the successor reads the mark after the death of the writer, which orders both"}
"""Labels with one side only, and the reason."""


def _functions(source: Path) -> Iterator[tuple[str, int]]:
    """Return name and lines of each function that a file defines."""
    name, start = "", 0
    for number, line in enumerate(source.read_text().split("\n")):
        found = re.match(r"[a-z_][\w\s*]*?\b(\w+)\(", line)
        if found and not line.rstrip().endswith(";"):
            name, start = found[1], number
        if line.startswith("}") and name:
            yield name, number - start + 1
            name = ""


def _code(source: Path) -> str:
    return re.sub(r"/\*.*?\*/|\"[^\"\n]*\"", "", source.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("source", [*SOURCES, *OTHERS], ids=lambda path: path.name)
def test_lines_files_and_functions_are_bounded(source: Path) -> None:
    """No line above 120 columns, no file above 500 lines, no function above 70."""
    lines = source.read_text().split("\n")
    assert not [number for number, line in enumerate(lines, 1) if len(line.expandtabs(8)) > COLUMNS_MAX]
    assert len(lines) - 1 <= FILE_LINES_MAX
    assert not [(name, length) for name, length in _functions(source) if length > FUNCTION_LINES_MAX]


def test_c_files_call_each_other_without_circle() -> None:
    """A file that calls a function of another is not called by it, directly or through others."""
    files = [source for source in SOURCES if source.suffix == ".c"]
    defined_in = {name: source for source in files for name, _ in _functions(source) if name.startswith("mp_")}
    assert len(defined_in) > 100
    calls = nx.DiGraph()
    for source in files:
        used = {defined_in[name] for name in re.findall(r"\bmp_\w+", _code(source)) if name in defined_in}
        calls.add_edges_from((source.name, other.name) for other in used - {source})
    assert {("mp_worker.c", "mp_stage_classify.c"), ("mp_stage_classify.c", "mp_hand_off.c")} <= set(calls.edges)
    assert not list(nx.simple_cycles(calls))


def test_headers_include_each_other_without_circle() -> None:
    """Include guards would hide a circle."""
    includes = nx.DiGraph()
    for source in SOURCES:
        if source.suffix == ".h":
            found = re.findall(r'^#include "(\w+\.h)"', source.read_text(), flags=re.MULTILINE)
            includes.add_edges_from((source.name, other) for other in found)
    assert ("mp_ring.h", "mp_layout.h") in includes.edges
    assert not list(nx.simple_cycles(includes))


def test_every_acquire_names_its_release() -> None:
    """An access with acquire, release or sequentially consistent order follows a comment with its side and label.

    `release RING_PUBLISH: …` pairs with `acquire RING_PUBLISH: …`; both sides of a full fence have `fence BELL: …`.
    """
    sides: dict[str, set[str]] = defaultdict(set)
    for source in SOURCES:
        label, side = "", ""
        lines = source.read_text().split("\n")
        for number, line in enumerate(lines, 1):
            if found := re.search(r"/\* (acquire|release|fence) ([A-Z_]+)[,:]", line):
                side, label = found[1], found[2]
                sides[label].add(side)
            if line == "}":
                label = side = ""
            if used := re.search(
                r"memory_order_(acquire|release|seq_cst|acq_rel)", re.sub(r"atomic_signal_fence.*", "", line)
            ):
                expected = "fence" if used[1] == "seq_cst" else used[1]
                if "memory_order order" in line:
                    continue
                assert side == expected, f"{source.name}:{number}: no comment with side and label"
    for label, found_sides in sides.items():
        if label not in ONE_SIDED:
            assert found_sides in ({"acquire", "release"}, {"fence"}), label
    assert set(ONE_SIDED) <= set(sides)
