"""Distributions: the sdist and the wheel contain what the documents name.

Goal: an installed package has the example configuration, the systemd unit and THREATS.md.
Method: build an sdist from a copy of the repository and a wheel from that sdist, and list their files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns(
    ".*", "build", "dist", "generated", "tests", "perf", "__pycache__", "*.egg-info", "*.so"
)
CONFIGS = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*") if path.is_file()}
MODULES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*.py")}
C_FILES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cffi_build" / "src").glob("*.[ch]")}


def build(kind: str, tree: Path, target: Path) -> Path:
    """Build a distribution by the backend of pyproject.toml, in an isolated process; return its path."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(target)],
        cwd=tree, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of a copy of the repository."""
    tree = tmp_path_factory.mktemp("copy") / "tree"
    shutil.copytree(ROOT, tree, ignore=NOT_COPIED)
    return build("sdist", tree, tmp_path_factory.mktemp("sdist"))


def test_sdist_has_configs_and_documents(sdist: Path) -> None:
    """Goal: the sdist has all sources, the example configuration and the documents.  Method: list its files."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {f"configs/{name}" for name in CONFIGS} | MODULES | C_FILES
    assert expected | {"README.md", "THREATS.md", "LICENSE", "pipeline/ARCHITECTURE.md"} <= names


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_wheel_has_configs_and_documents(sdist: Path, tmp_path: Path) -> None:
    """Goal: a wheel that is built from the sdist alone is complete.  Method: it compiles the extension module."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    with zipfile.ZipFile(build("wheel", tree, tmp_path)) as archive:
        names = set(archive.namelist())
    shared = {name.partition(".data/data/")[2] for name in names} - {""}
    assert shared == {f"share/mcast-pipeline/{name}" for name in CONFIGS | {"THREATS.md"}}
    assert MODULES | {"pipeline/ARCHITECTURE.md", "pipeline/shm/_native.abi3.so"} <= names
