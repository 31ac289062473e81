"""Goal: pins survive restarts, each network has its own, and a file that cannot be used is an error with a remedy.

Method: files in a directory of the test.
"""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import limits
from pipeline.address import parse
from pipeline.config import Config, NodeSection
from pipeline.control.membership_rules import SAVE_INTERVAL_S, MembershipRules
from pipeline.errors import PipelineError
from pipeline.io import keystore, pins
from pipeline.overlay.members import OpenMembers, Pin
from tests.unit.overlay_net import Forger, identity_of

PINS = [
    Pin("a", identity_of("a").public_key, (parse("10.77.0.1"), parse("fd77::1"))),
    Pin("b", identity_of("b").public_key),
]
KEY, OTHER_KEY = b"\1" * 32, b"\2" * 32


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the state directory of an instance, which does not exist yet."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    return tmp_path / "state"


def test_pins_are_read_as_written(directory: Path) -> None:
    """Goal: names, keys, addresses and their order survive; others cannot read the file.
    Method: save twice into a directory that does not exist yet, and load."""
    path = pins.path_for("n", KEY)
    assert pins.load(path) == []
    pins.save(path, PINS[::-1])
    pins.save(path, PINS)
    assert pins.load(path) == PINS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in directory.iterdir()] == [path.name]


def test_each_network_has_its_own_pins_and_reveals_no_key(directory: Path) -> None:
    """Goal: a host that moves to another network meets other nodes there.  Method: paths of two network keys."""
    paths = {pins.path_for("n", key) for key in (KEY, OTHER_KEY)}
    assert len(paths) == 2
    assert not any(KEY.hex()[:8] in path.name for path in paths)


def test_largest_number_of_pins_fits(directory: Path) -> None:
    """Goal: a file that this program has written can be read.  Method: the most pins, each with the most addresses."""
    addresses = tuple(number.to_bytes(16) for number in range(limits.ADDRESSES_PER_NODE_MAX))
    full = [
        Pin(f"{number:0{limits.NAME_LENGTH_MAX}}", number.to_bytes(32), addresses) for number in range(limits.PINS_MAX)
    ]
    path = pins.path_for("n", KEY)
    pins.save(path, full)
    assert pins.load(path) == full


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"name": "a"}]', '[{"name": "a", "public_key": "?"}]', "\0", "["], ids=repr
)
def test_damaged_file_is_an_error_with_a_remedy(directory: Path, text: str) -> None:
    """Goal: the operator learns which file it is and what to do.  Method: texts that are no list of pins."""
    path = pins.path_for("n", KEY)
    pins.save(path, PINS)
    path.write_text(text)
    with pytest.raises(PipelineError, match="remove it") as caught:
        pins.load(path)
    assert str(path) in str(caught.value)


def test_file_of_others_is_refused(directory: Path) -> None:
    """Goal: nobody else can change which identity a name has.  Method: a file that others can write."""
    path = pins.path_for("n", KEY)
    pins.save(path, PINS)
    path.chmod(0o666)
    with pytest.raises(PipelineError):
        pins.load(path)


# ---- rules of a running node


class Rules(MembershipRules):
    """Rules of an instance in the open network of these keys."""

    def __init__(self, *keys: bytes, insecure: bool = False) -> None:
        store = keystore.create()
        node = NodeSection(name="n", insecure=insecure)
        keystore.fill(store, Config(node=node if insecure else NodeSection(name="n", insecure=True)))
        keystore.save(store, list(keys))
        super().__init__(SimpleNamespace(config=Config(node=node), keystore=store))  # type: ignore[arg-type]
        assert isinstance(self.members, OpenMembers)
        self.open = self.members

    def pinned(self) -> list[str]:
        return [pin.name for pin in self.open.pins]


def test_pins_are_written_soon_and_read_at_the_next_start(directory: Path) -> None:
    """Goal: pins survive a restart, and are not written for each link.  Method: links, ticks and a second object."""
    rules = Rules(KEY)
    rules.open.note_link(Forger("a").record)
    rules.tick(100.0)
    rules.open.note_link(Forger("b").record)
    rules.tick(100.0 + SAVE_INTERVAL_S - 0.1)
    assert Rules(KEY).pinned() == ["a"]
    rules.tick(100.0 + SAVE_INTERVAL_S)
    assert Rules(KEY).pinned() == ["a", "b"]
    assert Rules(OTHER_KEY).pinned() == []


def test_forgotten_pin_is_written_at_once(directory: Path) -> None:
    """Goal: the command has its effect also if the node ends right after it.  Method: forget, and a second object."""
    rules = Rules(KEY)
    rules.open.note_link(Forger("a").record)
    rules.tick(100.0)
    assert "no identity is pinned" in rules.forget("b", 100.1)
    assert rules.forget("a", 100.1) == ""
    assert Rules(KEY).pinned() == []


def test_pins_move_with_the_network_key(directory: Path) -> None:
    """Goal: a rollover of the network key forgets no pin.
    Method: the node has the new key and the old one; only the old one has a file.  Then the old key is gone."""
    rules = Rules(KEY)
    rules.open.note_link(Forger("a").record)
    rules.tick(100.0)
    moving = Rules(OTHER_KEY, KEY)
    assert moving.pinned() == ["a"]
    moving.open.note_link(Forger("b").record)
    moving.tick(100.0)
    assert Rules(OTHER_KEY).pinned() == ["a", "b"]


def test_pins_move_with_the_network_key_while_nothing_changes(directory: Path) -> None:
    """Goal: the same without a new node.  Method: a node that is moved by a reload, and restarted with the new key."""
    rules = Rules(KEY)
    rules.open.note_link(Forger("a").record)
    rules.tick(100.0)
    keystore.save(rules._store, [OTHER_KEY, KEY], is_moving=True)
    rules.tick(200.0)
    keystore.save(rules._store, [OTHER_KEY])
    rules.tick(300.0)
    assert Rules(OTHER_KEY).pinned() == ["a"]


def test_insecure_node_writes_no_pins(directory: Path) -> None:
    """Goal: names prove nothing without a network key.  Method: a link, a tick and the directory."""
    rules = Rules(insecure=True)
    rules.open.note_link(Forger("a").record)
    rules.tick(100.0)
    assert not list(directory.glob("pins*"))


def test_damaged_file_keeps_no_node_from_its_start(directory: Path) -> None:
    """Goal: a damaged list costs pins, not the node.  Method: garbage in the file, then a link."""
    directory.mkdir()
    path = pins.path_for("n", KEY)
    path.write_text("garbage")
    path.chmod(0o600)
    rules = Rules(KEY)
    assert rules.pinned() == []
    rules.open.note_link(Forger("a").record)
    rules.tick(100.0)
    assert Rules(KEY).pinned() == ["a"]
