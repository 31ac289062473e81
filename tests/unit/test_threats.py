"""THREATS.md: every threat has a test, and every test and path that the page names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "THREATS.md").read_text()
SOURCES = [*(ROOT / "tests").rglob("test_*.py")]
FUNCTIONS = {name for path in SOURCES for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
FILES = {path.name for path in SOURCES}
PROGRAMS = [*(ROOT / "tests" / "native").glob("test_*.c")]
NATIVE = {path.stem.removeprefix("test_") for path in PROGRAMS}
NATIVE |= {name for path in PROGRAMS for name in re.findall(r"\bRUN\((\w+)\)", path.read_text())}
COMMANDS = {"make fuzz", "tests/fuzz"}


def threat_rows(header: str) -> list[tuple[str, str]]:
    """Return the first and the third column of the table with that header."""
    table = PAGE.partition(header)[2].partition("\n\n")[0]
    cells = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert all(len(row) == 3 for row in cells)
    return [(row[0].strip(), row[2]) for row in cells]


@pytest.mark.parametrize(("header", "rows_min"), [("| threat | defence | test |", 20), ("| what | bound | test |", 15)])
def test_every_row_names_tests_that_exist(header: str, rows_min: int) -> None:
    """Goal: every threat and every bound names at least one test, and each of them exists.
    Method: the names of the third column are looked up among functions, files and C programs under tests/."""
    rows = threat_rows(header)
    assert len(rows) > rows_min
    for subject, tests in rows:
        names = re.findall(r"`([^`]+)`", tests)
        assert names, f"no test of: {subject}"
        missing = [name for name in names if name not in FUNCTIONS | FILES | NATIVE | COMMANDS]
        assert not missing, f"{subject}: {missing}"


def test_every_test_name_on_the_page_exists() -> None:
    """Goal: a renamed test is renamed on the page too, wherever it stands there.
    Method: every word that begins like a test is looked up."""
    names = set(re.findall(r"\btest_\w+(?:\.py)?", PAGE))
    assert len(names) > 30
    assert not names - FUNCTIONS - FILES


def test_every_path_on_the_page_exists() -> None:
    """Goal: the page names no file that is gone.  Method: every quoted path of the repository is looked up."""
    paths = set(re.findall(r"`((?:pipeline|configs|tests|cffi_build)/[\w./-]*)`", PAGE))
    assert len(paths) >= 4
    assert not [path for path in paths if not (ROOT / path).exists()]
