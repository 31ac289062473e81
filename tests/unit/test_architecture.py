"""ARCHITECTURE.md: its trees name every module, and its line of layers is the contract of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pipeline"
PAGE = (PACKAGE / "ARCHITECTURE.md").read_text()
ROOMS = sorted(path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py"))


def tree(root: str) -> dict[str, str]:
    """Return module path → description from a tree; the path of a package ends with a slash."""
    lines = PAGE.partition(f"```\n{root}\n")[2].partition("```")[0].splitlines()
    parents: list[str] = []
    found: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(r"((?:  )+)(\w+/?) {2,}(\S.*)", line)
        assert match, f"not a line of the tree: {line}"
        depth = len(match[1]) // 2 - 1
        path = "".join(parents[:depth]) + match[2]
        assert path not in found, f"{path} stands in the tree twice"
        found[path] = match[3]
        parents[depth:] = [match[2]]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_tree_names_the_modules_of_room(room: str) -> None:
    """Goal: every module of a package has one line in the tree, and no line is left of a module that is gone.
    Method: the names below the package's line, compared with its files."""
    prefix = "" if room == "." else f"{room}/"
    modules = [path for path in tree("pipeline/") if not path.endswith("/")]
    named = sorted(path for path in modules if path.rpartition("/")[0] == prefix.rstrip("/"))
    present = [f"{prefix}{path.stem}" for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__"]
    assert named == sorted(present)


def test_tree_names_every_room() -> None:
    """Goal: every package has a line, and no other.  Method: compare the tree with the directories."""
    rooms = {path.removesuffix("/") for path in tree("pipeline/") if path.endswith("/")}
    assert rooms == set(ROOMS) - {"."}


def test_tree_names_the_c_files() -> None:
    """Goal: every C module has a line, and no other.  Method: compare the tree with the files."""
    present = {path.stem for path in (ROOT / "cffi_build" / "src").glob("*.[ch]")}
    assert set(tree("cffi_build/src/")) == present


def test_layers_are_those_of_the_contract() -> None:
    """Goal: the line of layers is what import-linter checks.  Method: it is compared with the contract."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    match = re.search(r"`([^`]+→[^`]+)`", PAGE.partition("\n## Layers\n")[2])
    assert match
    assert [layer.split(" | ") for layer in " ".join(match[1].split()).split(" → ")] == [
        layer.split(" | ") for layer in layers
    ]
