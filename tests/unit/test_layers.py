"""Imports: the contracts of pyproject.toml hold, there is no circle, and the entry of the command loads little."""

import subprocess
import sys
from pathlib import Path

import grimp
import networkx as nx

ROOT = Path(__file__).resolve().parents[2]


def test_import_contracts_hold():
    """Goal: every layer contract is kept.  Method: lint-imports as `make lint` runs it."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-3000:]


def test_modules_import_in_no_circle():
    """Goal: no circle of imports among modules, imports for type checking and imports in functions included.
    Method: strongly connected components of the graph of all imports."""
    imports = grimp.build_graph("pipeline", exclude_type_checking_imports=False, cache_dir=None)
    edges = [(name, each) for name in imports.modules for each in imports.find_modules_directly_imported_by(name)]
    components = nx.strongly_connected_components(nx.DiGraph(edges))
    assert len(edges) > 500
    assert [sorted(names) for names in components if len(names) > 1] == []


def test_entry_is_light():
    """Goal: `pipeline` starts fast.  Method: importing its entry loads none of the large libraries, nor does loading
    the commands themselves."""
    code = "import sys, pipeline.cli; a = set(sys.modules); import pipeline.cli.app; print(*a, '|', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    entry, commands = ({name.partition(".")[0] for name in part.split()} for part in done.stdout.split("|"))
    heavy = {"zmq", "rich", "msgspec", "asyncio", "pyroute2", "psutil", "structlog", "cffi"}
    assert not entry & (heavy | {"click"})
    assert not commands & heavy
