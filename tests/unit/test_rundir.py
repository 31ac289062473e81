"""Goal: an instance never locks, removes or opens files outside of its own runtime directory.

Method: a runtime directory under a temporary root, in which other files exist already.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.io import rundir


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rundir, "ROOT", tmp_path / "run")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_link_in_place_of_the_directory_is_refused(root: Path, tmp_path: Path) -> None:
    """Goal: the files of a killed predecessor are removed, but never those of another directory.
    Method: a link to a directory with a file."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    (root / "a").symlink_to(victim)
    with pytest.raises(PipelineError, match="is not a directory"):
        rundir.RuntimeDirectory("a")
    assert [path.name for path in victim.iterdir()] == ["precious"]


def test_directory_of_another_user_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no file of another user is removed.  Method: this process has another user id."""
    (root / "a").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PipelineError, match="another user"):
        rundir.RuntimeDirectory("a")


def test_link_in_place_of_the_lock_is_refused(root: Path, tmp_path: Path) -> None:
    """Goal: no file is created elsewhere.  Method: the lock is a link to a path outside of the directory."""
    (root / "a").mkdir()
    (root / "a" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PipelineError, match="a: "):
        rundir.RuntimeDirectory("a")
    assert not (tmp_path / "elsewhere").exists()


def test_existing_directory_becomes_private_and_empty(root: Path) -> None:
    """Goal: mode 0700, and no file of a predecessor.  Method: a directory of mode 0755 with a socket."""
    (root / "a").mkdir(mode=0o755)
    (root / "a" / "left.sock").touch()
    directory = rundir.RuntimeDirectory("a")
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o700
    assert [path.name for path in (root / "a").iterdir()] == ["lock"]
    directory.remove()
    assert not root.exists()


def test_removed_directory_is_created_again(root: Path) -> None:
    """Goal: a restarted control process can bind its sockets, and commands find the lock.
    Method: restore an existing directory, then a removed one."""
    directory = rundir.RuntimeDirectory("a")
    before = os.stat(root / "a" / "lock").st_ino
    directory.restore()
    assert os.stat(root / "a" / "lock").st_ino == before
    shutil.rmtree(root)
    directory.restore()
    assert (root / "a" / "lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(PipelineError, match="is running"):
        rundir.RuntimeDirectory("a")
    directory.remove()
    assert not root.exists()
