"""Deadlines by key.  Goal: deadlines expire in order, whatever was moved or cleared before.
Method: random operations on `Deadlines` and on a plain dictionary.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.timers import Deadlines

KEYS = st.integers(0, 5)
TIMES = st.integers(0, 20)
OPERATIONS = st.one_of(
    st.tuples(st.just("set"), KEYS, TIMES),
    st.tuples(st.just("bring_forward"), KEYS, TIMES),
    st.tuples(st.just("clear"), KEYS, st.none()),
    st.tuples(st.just("pop_expired"), st.none(), TIMES),
    st.tuples(st.just("next_due"), st.none(), st.none()),
)


@given(st.lists(OPERATIONS, max_size=40))
def test_deadlines_agree_with_a_dictionary(operations: list[tuple[str, int, int]]) -> None:
    """Goal: every operation has the effect of its description.  Method: the same operations on a dictionary."""
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, int] = {}
    for name, key, time in operations:
        if name == "set":
            deadlines.set(key, time)
            model[key] = time
        elif name == "bring_forward":
            deadlines.bring_forward(key, time)
            model[key] = min(time, model.get(key, time))
        elif name == "clear":
            deadlines.clear(key)
            model.pop(key, None)
        elif name == "pop_expired":
            popped = deadlines.pop_expired(time)
            earliest = min(model.values(), default=None)
            if earliest is None or earliest > time:
                assert popped is None
            else:
                assert popped is not None
                assert model.pop(popped) == earliest
        else:
            assert deadlines.next_due() == min(model.values(), default=None)
    expired = []
    while (popped := deadlines.pop_expired(100)) is not None:
        expired.append(model.pop(popped))
    assert expired == sorted(expired)
    assert model == {}


def test_equal_deadlines_expire_in_order_of_entry() -> None:
    """Goal: groups that are due together are served in turn.  Method: three keys with one deadline."""
    deadlines: Deadlines[str] = Deadlines()
    for key in "bca":
        deadlines.set(key, 1.0)
    assert [deadlines.pop_expired(1.0) for _ in "bca"] == ["b", "c", "a"]


def test_stale_entries_are_bounded() -> None:
    """Goal: the heap stays small however often a deadline is cleared.  Method: 10,000 rounds with one key."""
    deadlines: Deadlines[str] = Deadlines()
    for number in range(10_000):
        deadlines.set("key", 1000.0 + number)
        deadlines.set("key", 2000.0 + number)
        deadlines.clear("key")
    assert len(deadlines._heap) < 100
    assert deadlines.next_due() is None
