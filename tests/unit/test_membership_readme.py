"""membership/README.md.  Goal: its table section → rule → test has no gap, and names only files and tests that exist.

Method: the columns of the table against the RFCs' sections, the modules and the test files.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pipeline" / "membership"
README = (PACKAGE / "README.md").read_text()
TABLE = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in README.splitlines()
    if re.match(r"\| [\d–][\d., –]* / |\| [\d., ]+ / ", line)
]
IGMP = {4: (2, {1: 12, 2: 17}), 5: (0, {}), 6: (6, {2: 3, 4: 2, 6: 3}), 7: (3, {3: 2}), 8: (14, {})}
MLD = {5: (2, {1: 15, 2: 15}), 6: (0, {}), 7: (6, {2: 3, 4: 2, 6: 3}), 8: (3, {3: 2}), 9: (14, {})}
"""Chapter → number of its sections, and of the subsections of each (RFC 9776 §4–§8, RFC 9777 §5–§9)."""


def sections(chapters: dict[int, tuple[int, dict[int, int]]]) -> set[str]:
    """Return the numbers of all chapters, sections and subsections."""
    found = set()
    for chapter, (count, parts) in chapters.items():
        found.add(f"{chapter}")
        for section in range(1, count + 1):
            found.add(f"{chapter}.{section}")
            found |= {f"{chapter}.{section}.{part}" for part in range(1, parts.get(section, 0) + 1)}
    return found


def listed_sections(cell: str) -> set[str]:
    """Return the sections in a cell such as "4.1, 4.2.3–4.2.5"."""
    found: set[str] = set()
    for word in re.split(r",\s*", cell):
        first, _, last = word.partition("–")
        if not last:
            found.add(first)
            continue
        stem, _, number = first.rpartition(".")
        found |= {f"{stem}.{each}" for each in range(int(number), int(last.rpartition(".")[2]) + 1)}
    return found


def listed_tests() -> list[tuple[str, str]]:
    """Return (test file, part of a test's name or empty) for each test in the table."""
    found = []
    for row in TABLE:
        files: list[str] = []
        for quoted in re.findall(r"`([^`]+)`", row[3]):
            prefix, _, name = quoted.rpartition(": ")
            if not prefix and name.startswith(("test_", "…")):
                prefix, name = name, ""
            if prefix:
                files = [path_of(each) for each in prefix.split(", ")]
            found += [(file, name) for file in files]
    return found


def path_of(prefix: str) -> str:
    """Return the path of a test file by its short form in the table."""
    if prefix in ("link", "kernel"):
        return f"netns/test_membership_{prefix}.py"
    return "unit/" + (prefix.replace("…", "test_membership_") if prefix[0] == "…" else prefix) + ".py"


@pytest.mark.parametrize(("side", "chapters"), [(0, IGMP), (1, MLD)], ids=["RFC 9776", "RFC 9777"])
def test_table_has_every_section(side: int, chapters: dict[int, tuple[int, dict[int, int]]]) -> None:
    """Goal: no section of the router side is forgotten."""
    listed = set().union(*(listed_sections(row[0].split(" / ")[side]) for row in TABLE))
    assert sections(chapters) - listed == set()


def test_rows_name_files_that_exist_and_a_test() -> None:
    """Goal: a rule of the router names a file and a test; rules of the host side name the kernel."""
    assert len(TABLE) > 40
    for section, rule, where, test in TABLE:
        assert where in ("kernel", "configuration") or "below" in rule or "`" in test, section
        for name in re.findall(r"`([^`]+)`", where):
            assert any((base / name).exists() for base in (PACKAGE, ROOT / "pipeline", ROOT)), name


def test_tests_of_the_table_exist() -> None:
    """Goal: every test of the table is a function of the file that the table names."""
    listed = listed_tests()
    assert len(listed) > 80
    for file, name in listed:
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf"def test_\w*{name}", text), f"{file}: {name}"


def test_modules_are_described() -> None:
    """Goal: the list of files is that of the package."""
    table = README.partition("| file | content |")[2].partition("\n\n")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.count("|") > 2]
    files = set(re.findall(r"`(\w+\.py)`", " ".join(first_cells)))
    assert files == {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
