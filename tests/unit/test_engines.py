"""Goal: an engine's name stands for one engine that can be loaded, or there is one line that says what is wrong.

Method: packages on sys.path, of a module and the metadata that an installer writes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import engines
from pipeline.engines.mesh import Mesh
from pipeline.errors import ConfigError

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package: its name, its entry point, the source of the module `engine_of_NAME`."""
    monkeypatch.syspath_prepend(tmp_path)
    engines.load.cache_clear()

    def install(name: str, entry: str, source: str) -> None:
        (tmp_path / f"engine_of_{name}.py").write_text(source)
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{engines.ENTRY_POINT_GROUP}]\n{entry}\n")

    yield install
    engines.load.cache_clear()
    for module in [module for module in sys.modules if module.startswith("engine_of_")]:
        del sys.modules[module]


def complaint(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        engines.load(name)
    return str(caught.value)


def test_an_engine_of_another_package(install: Install) -> None:
    install("good", "gossip = engine_of_good:Gossip", "from pipeline.engines.mesh import Mesh as Gossip")
    assert engines.load("gossip") is Mesh
    assert "gossip" in engines.names()


def test_the_same_engine_named_twice_is_one(install: Install) -> None:
    """As of a package that is installed and checked out."""
    install("copy", f"mesh = {engines.BUILT_IN['mesh']}", "")
    assert engines.load("mesh") is Mesh


def test_two_packages_with_the_same_name(install: Install) -> None:
    for name in ("one", "two"):
        install(name, f"gossip = engine_of_{name}:Gossip", "Gossip = object")
    said = complaint("gossip")
    assert "engine_of_one:Gossip of one" in said
    assert "engine_of_two:Gossip of two" in said


def test_a_package_with_the_name_of_a_built_in_engine(install: Install) -> None:
    install("other", "nemo = engine_of_other:Nemo", "Nemo = object")
    said = complaint("nemo")
    assert "engine_of_other:Nemo of other" in said
    assert f"{engines.BUILT_IN['nemo']} of mcast-pipeline" in said


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("Other = object", "AttributeError"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_whatever_an_import_raises_is_one_line(install: Install, source: str, word: str) -> None:
    install("bad", "bad = engine_of_bad:Bad", source)
    said = complaint("bad")
    assert said.startswith("overlay engine 'bad' cannot be loaded from engine_of_bad:Bad: ")
    assert word in said
    assert "\n" not in said
