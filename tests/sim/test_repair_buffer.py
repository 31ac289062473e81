"""Goal: a repair buffer knows which datagrams are missing, and keeps the last ones.  Method: streams with gaps."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.sim.repair_buffer import RepairBuffer


@dataclass(frozen=True)
class Datagram:
    """A datagram without contents."""

    stream_sequence: int


def buffer_after(*numbers: int) -> RepairBuffer[Datagram]:
    """A buffer of four datagrams to which these have been added."""
    buffer: RepairBuffer[Datagram] = RepairBuffer(span=4)
    for number in numbers:
        buffer.add(Datagram(number))
    return buffer


def test_datagrams_before_the_last_one_are_missing() -> None:
    """Goal: `add` returns whether the missing ones have changed.  Method: a gap that closes in part."""
    buffer = buffer_after()
    assert not buffer.add(Datagram(0))
    assert buffer.add(Datagram(3))
    assert buffer.missing == {1, 2}
    assert buffer.add(Datagram(2))
    assert buffer.missing == {1}
    assert not buffer.add(Datagram(2)), "a duplicate changes nothing"


def test_missing_datagrams_are_given_up_when_they_can_not_be_sent_again() -> None:
    """Goal: no datagram older than the span is missing.  Method: a gap that is longer."""
    buffer = buffer_after(0, 3, 2, 9)
    assert buffer.missing == {5, 6, 7, 8}
    assert all(buffer.get(number) == Datagram(number) for number in (2, 3, 9))


def test_old_datagram_does_not_replace_a_newer_one() -> None:
    """Goal: the buffer keeps the newest of a place.  Method: number 5 arrives after 9, which has the same place."""
    buffer = buffer_after(0, 3, 2, 9)
    assert buffer.add(Datagram(5))
    assert buffer.missing == {6, 7, 8}
    assert buffer.get(5) is None
    assert buffer.get(9) == Datagram(9)
