"""The network key of a node.  Goal: a node moves to another key step by step, and a failure leaves the old one.

Method: key files on disk; the grace on a virtual clock; control's decisions with lists in place of sockets and node.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from pipeline.config import Config, NodeSection
from pipeline.control.network_key import NetworkKeys
from pipeline.errors import ConfigError, PipelineError
from pipeline.io import identity_file, keystore, state
from pipeline.keys import file as key_file
from pipeline.keys.network_rollover import NetworkKeyRollover

OLD, NEW, THIRD = (bytes([number]) * 32 for number in (1, 2, 3))


# ---------------------------------------------------------------- key file and key store


def test_rotate_keeps_one_old_key_and_retire_none(tmp_path: Path) -> None:
    """Goal: a rotation puts a new key first, retiring leaves the first only; the mode is always 0600.
    Method: three rotations of a file, then retire."""
    path = tmp_path / "network.key"
    key_file.write_network_key(path)
    seen = [key_file.load_network_key(path)]
    for _ in range(3):
        key_file.add_network_key(path)
        found = key_file.load_network_keys(path)
        assert len(found) == 2
        assert found[1] == seen[-1]
        assert found[0] not in seen
        seen.append(found[0])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key_file.retire_network_keys(path)
    assert key_file.load_network_keys(path) == [seen[-1]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["network.key"]


def test_rotate_refuses_a_file_that_is_not_a_usable_key_file(tmp_path: Path) -> None:
    """Goal: a rotation makes no key file.  Method: a missing file, a readable one, one with three keys."""
    with pytest.raises(ConfigError, match="no such key file"):
        key_file.add_network_key(tmp_path / "none")
    path = tmp_path / "open"
    key_file.write_network_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        key_file.add_network_key(path)
    path.chmod(0o600)
    path.write_text("".join(base64.b64encode(key).decode() + "\n" for key in (OLD, NEW, THIRD)))
    with pytest.raises(ConfigError, match="3 keys, 2 are the limit"):
        key_file.load_network_keys(path)


def test_failed_rotation_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a full disk leaves the old file complete, and no other file.  Method: fsync fails."""
    path = tmp_path / "network.key"
    key_file.write_network_key(path)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PipelineError, match="no space left"):
        key_file.add_network_key(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_keystore_is_filled_by_a_child_and_wiped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Goal: a child process reads the secrets, control gets them, and they are wiped; an error is one line and 78.
    Method: a new identity and a file with two keys, a missing one, and none with --insecure."""
    path = tmp_path / "network.key"
    key_file.write_network_key(path)
    key_file.add_network_key(path)
    fd = keystore.create()
    assert keystore.load(fd) == []
    node = NodeSection(name="a", key=str(path), identity=str(tmp_path / "identity"))
    assert keystore.fill(fd, Config(node=node)) == 0
    seed = identity_file.load(tmp_path / "identity")
    assert (keystore.load(fd), keystore.load_seed(fd)) == (key_file.load_network_keys(path), seed)
    keystore.save(fd, [bytes(32)], is_moving=True)
    assert keystore.load_seed(fd) == seed
    keystore.wipe(fd)
    assert (keystore.load(fd), keystore.load_seed(fd)) == ([], bytes(32))
    assert keystore.fill(fd, Config(node=replace(node, key=str(tmp_path / "none")))) == 78
    assert capfd.readouterr().err.count("\n") == 1
    assert keystore.fill(fd, Config(node=replace(node, key=None, insecure=True))) == 0
    assert (keystore.load(fd), keystore.load_seed(fd), keystore.identity_fault(fd)) == ([], seed, "")
    os.close(fd)


def test_identity_that_cannot_be_kept_is_stored_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Goal: such a node starts, and its log has one line when it runs, as no error may have a line before it.
    Method: a file in place of the state directory."""
    monkeypatch.setattr(state, "ROOT", tmp_path / "lib")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    (tmp_path / "lib").write_text("")
    fd = keystore.create()
    assert keystore.fill(fd, Config(node=NodeSection(name="a", insecure=True))) == 0
    assert str(tmp_path / "lib" / "a") in keystore.identity_fault(fd) and keystore.load_seed(fd) != bytes(32)
    assert capfd.readouterr().err == ""
    os.close(fd)


# ---------------------------------------------------------------- grace


def test_old_key_ends_a_grace_after_the_last_peer_moved() -> None:
    """Goal: no peer is cut off while others still move.  Method: no move for a long time, then two."""
    rollover = NetworkKeyRollover(10)
    assert not rollover.expire(1e9)
    rollover.begin(0, is_alone=False)
    assert not rollover.expire(1000)
    rollover.handle_peer_moved(1000)
    rollover.handle_peer_moved(1009)
    assert not rollover.expire(1018.9)
    assert rollover.expire(1019)
    assert not rollover.expire(1020)


def test_grace_starts_at_once_without_linked_peers() -> None:
    """Goal: a node that is alone moves, too.  Method: begin without peers."""
    rollover = NetworkKeyRollover(10)
    rollover.begin(0, is_alone=True)
    assert not rollover.expire(9.9)
    assert rollover.expire(10)


# ---------------------------------------------------------------- decisions of control


class Fixture:
    """NetworkKeys with sockets and a node that record the calls."""

    def __init__(self, *network_keys: bytes) -> None:
        self.store = keystore.create()
        if network_keys:
            keystore.save(self.store, list(network_keys))
        self.open: dict[int, bytes | None] = {}
        self.calls: list[Any] = []
        self.proved = 0
        sockets = SimpleNamespace(add=self.open.__setitem__, drop=self.open.pop)
        node = SimpleNamespace(
            has_proved=lambda _: self.proved,
            exclude_older=lambda number, _: self.calls.append(("exclude", number)) or ["e"],
            links=lambda: [SimpleNamespace(is_up=True)],
        )
        rotation = SimpleNamespace(renew=lambda: self.calls.append("renew"))
        self.keys = NetworkKeys(
            sockets=sockets,  # type: ignore[arg-type]
            store=self.store,
            node=node,  # type: ignore[arg-type]
            rotation=rotation,  # type: ignore[arg-type]
            grace_s=10,
        )
        self.keys.start(0.0)

    def reload(self, *network_keys: bytes, now: float = 0.0) -> str:
        text = " ".join(base64.b64encode(key).decode() for key in network_keys)
        return self.keys.reload({"keys": text}, now)


def test_reload_moves_to_a_new_key_and_excludes_the_others() -> None:
    """Goal: both keys are valid, then the new one; peers that have not moved are excluded, sender keys renewed twice.
    Method: a reload, a peer that moves, and the clock."""
    fixture = Fixture(OLD)
    assert fixture.open == {1: OLD}
    assert fixture.reload(NEW, OLD) == ""
    assert fixture.open == {1: OLD, 2: NEW}
    assert keystore.load(fixture.store) == [NEW, OLD]
    fixture.keys.note_messages(1, 5)
    assert not fixture.keys.tick(100)
    fixture.proved = 1
    fixture.keys.note_messages(2, 100)
    fixture.keys.note_messages(2, 109)
    assert not fixture.keys.tick(109.9)
    assert fixture.keys.tick(110)
    assert fixture.open == {2: NEW}
    assert keystore.load(fixture.store) == [NEW]
    assert fixture.calls == [("exclude", 2), "renew"]
    fixture.keys.tick(119.9)
    fixture.keys.tick(120)
    assert fixture.calls == [("exclude", 2), "renew", "renew"]


def test_restarted_control_finishes_a_move() -> None:
    """Goal: the old key ends even if control died after the reload.  Method: a second object on the same store."""
    first = Fixture(OLD)
    first.reload(NEW, OLD)
    second = Fixture()
    second.open.clear()
    keystore.save(second.store, keystore.load(first.store), is_moving=keystore.is_moving(first.store))
    second.keys.start(0.0)
    assert second.open == {2: NEW, 1: OLD}
    second.proved = 1
    second.keys.note_messages(2, 50)
    assert second.keys.tick(60)
    assert not keystore.is_moving(second.store)
    assert second.open == {2: NEW}


def test_reload_of_an_unchanged_file_changes_nothing() -> None:
    """Goal: no peer is cut off by a needless reload.  Method: files with one key and with two."""
    for start in ((OLD,), (NEW, OLD)):
        fixture = Fixture(*start)
        before = dict(fixture.open)
        assert fixture.reload(*start) == ""
        assert (fixture.open, fixture.calls) == (before, [])


def test_replacement_without_the_old_key_ends_it_at_once() -> None:
    """Goal: a file with only another key cuts off the old one without a grace.  Method: reload."""
    fixture = Fixture(OLD)
    assert fixture.reload(NEW) == ""
    assert fixture.open == {2: NEW}
    assert ("exclude", 2) in fixture.calls


def test_appended_key_is_valid_and_active_only_when_it_is_first() -> None:
    """Goal: a key behind the active one is accepted without an end, and becomes the active one when it is first.
    Method: append, wait, swap, wait."""
    fixture = Fixture(OLD)
    assert fixture.reload(OLD, NEW) == ""
    assert fixture.open == {1: OLD, 0: NEW}
    fixture.proved = 1
    fixture.keys.note_messages(1, 1)
    assert not fixture.keys.tick(1e6)
    assert fixture.reload(NEW, OLD, now=1e6) == ""
    assert fixture.open == {1: OLD, 2: NEW}
    fixture.keys.note_messages(2, 1e6)
    assert fixture.keys.tick(1e6 + 10)
    assert fixture.open == {2: NEW}


def test_retired_key_ends_at_once() -> None:
    """Goal: a node that was launched with two keys accepts both until the file has one.  Method: reload."""
    fixture = Fixture(NEW, OLD)
    assert fixture.open == {2: NEW, 1: OLD}
    assert not fixture.keys.tick(1e6)
    assert fixture.reload(NEW) == ""
    assert fixture.open == {2: NEW}


def test_second_move_ends_the_oldest_key() -> None:
    """Goal: never more than two keys are valid.  Method: a second reload before the grace of the first has ended."""
    fixture = Fixture(OLD)
    fixture.reload(NEW, OLD)
    fixture.reload(THIRD, NEW)
    assert fixture.open == {2: NEW, 3: THIRD}


@pytest.mark.parametrize("text", ["", "?", "AAAA", " ".join([base64.b64encode(OLD).decode()] * 3)])
def test_unusable_keys_are_refused(text: str) -> None:
    """Goal: only whole keys are accepted, two at the most.  Method: reloads with other texts."""
    fixture = Fixture(OLD)
    assert fixture.keys.reload({"keys": text}, 0) != ""
    assert fixture.open == {1: OLD}


def test_key_for_an_insecure_node_is_refused() -> None:
    """Goal: the error names --insecure; without keys there is none, as the certificate may be renewed.
    Method: reload with a key, and without."""
    fixture = Fixture()
    assert fixture.open == {0: None}
    assert "--insecure" in fixture.reload(NEW)
    assert fixture.keys.reload({}, 0) == ""
