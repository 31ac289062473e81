"""Goal: the table section → rule → test of membership/README.md has no gap and names no test that is not there
(issue 4, "Evidence").  Method: its first and last columns against the RFCs' sections and the test files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in (ROOT / "pipeline" / "membership" / "README.md").read_text().splitlines()
    if re.match(r"\| [\d–][\d., –]* / |\| [\d., ]+ / ", line)
]
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
IGMP = {4: (2, {1: 12, 2: 17}), 5: (0, {}), 6: (6, {2: 3, 4: 2, 6: 3}), 7: (3, {3: 2}), 8: (14, {})}
MLD = {5: (2, {1: 15, 2: 15}), 6: (0, {}), 7: (6, {2: 3, 4: 2, 6: 3}), 8: (3, {3: 2}), 9: (14, {})}
"""Chapter → how many sections it has, and how many subsections those have (RFC 9776 §4–§8, RFC 9777 §5–§9)."""


def sections(chapters: dict[int, tuple[int, dict[int, int]]]) -> set[str]:
    found = set()
    for chapter, (count, parts) in chapters.items():
        found.add(f"{chapter}")
        for section in range(1, count + 1):
            found.add(f"{chapter}.{section}")
            found |= {f"{chapter}.{section}.{part}" for part in range(1, parts.get(section, 0) + 1)}
    return found


def named(cell: str) -> set[str]:
    """The sections of "4.1, 4.2.3–4.2.5"."""
    found: set[str] = set()
    for word in re.split(r",\s*", cell):
        first, _, last = word.partition("–")
        if not last:
            found.add(first)
            continue
        stem, _, number = first.rpartition(".")
        found |= {f"{stem}.{each}" for each in range(int(number), int(last.rpartition(".")[2]) + 1)}
    return found


@pytest.mark.parametrize(("side", "chapters"), [(0, IGMP), (1, MLD)], ids=["RFC 9776", "RFC 9777"])
def test_no_section_is_missing(side: int, chapters: dict[int, tuple[int, dict[int, int]]]) -> None:
    listed = set().union(*(named(row[0].split(" / ")[side]) for row in TABLE))
    assert sections(chapters) - listed == set()


def test_every_row_says_how_it_is_held() -> None:
    """A rule of the router names a file and a test; the kernel's rules name the kernel."""
    assert len(TABLE) > 40
    for section, rule, where, test in TABLE:
        assert where in ("kernel", "configuration") or "below" in rule or "`" in test, section


def test_every_test_is_there() -> None:
    words = {quoted.split(": ")[-1] for row in TABLE for quoted in re.findall(r"`([^`]+)`", row[3])}
    names = {word for word in words if not word.startswith(("test_", "…"))}
    assert len(names) > 50
    assert {name for name in names if not re.search(rf"def test_\w*{name.strip('…')}", TESTS)} == set()
