"""Goal: nobody makes an instance lock, remove or open what is not its own.

Method: a runtime directory in a temporary place, in which something else stands already.
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


def test_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    """Taking over what a killed predecessor left removes all files there: not those of another directory."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    (root / "a").symlink_to(victim)
    with pytest.raises(PipelineError, match="is not a directory"):
        rundir.RuntimeDirectory("a")
    assert [path.name for path in victim.iterdir()] == ["precious"]


def test_a_directory_of_another_user_is_not_used(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PipelineError, match="another user"):
        rundir.RuntimeDirectory("a")


def test_a_lock_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PipelineError, match="a: "):
        rundir.RuntimeDirectory("a")
    assert not (tmp_path / "elsewhere").exists()


def test_it_is_private_whatever_it_was(root: Path) -> None:
    (root / "a").mkdir(mode=0o755)
    (root / "a" / "left.sock").touch()
    directory = rundir.RuntimeDirectory("a")
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o700
    assert [path.name for path in (root / "a").iterdir()] == ["lock"]
    directory.remove()
    assert not root.exists()


def test_it_comes_back_when_somebody_has_removed_it(root: Path) -> None:
    """A control that is restarted binds its sockets there, and the commands look for the lock."""
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
