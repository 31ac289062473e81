"""Goal: a replica equals its source once messages arrive, whatever was lost, doubled, overtaken or restored before.

Method: hypothesis drives a source and a replica over a path that drops, repeats and reorders; then the path is clean
for a few rounds of adverts.  Sizes, costs and the reset without a gap by examples.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import limits
from pipeline.engines.replica import Pull, Replica, ReplicaSource, Update

KEYS = [bytes([letter]) for letter in b"abcdef"]
CHANGE = st.tuples(st.just("set"), st.sampled_from(KEYS), st.sampled_from([b"", b"1", b"2", None]))
STEP = st.one_of(
    CHANGE,
    CHANGE,
    st.tuples(st.sampled_from(["push", "advert", "restore"])),
    st.tuples(st.just("arrive"), st.integers(0, 9), st.booleans()),
)


def contents(source: ReplicaSource) -> dict[bytes, bytes]:
    return dict(source.items())


def settle(source: ReplicaSource, replica: Replica, *, rounds: int = 4) -> None:
    """Exchange adverts, pulls and updates over a path without loss."""
    for _ in range(rounds):
        if not replica.differs(source.advert()):
            return
        for update in source.updates(replica.pull()):
            replica.apply(update)
    raise AssertionError("the replica does not settle")


@settings(max_examples=400, deadline=None)
@given(steps=st.lists(STEP, max_size=60), small=st.booleans())
def test_replica_converges_after_loss_reordering_and_restore(steps: list[Any], small: bool) -> None:
    """Goal: as above.  Method: random steps, with the usual bounds and with small ones."""
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(limits, "TOMBSTONES_MAX", 2)
            patch.setattr(limits, "ENGINE_MESSAGE_BYTES_MAX", 20)
        source, replica = ReplicaSource(), Replica()
        in_flight: list[Update] = []
        sent, saved = 0, (dict[bytes, bytes](), 0)
        for step in steps:
            match step:
                case ("set", key, value):
                    source.set(key, value)
                case ("push",):
                    in_flight += source.updates(Pull(sent, 0, anew=False))
                    sent = source.version
                    saved = contents(source), source.version
                case ("advert",):
                    if replica.differs(source.advert()):
                        in_flight += source.updates(replica.pull())
                case ("restore",):
                    source = ReplicaSource()
                    source.restore(*saved)
                case ("arrive", which, is_doubled) if in_flight:
                    update = in_flight[which % len(in_flight)]
                    if not is_doubled:
                        in_flight.remove(update)
                    replica.apply(update)
        settle(source, replica)
        assert replica.entries == contents(source)
        assert (replica.have, replica.digest) == (source.version, source.digest)


def test_update_holds_only_what_has_changed() -> None:
    """Goal: an update is as long as the change.  Method: one change among 10,000 entries."""
    source = ReplicaSource()
    for number in range(10_000):
        source.set(number.to_bytes(4), b"x")
    version = source.version
    source.set((5).to_bytes(4), b"y")
    (update,) = source.updates(Pull(version, 0, anew=False))
    assert update.entries == [((5).to_bytes(4), b"y")]


def test_large_map_is_split_into_parts_that_apply_alone() -> None:
    """Goal: no message exceeds its bound, and a missing part is noticed.
    Method: 65,536 entries, first without the first part."""
    source, replica = ReplicaSource(), Replica()
    for number in range(65536):
        source.set(number.to_bytes(4), b"\1")
    parts = source.updates(replica.pull())
    assert 3 <= len(parts) <= 20
    assert replica.apply(parts[1]) is None, "a gap is noticed"
    for part in parts:
        assert replica.apply(part)
    assert replica.entries == contents(source)


def test_reset_never_empties_the_replica() -> None:
    """Goal: while a replica starts anew, entries that are still valid stay.
    Method: a source that was restored from an older state."""
    source = ReplicaSource()
    for key in KEYS:
        source.set(key, b"1")
    replica = Replica()
    settle(source, replica)
    restored = ReplicaSource()
    restored.restore(dict.fromkeys(KEYS[1:], b"1"), source.version - 3)
    assert replica.differs(restored.advert())
    for update in restored.updates(replica.pull()):
        assert set(KEYS[1:]) <= replica.entries.keys()
        replica.apply(update)
    assert replica.entries == contents(restored)


def test_replica_with_another_digest_is_sent_everything() -> None:
    """Goal: a difference that no version shows is repaired.  Method: a wrong entry is written into the replica."""
    source, replica = ReplicaSource(), Replica()
    source.set(b"a", b"1")
    settle(source, replica)
    replica._set(b"b", b"wrong")
    settle(source, replica)
    assert replica.entries == {b"a": b"1"}


def test_number_of_tombstones_is_bounded() -> None:
    """Goal: entries that come and go do not fill the memory.  Method: three times the bound."""
    source = ReplicaSource()
    for number in range(3 * limits.TOMBSTONES_MAX):
        source.set(number.to_bytes(4), b"")
        source.set(number.to_bytes(4), None)
    assert len(source) == 0
    assert len(source._entries) <= limits.TOMBSTONES_MAX
