"""Goal: what THREATS.md names as a test is one, so that no line of its table outlives its proof.

Method: every name in the third column is looked for among the functions, files and C programs below tests/.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*(ROOT / "tests").rglob("test_*.py")]
FUNCTIONS = {name for path in SOURCES for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
FILES = {path.name for path in SOURCES}
PROGRAMS = [*(ROOT / "tests" / "native").glob("test_*.c")]
NATIVE = {path.stem.removeprefix("test_") for path in PROGRAMS}
NATIVE |= {name for path in PROGRAMS for name in re.findall(r"\bRUN\((\w+)\)", path.read_text())}


def rows() -> list[tuple[str, str]]:
    """Threat and test of each line."""
    text = (ROOT / "THREATS.md").read_text()
    table = text.partition("| threat | defence | test |")[2].partition("\n\n")[0]
    cells = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[-1]) for row in cells if len(row) == 3]


def test_every_threat_has_tests_that_exist() -> None:
    found = rows()
    assert len(found) > 15
    for threat, tests in found:
        names = re.findall(r"`([^`]+)`", tests)
        assert names, threat
        for name in names:
            known = name in FILES or name in NATIVE or any(fnmatch.fnmatch(each, name) for each in FUNCTIONS)
            assert known or name in ("make fuzz", "tests/fuzz"), f"{threat}: {name}"
