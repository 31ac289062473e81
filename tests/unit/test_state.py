"""Goal: each start of an instance has an incarnation above the last one, whatever its clock and its disk do.

Method: the file of the last incarnation in a temporary state directory.
"""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipeline import limits
from pipeline.io import state
from pipeline.io.state import IncarnationFile


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "ROOT", tmp_path / "lib")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return tmp_path / "lib"


def start(clock_ms: int) -> int:
    """Return the incarnation of a start of instance "a"."""
    file = IncarnationFile("a")
    incarnation = file.following(clock_ms)
    file.save(incarnation)
    return incarnation


def test_incarnation_grows_although_the_clock_is_set_back(root: Path) -> None:
    """Goal: peers take no new start for an old one.  Method: clocks ahead, behind, at 0, and right again."""
    assert [start(clock_ms) for clock_ms in (1000, 5000, 10, 0, 4000, 9000)] == [1000, 5000, 5001, 5002, 5003, 9000]
    assert IncarnationFile("b").following(7) == 7, "instances are independent"


def test_incarnation_that_is_not_above_the_last_one_is_not_written(root: Path) -> None:
    """Goal: a control process that was restored does not lower the number.  Method: save a lower one."""
    start(5000)
    IncarnationFile("a").save(4000)
    assert start(0) == 5001


def test_state_is_private(root: Path) -> None:
    """Goal: modes 0700 and 0600.  Method: those of a new directory."""
    start(1)
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root / "a").iterdir()] == [0o600]


@pytest.mark.parametrize("content", [b"", b"x", b"-5", b"9" * 5000, str(limits.INCARNATION_MAX).encode()])
def test_damaged_file_is_replaced(root: Path, content: bytes) -> None:
    """Goal: no content keeps an instance from its start.  Method: files without a number that could be followed."""
    (root / "a").mkdir(parents=True)
    (root / "a" / "incarnation").write_bytes(content)
    assert start(1000) == 1000
    assert start(0) == 1001


def test_link_in_place_of_the_file_is_not_followed(root: Path, tmp_path: Path) -> None:
    """Goal: no other file is read or written.  Method: links to another file."""
    (root / "a").mkdir(parents=True)
    (tmp_path / "other").write_text("77")
    (root / "a" / "incarnation").symlink_to(tmp_path / "other")
    assert start(5) == 5
    assert (tmp_path / "other").read_text() == "77"
    (root / "a" / "incarnation.new").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="incarnation"):
        start(500)
    assert (tmp_path / "other").read_text() == "77"


def test_directory_of_systemd_is_used(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a unit with StateDirectory= needs no other directory.  Method: one and two directories."""
    for given in (tmp_path / "s", f"{tmp_path / 's'}:{tmp_path / 't'}"):
        monkeypatch.setenv("STATE_DIRECTORY", str(given))
        assert start(3) >= 3
    assert (tmp_path / "s" / "incarnation").read_text() == "4\n"
    assert not root.exists()
