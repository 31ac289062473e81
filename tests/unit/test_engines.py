"""Goal: an engine's name stands for one class that can be loaded, or causes one line with the error.

Method: packages on sys.path, each made of a module and the metadata that an installer writes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import engines
from pipeline.address import ANY_SOURCE, parse
from pipeline.engines.api import Engine, EngineContext, LinkState
from pipeline.engines.mesh import Mesh
from pipeline.errors import ConfigError

GROUP = parse("239.1.2.3")
Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package by its name, its entry point and the source of its module `engine_of_NAME`."""
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


def load_error(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        engines.load(name)
    return str(caught.value)


def test_engine_of_another_package_is_loaded(install: Install) -> None:
    """Goal: an installed package can bring an engine.  Method: a package that declares one."""
    install("good", "gossip = engine_of_good:Gossip", "from pipeline.engines.mesh import Mesh as Gossip")
    assert engines.load("gossip") is Mesh
    assert "gossip" in engines.names()


def test_unknown_name_is_refused_with_the_nearest_name() -> None:
    """Goal: a misspelt name has a hint.  Method: two letters changed."""
    assert "did you mean mesh" in load_error("mehs")
    assert "mesh" in engines.names()


def test_one_engine_declared_twice_is_no_conflict(install: Install) -> None:
    """A package that is both installed and checked out declares its engines twice."""
    install("copy", "mesh = pipeline.engines.mesh:Mesh", "")
    assert engines.load("mesh") is Mesh


def test_one_name_of_two_packages_is_refused(install: Install) -> None:
    """Goal: the error names both packages.  Method: two packages with one name."""
    for name in ("one", "two"):
        install(name, f"gossip = engine_of_{name}:Gossip", "Gossip = object")
    error = load_error("gossip")
    assert "engine_of_one:Gossip of one" in error
    assert "engine_of_two:Gossip of two" in error


def test_name_of_a_built_in_engine_is_refused(install: Install) -> None:
    """Goal: no package replaces a built-in engine unnoticed.  Method: a package that declares nemo."""
    install("other", "nemo = engine_of_other:Nemo", "Nemo = object")
    error = load_error("nemo")
    assert "engine_of_other:Nemo of other" in error
    assert "pipeline.engines.nemo.engine:Nemo of mcast-pipeline" in error


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("Other = object", "AttributeError"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("Bad = 7", "TypeError: not a class"),
        ("class Bad:\n    def join(self): ...", "TypeError: the class lacks deregister_source, handle_link, "),
    ],
)
def test_any_failure_to_load_is_one_line(install: Install, source: str, word: str) -> None:
    """Goal: the error has engine, entry point and reason in one line.  Method: modules with one fault each."""
    install("bad", "bad = engine_of_bad:Bad", source)
    error = load_error("bad")
    assert error.startswith("overlay engine 'bad' cannot be loaded from engine_of_bad:Bad: ")
    assert word in error
    assert "\n" not in error


PLAIN_CLASS = """
class Plain:
    repairs = True
    def __init__(self, context, now): self.joined = []
    def join(self, group, sources, now): self.joined.append(group)
    def leave(self, group, now): ...
    def register_source(self, group, now): ...
    def deregister_source(self, group, now): ...
    def handle_link(self, peer, state, now, *, rtt_s=None): ...
    def handle_message(self, peer, message, now): ...
    def poll_output(self): ...
"""


def test_class_without_the_base_class_is_given_its_defaults(install: Install) -> None:
    """Goal: an engine of another package that only has the methods works, optional inputs included."""
    install("plain", "plain = engine_of_plain:Plain", PLAIN_CLASS)
    plain = engines.load("plain")
    assert (plain.repairs, plain.supports_partial_view) == (True, False)
    engine: Engine = plain(EngineContext(node_id=1, random=lambda: 0.5), 0.0)
    engine.join(GROUP, ANY_SOURCE, 0.0)
    engine.handle_link(2, LinkState.UP, 0.0)
    engine.handle_stream_stall(GROUP, 0.0)
    engine.handle_gap(GROUP, 2, (1,), 0.0)
    engine.restore(engine.snapshot(0.0), 0.0)
    assert engine.poll_timeout() is None
    assert engine.members(GROUP) == frozenset()
    assert engine.joined == [GROUP]  # type: ignore[attr-defined]


def test_function_that_makes_an_engine_is_loaded(install: Install) -> None:
    """Goal: an entry point may name a function; its attributes declare the abilities."""
    source = (
        "from pipeline.engines.mesh import Mesh\ndef make(context, now): return Mesh(context, now)\nmake.repairs = True"
    )
    install("made", "made = engine_of_made:make", source)
    made = engines.load("made")
    assert (made.repairs, made.supports_partial_view) == (True, False)
    assert type(made(EngineContext(node_id=1, random=lambda: 0.5), 0.0)) is Mesh


def test_function_that_makes_no_engine_is_refused(install: Install) -> None:
    """Goal: a wrong function is an error of one line.  Method: a function that returns an object."""
    install("none", "none = engine_of_none:make", "def make(context, now): return object()")
    with pytest.raises(ConfigError, match="makes no subclass"):
        engines.load("none")(EngineContext(node_id=1, random=lambda: 0.5), 0.0)


@pytest.mark.parametrize("name", ["flood", "mesh", "nemo"])
def test_built_in_engines_declare_their_abilities(name: str) -> None:
    """Goal: only nemo repairs and supports partial views.  Method: load each."""
    assert (engines.load(name).repairs, engines.load(name).supports_partial_view) == (name == "nemo", name == "nemo")
