"""Sender-key rotation.  Goal: keys rotate in time, but not before all linked peers have the next one, and no epoch has
two keys at a time.

Method: the decisions on a virtual clock, applied to a record as control does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict

import msgspec
import pytest

from pipeline.keys.sender import ACKNOWLEDGE_MAX_S, OVERLAP_S, SPREAD, Phase, SenderKeyRotation, phase_of
from pipeline.limits import FORGERY_RENEWAL_INTERVAL_S
from pipeline.messages import NodeRecord


def record(**changes: object) -> NodeRecord:
    fields = {"node_id": 1, "name": "a", "incarnation": 1, "version": 1, "addresses": (), "endpoint": "192.0.2.1:4747"}
    keys = {"lanes": 1, "key_epoch": 254, "sender_key": bytes(32), "engine": "mesh", "explicit_addresses": False}
    return NodeRecord(**{**fields, **keys, **changes})  # type: ignore[arg-type]


class Node:
    """A record to which the decisions are applied."""

    def __init__(self, *, interval_s: float = 100.0, packets: int = 1000) -> None:
        self.record = record()
        self._draws: Iterator[int] = itertools.count(1)
        self.rotation = self.new_rotation(interval_s, packets, 0.0)
        self.seen: dict[int, bytes] = {}

    def new_rotation(self, interval_s: float, packets: int, now: float) -> SenderKeyRotation:
        def draw() -> bytes:
            return next(self._draws).to_bytes(32)

        return SenderKeyRotation(interval_s=interval_s, packets=packets, random=lambda: 0.5, draw=draw, now=now)

    def tick(self, now: float, *, sent: int = 0, is_acknowledged: bool = True) -> Phase:
        change = self.rotation.tick(self.record, sent=sent, is_acknowledged=is_acknowledged, now=now)
        if change is not None:
            self.record = msgspec.structs.replace(self.record, **asdict(change))
        return phase_of(self.record)


def test_key_rotates_after_its_interval() -> None:
    """Goal: each phase lasts as long as it should; the epoch grows by one, and 0 follows 255.
    Method: 600 rotations on the clock."""
    node = Node()
    now, last = 0.0, node.record.key_epoch
    for _ in range(600):
        assert node.tick(now + 99) is Phase.STEADY
        assert node.tick(now + 100) is Phase.ANNOUNCED
        assert node.record.key_epoch == last
        key = node.record.second_key
        assert node.tick(now + 100.1) is Phase.OVERLAP
        assert (node.record.key_epoch, node.record.second_epoch) == ((last + 1) % 256, last)
        assert node.record.sender_key == key
        assert node.tick(now + 100.1 + OVERLAP_S - 0.1) is Phase.OVERLAP
        assert node.tick(now + 100.2 + OVERLAP_S) is Phase.STEADY
        assert node.record.second_key == b""
        now, last = now + 100.1, node.record.key_epoch


def test_key_rotates_after_its_number_of_datagrams() -> None:
    """Goal: the number of datagrams sealed with a key is bounded.  Method: counts around the bound, twice."""
    node = Node()
    assert node.tick(1, sent=5000) is Phase.STEADY  # datagrams of the process before a restart do not count
    assert node.tick(2, sent=5999) is Phase.STEADY
    assert node.tick(3, sent=6000) is Phase.ANNOUNCED
    assert node.tick(4, sent=6100) is Phase.OVERLAP
    assert node.tick(4 + OVERLAP_S, sent=6900) is Phase.STEADY
    assert node.tick(10, sent=7099) is Phase.STEADY
    assert node.tick(11, sent=7100) is Phase.ANNOUNCED


def test_rotation_waits_for_acknowledgements_for_a_bounded_time() -> None:
    """Goal: no key is used that a linked peer lacks, but a peer that never acknowledges does not stop the rotation.
    Method: no acknowledgement until just before and just after the bound."""
    node = Node()
    assert node.tick(100, is_acknowledged=True) is Phase.ANNOUNCED
    assert node.tick(100 + ACKNOWLEDGE_MAX_S - 0.1, is_acknowledged=False) is Phase.ANNOUNCED
    assert node.tick(100 + ACKNOWLEDGE_MAX_S, is_acknowledged=False) is Phase.OVERLAP


def test_rotation_continues_after_a_restart_of_control() -> None:
    """Goal: the next control process finishes a rotation with the same keys.
    Method: a new object on the record of each phase."""
    node = Node()
    node.tick(100)
    announced = node.record.second_key
    node.rotation = node.new_rotation(100, 1000, 101)
    assert node.tick(101.1) is Phase.OVERLAP
    assert node.record.sender_key == announced
    node.rotation = node.new_rotation(100, 1000, 102)
    assert node.tick(102 + OVERLAP_S - 0.1) is Phase.OVERLAP
    assert node.tick(102 + OVERLAP_S) is Phase.STEADY
    assert node.record.sender_key == announced


def test_renewal_during_a_rotation_makes_another_one() -> None:
    """Goal: an excluded node, which knows the announced key, does not know the key in use afterwards.
    Method: `renew` while a rotation is in its first phase."""
    node = Node()
    node.tick(100)
    announced = node.record.second_key
    node.rotation.renew()
    node.tick(100.1)
    assert node.record.sender_key == announced
    node.tick(100.1 + OVERLAP_S)
    assert node.tick(100.2 + OVERLAP_S) is Phase.ANNOUNCED
    node.tick(100.3 + OVERLAP_S)
    assert node.record.sender_key not in (announced, bytes(32))
    node.tick(100.4 + 2 * OVERLAP_S)
    assert node.tick(100.5 + 2 * OVERLAP_S) is Phase.STEADY


def test_forgery_renews_key_once_in_its_interval() -> None:
    """Goal: reports of forgeries, which repeat, cause one rotation each FORGERY_RENEWAL_INTERVAL_S at the most.
    Method: a report each 0.5 s for ten intervals; epochs are counted."""
    node = Node(interval_s=1e6)
    first = node.record.key_epoch
    for step in range(int(20 * FORGERY_RENEWAL_INTERVAL_S)):
        node.rotation.renew_after_forgery(node.record, step / 2)
        node.tick(step / 2)
    assert (node.record.key_epoch - first) % 256 == 10


def test_forgery_is_ignored_during_a_rotation() -> None:
    """Goal: a rotation that is under way already replaces the key in question.
    Method: reports in each phase, and while a rotation is requested."""
    node = Node()
    node.tick(100)
    assert phase_of(node.record) is Phase.ANNOUNCED
    assert not node.rotation.renew_after_forgery(node.record, 100.1)
    assert node.tick(100.2) is Phase.OVERLAP
    assert not node.rotation.renew_after_forgery(node.record, 100.3)
    assert node.tick(100.2 + OVERLAP_S) is Phase.STEADY
    assert node.rotation.renew_after_forgery(node.record, 106)
    assert not node.rotation.renew_after_forgery(node.record, 106)
    assert node.tick(106) is Phase.ANNOUNCED


def test_insecure_node_changes_its_epoch_after_a_forgery() -> None:
    """Goal: a node without a key gets new windows at its peers, and still has no key.
    Method: a report; the record of each phase, up to 0 after 255."""
    node = Node()
    node.record = record(sender_key=b"", key_epoch=255)
    assert node.tick(1) is Phase.STEADY
    assert node.rotation.renew_after_forgery(node.record, 1)
    assert node.tick(2) is Phase.ANNOUNCED
    assert node.tick(3) is Phase.OVERLAP
    assert (node.record.key_epoch, node.record.second_epoch) == (0, 255)
    assert node.tick(3 + OVERLAP_S) is Phase.STEADY
    assert (node.record.sender_key, node.record.second_key) == (b"", b"")


def test_epoch_has_one_key_at_a_time() -> None:
    """Goal: while receivers have an epoch, it stands for one key.
    Method: the keys of successive records, of 2,000 ticks at odd times."""
    node = Node(interval_s=7.0)
    keys_before: dict[int, bytes] = {}
    for step in range(2000):
        node.tick(step * 0.7, is_acknowledged=step % 3 > 0)
        keys = {node.record.key_epoch: node.record.sender_key}
        if node.record.second_epoch is not None:
            keys[node.record.second_epoch] = node.record.second_key
        assert all(keys_before[epoch] == key for epoch, key in keys.items() if epoch in keys_before)
        keys_before = keys


@pytest.mark.parametrize("random", [0.0, 1.0])
def test_intervals_differ_between_nodes(random: float) -> None:
    """Goal: nodes that were started together do not rotate together.  Method: both ends of the random range."""
    rotation = SenderKeyRotation(interval_s=100, packets=1 << 30, random=lambda: random, draw=lambda: bytes(32), now=0)
    due = 100 * (1 - SPREAD + 2 * SPREAD * random)
    assert rotation.tick(record(), sent=0, is_acknowledged=True, now=due - 0.1) is None
    assert rotation.tick(record(), sent=0, is_acknowledged=True, now=due) is not None


def test_insecure_node_does_not_rotate() -> None:
    """Goal: a node without a key never draws one.  Method: a record without key, long after the interval."""
    rotation = SenderKeyRotation(interval_s=1, packets=1000, random=lambda: 0.5, draw=lambda: bytes(32), now=0)
    assert rotation.tick(record(sender_key=b""), sent=10**9, is_acknowledged=True, now=1e6) is None
