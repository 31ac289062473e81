"""Goal: a copy equals its original once messages arrive, whatever was lost, doubled, overtaken or restored before.

Method: hypothesis drives an original and a copy over a path that drops, repeats and reorders; then the path is clean
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


def contents(original: ReplicaSource) -> dict[bytes, bytes]:
    return dict(original.items())


def settle(original: ReplicaSource, copy: Replica, *, rounds: int = 4) -> None:
    """Adverts and their consequences over a path without loss."""
    for _ in range(rounds):
        if not copy.differs(original.advert()):
            return
        for update in original.updates(copy.pull()):
            copy.apply(update)
    raise AssertionError("the copy does not settle")


@settings(max_examples=400, deadline=None)
@given(steps=st.lists(STEP, max_size=60), small=st.booleans())
def test_copies_converge(steps: list[Any], small: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(limits, "TOMBSTONES_MAX", 2)
            patch.setattr(limits, "ENGINE_MESSAGE_BYTES_MAX", 20)
        original, copy = ReplicaSource(), Replica()
        under_way: list[Update] = []
        sent, saved = 0, (dict[bytes, bytes](), 0)
        for step in steps:
            match step:
                case ("set", key, value):
                    original.set(key, value)
                case ("push",):
                    under_way += original.updates(Pull(sent, 0, anew=False))
                    sent = original.version
                    saved = contents(original), original.version
                case ("advert",):
                    if copy.differs(original.advert()):
                        under_way += original.updates(copy.pull())
                case ("restore",):
                    original = ReplicaSource()
                    original.restore(*saved)
                case ("arrive", which, again) if under_way:
                    update = under_way[which % len(under_way)]
                    if not again:
                        under_way.remove(update)
                    copy.apply(update)
        settle(original, copy)
        assert copy.entries == contents(original)
        assert (copy.have, copy.digest) == (original.version, original.digest)


def test_a_change_costs_what_it_changes() -> None:
    original = ReplicaSource()
    for number in range(10_000):
        original.set(number.to_bytes(4), b"x")
    known = original.version
    original.set((5).to_bytes(4), b"y")
    (update,) = original.updates(Pull(known, 0, anew=False))
    assert update.entries == [((5).to_bytes(4), b"y")]


def test_much_is_split_and_each_part_is_of_use_alone() -> None:
    original, copy = ReplicaSource(), Replica()
    for number in range(65536):
        original.set(number.to_bytes(4), b"\1")
    parts = original.updates(copy.pull())
    assert 3 <= len(parts) <= 20
    assert copy.apply(parts[1]) is None, "a gap is noticed"
    for part in parts:
        assert copy.apply(part)
    assert copy.entries == contents(original)


def test_a_reset_never_empties_the_copy() -> None:
    original = ReplicaSource()
    for key in KEYS:
        original.set(key, b"1")
    copy = Replica()
    settle(original, copy)
    restored = ReplicaSource()
    restored.restore(dict.fromkeys(KEYS[1:], b"1"), original.version - 3)
    assert copy.differs(restored.advert())
    for update in restored.updates(copy.pull()):
        assert set(KEYS[1:]) <= copy.entries.keys()
        copy.apply(update)
    assert copy.entries == contents(restored)


def test_a_faulty_copy_is_sent_everything() -> None:
    original, copy = ReplicaSource(), Replica()
    original.set(b"a", b"1")
    settle(original, copy)
    copy._set(b"b", b"wrong")
    settle(original, copy)
    assert copy.entries == {b"a": b"1"}


def test_tombstones_are_bounded() -> None:
    original = ReplicaSource()
    for number in range(3 * limits.TOMBSTONES_MAX):
        original.set(number.to_bytes(4), b"")
        original.set(number.to_bytes(4), None)
    assert len(original) == 0
    assert len(original._entries) <= limits.TOMBSTONES_MAX
