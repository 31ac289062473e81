"""Documents: every file, test and link that a README names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "pipeline/ARCHITECTURE.md",
    "perf/README.md",
    "tests/README.md",
    "pipeline/engines/README.md",
    "pipeline/keys/README.md",
    "pipeline/membership/README.md",
    "configs/demo/README.md",
]
DIRECTORIES = ("cffi_build", "configs", "perf", "pipeline", "tests")
FILES = [path for name in DIRECTORIES for path in (ROOT / name).rglob("*") if path.is_file()] + [*ROOT.glob("*")]
NAMES = {path.name for path in FILES}
TESTS = {path.stem for path in FILES if path.stem.startswith("test_")}
TESTS |= {name for path in FILES if path.suffix == ".py" for name in re.findall(r"def (test_\w+)", path.read_text())}


@pytest.mark.parametrize("page", PAGES)
def test_documents_name_only_what_exists(page: str) -> None:
    """Goal: no README names a file or test that was renamed or removed.
    Method: quoted file names (except those in results/), words that begin like a test (a name that ends with … or _
    may be its beginning), and relative links are looked up in the repository."""
    text = (ROOT / page).read_text()
    files = re.findall(r"`(?!results/)(?:[\w.-]+/)*([\w-]+\.(?:py|c|h|md))`", text)
    assert not [name for name in files if name not in NAMES and name != "NAME.md"]
    tests = re.findall(r"\b(test_\w+)(…?)", text)
    prefixes = tuple(name for name, cut in tests if cut or name.endswith("_"))
    assert all(any(each.startswith(prefix) for each in TESTS) for prefix in prefixes)
    assert not {name for name, _ in tests} - TESTS - set(prefixes)
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert not [link for link in links if not ((ROOT / page).parent / link).exists()]
