"""Goal: keys rotate when they should, never before all who are up hold the next one, and no epoch is used for two keys.
Method: the decisions on a virtual clock, applied to a record as control does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict

import msgspec
import pytest

from pipeline.keys.sender import ACKNOWLEDGE_MAX_S, OVERLAP_S, SPREAD, Phase, SenderKeyRotation, phase_of
from pipeline.messages import NodeRecord


def record(**changes: object) -> NodeRecord:
    fields = {"node_id": 1, "name": "a", "incarnation": 1, "version": 1, "addresses": (), "endpoint": "192.0.2.1:4747"}
    keys = {"lanes": 1, "key_epoch": 254, "sender_key": bytes(32), "engine": "mesh", "explicit_addresses": False}
    return NodeRecord(**{**fields, **keys, **changes})  # type: ignore[arg-type]


class Node:
    """A record that follows the decisions."""

    def __init__(self, *, interval_s: float = 100.0, packets: int = 1000) -> None:
        self.record = record()
        self._draws: Iterator[int] = itertools.count(1)
        self.rotation = self.reborn(interval_s, packets, 0.0)
        self.seen: dict[int, bytes] = {}

    def reborn(self, interval_s: float, packets: int, now: float) -> SenderKeyRotation:
        def draw() -> bytes:
            return next(self._draws).to_bytes(32)

        return SenderKeyRotation(interval_s=interval_s, packets=packets, random=lambda: 0.5, draw=draw, now=now)

    def look(self, now: float, *, sent: int = 0, acknowledged: bool = True) -> Phase:
        change = self.rotation.tick(self.record, sent=sent, is_acknowledged=acknowledged, now=now)
        if change is not None:
            self.record = msgspec.structs.replace(self.record, **asdict(change))
        return phase_of(self.record)


def test_by_time() -> None:
    """Goal: steady, announced, overlap, steady, each in its time; the epoch's parity alternates, 255 is followed by 0.
    Method: 600 rounds of the clock."""
    node = Node()
    now, last = 0.0, node.record.key_epoch
    for _ in range(600):
        assert node.look(now + 99) is Phase.STEADY
        assert node.look(now + 100) is Phase.ANNOUNCED
        assert node.record.key_epoch == last
        key = node.record.second_key
        assert node.look(now + 100.1) is Phase.OVERLAP
        assert (node.record.key_epoch, node.record.second_epoch) == ((last + 1) % 256, last)
        assert node.record.sender_key == key
        assert node.look(now + 100.1 + OVERLAP_S - 0.1) is Phase.OVERLAP
        assert node.look(now + 100.2 + OVERLAP_S) is Phase.STEADY
        assert node.record.second_key == b""
        now, last = now + 100.1, node.record.key_epoch


def test_by_packets() -> None:
    """Goal: so many datagrams of one key, however old it is.  Method: counts around the bound, twice."""
    node = Node()
    assert node.look(1, sent=5000) is Phase.STEADY  # what a predecessor has sent is not this key's
    assert node.look(2, sent=5999) is Phase.STEADY
    assert node.look(3, sent=6000) is Phase.ANNOUNCED
    assert node.look(4, sent=6100) is Phase.OVERLAP
    assert node.look(4 + OVERLAP_S, sent=6900) is Phase.STEADY
    assert node.look(10, sent=7099) is Phase.STEADY
    assert node.look(11, sent=7100) is Phase.ANNOUNCED


def test_waits_for_acknowledgements_but_not_for_ever() -> None:
    """Goal: nobody seals with a key that a linked peer lacks; one that never says it has it cannot stop the rotation.
    Method: no acknowledgement until just before and just after the bound."""
    node = Node()
    assert node.look(100, acknowledged=True) is Phase.ANNOUNCED
    assert node.look(100 + ACKNOWLEDGE_MAX_S - 0.1, acknowledged=False) is Phase.ANNOUNCED
    assert node.look(100 + ACKNOWLEDGE_MAX_S, acknowledged=False) is Phase.OVERLAP


def test_restarts_go_on_where_the_record_is() -> None:
    """Goal: a control that was restarted in the middle finishes what was begun, with the same keys.
    Method: a new object on the record of each phase."""
    node = Node()
    node.look(100)
    announced = node.record.second_key
    node.rotation = node.reborn(100, 1000, 101)
    assert node.look(101.1) is Phase.OVERLAP
    assert node.record.sender_key == announced
    node.rotation = node.reborn(100, 1000, 102)
    assert node.look(102 + OVERLAP_S - 0.1) is Phase.OVERLAP
    assert node.look(102 + OVERLAP_S) is Phase.STEADY
    assert node.record.sender_key == announced


def test_renewal_is_not_lost_in_a_rotation() -> None:
    """Goal: who was excluded knows neither the present key nor the one that is under way.
    Method: `renew` while a rotation is in its first phase; a further one follows."""
    node = Node()
    node.look(100)
    known = node.record.second_key
    node.rotation.renew()
    node.look(100.1)
    assert node.record.sender_key == known
    node.look(100.1 + OVERLAP_S)
    assert node.look(100.2 + OVERLAP_S) is Phase.ANNOUNCED
    node.look(100.3 + OVERLAP_S)
    assert node.record.sender_key not in (known, bytes(32))
    node.look(100.4 + 2 * OVERLAP_S)
    assert node.look(100.5 + 2 * OVERLAP_S) is Phase.STEADY


def test_no_epoch_has_two_keys() -> None:
    """Goal: within the time that receivers hold an epoch it means one key.
    Method: every record of 2,000 looks at odd times; of the last two epochs each has one key."""
    node = Node(interval_s=7.0)
    held: dict[int, bytes] = {}
    for step in range(2000):
        node.look(step * 0.7, acknowledged=step % 3 > 0)
        now = {node.record.key_epoch: node.record.sender_key}
        if node.record.second_epoch is not None:
            now[node.record.second_epoch] = node.record.second_key
        assert all(held[epoch] == key for epoch, key in now.items() if epoch in held)
        held = now


@pytest.mark.parametrize("random", [0.0, 1.0])
def test_intervals_are_spread(random: float) -> None:
    """Goal: nodes that were started together do not rotate together.  Method: the ends of the random range."""
    rotation = SenderKeyRotation(interval_s=100, packets=1 << 30, random=lambda: random, draw=lambda: bytes(32), now=0)
    due = 100 * (1 - SPREAD + 2 * SPREAD * random)
    assert rotation.tick(record(), sent=0, is_acknowledged=True, now=due - 0.1) is None
    assert rotation.tick(record(), sent=0, is_acknowledged=True, now=due) is not None


def test_insecure_has_nothing_to_rotate() -> None:
    """Goal: without keys nothing happens.  Method: a record without one, long after."""
    rotation = SenderKeyRotation(interval_s=1, packets=1000, random=lambda: 0.5, draw=lambda: bytes(32), now=0)
    assert rotation.tick(record(sender_key=b""), sent=10**9, is_acknowledged=True, now=1e6) is None
