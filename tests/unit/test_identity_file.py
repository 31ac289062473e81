"""Identity files.  Goal: a node keeps its identity, nobody else reads it, and no fault of the disk changes it.

Method: files in a temporary directory, in place of the state directory.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path

import pytest

from pipeline.config import NodeSection
from pipeline.errors import ConfigError
from pipeline.io import credentials, identity_file, state
from pipeline.keys import file as key_file
from pipeline.keys import storage

NODE = NodeSection(name="a")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "ROOT", tmp_path / "lib")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return tmp_path / "lib"


def test_identity_is_made_once_and_kept(root: Path) -> None:
    """Goal: each start of a node has the same identity, and two nodes have two.  Method: starts of two instances."""
    seed, reason = identity_file.load_or_make(NODE)
    assert len(seed) == 32 and not reason
    assert identity_file.load_or_make(NODE) == (seed, "")
    assert identity_file.load_or_make(NodeSection(name="b"))[0] != seed


def test_identity_is_private(root: Path) -> None:
    """Goal: modes 0700 and 0600 whatever the umask, and no other file is left.  Method: a umask of 0."""
    old = os.umask(0)
    try:
        identity_file.load_or_make(NODE)
    finally:
        os.umask(old)
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o700
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in (root / "a").iterdir()] == [("identity", 0o600)]


def test_configured_file_is_used(root: Path, tmp_path: Path) -> None:
    """Goal: `[node] identity` names the file.  Method: a path elsewhere."""
    node = NodeSection(name="a", identity=str(tmp_path / "a.identity"))
    seed, _ = identity_file.load_or_make(node)
    assert identity_file.load(tmp_path / "a.identity") == seed and not root.exists()


def test_starts_at_the_same_time_have_one_identity(root: Path) -> None:
    """Goal: no start overwrites the identity of another.  Method: eight threads at once."""
    seeds = []
    threads = [threading.Thread(target=lambda: seeds.append(identity_file.load_or_make(NODE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seeds) == 8 and len(set(seeds)) == 1


def test_crash_while_it_is_written_leaves_no_part_of_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a full disk or a crash leaves no file that the next start refuses.  Method: fsync fails; then it works."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", fail)
    seed, reason = identity_file.load_or_make(NODE)
    assert len(seed) == 32 and "no space left" in reason and list((root / "a").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(state, "ROOT", root)
    kept, reason = identity_file.load_or_make(NODE)
    assert identity_file.load_or_make(NODE) == (kept, reason) == (kept, "")


def test_node_without_state_directory_has_an_identity_in_memory(root: Path) -> None:
    """Goal: such a node runs, and the reason can be logged.  Method: a file in place of the directory."""
    root.write_text("")
    first, second = identity_file.load_or_make(NODE), identity_file.load_or_make(NODE)
    assert first[0] != second[0] and str(root / "a" / "identity") in first[1]


def test_configured_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Goal: a configured identity is not replaced by one in memory.  Method: a file in place of its directory."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "identity"
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        identity_file.load_or_make(NodeSection(name="a", identity=str(path)))


def test_lost_identity_is_replaced_by_another_one(root: Path) -> None:
    """Goal: a node whose file was lost starts, with another identity.  Method: remove the file."""
    seed, _ = identity_file.load_or_make(NODE)
    (root / "a" / "identity").unlink()
    assert identity_file.load_or_make(NODE)[0] != seed


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_identity_readable_by_others_is_refused(root: Path, mode: int) -> None:
    """Goal: the error has the path and the command that corrects the mode.  Method: modes with a right of others."""
    identity_file.load_or_make(NODE)
    path = root / "a" / "identity"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=re.escape(f"chmod 600 {path}")):
        identity_file.load_or_make(NODE)


@pytest.mark.parametrize("content", [b"", b"# only a comment\n", b"short\n", b"\xff\xfe\n", b"A" * 44, b"A" * 100_000])
def test_malformed_identity_is_refused_and_kept(root: Path, content: bytes) -> None:
    """Goal: the error names path and remedy, and the file is not overwritten.  Method: files without a seed."""
    path = root / "a" / "identity"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        identity_file.load_or_make(NODE)
    assert path.read_bytes() == content


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "loop", "dangling"])
def test_special_file_is_refused_without_delay(root: Path, kind: str) -> None:
    """Goal: no path makes a start wait, read without end, or write elsewhere.
    Method: a FIFO without a writer, an endless device, a directory, a link to itself and one to nothing."""
    path = root / "a" / "identity"
    path.parent.mkdir(parents=True)
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir(mode=0o700)
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path, "dangling": root / "elsewhere"}[kind])
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        identity_file.load_or_make(NODE)
    assert not (root / "elsewhere").exists()


def test_other_key_is_no_identity(root: Path) -> None:
    """Goal: no key that others have is taken for an identity, and none is signed as a public key.
    Method: a network key in place of the identity; an identity in place of a public key."""
    path = root / "a" / "identity"
    identity_file.load_or_make(NODE)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: not a public key")):
        credentials.load_public_key(path)
    path.unlink()
    key_file.write_network_key(path)
    with pytest.raises(ConfigError, match="not the identity of a node"):
        identity_file.load_or_make(NODE)
