"""Repair buffer of a stream, as the stages have it: the last datagrams, and which ones are missing.

A datagram is missing when a later one of the stream has arrived before it.  The buffer sends nothing and reads no
clock.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Sequenced(Protocol):
    """A datagram of a stream."""

    @property
    def stream_sequence(self) -> int:
        """Position of the datagram in its stream."""


D = TypeVar("D", bound=Sequenced)


class RepairBuffer(Generic[D]):
    """The last datagrams of one origin's stream to one group, during one incarnation of the origin."""

    __slots__ = ("_kept", "highest", "missing", "span")

    def __init__(self, span: int) -> None:
        self.span = span
        """Number of datagrams that can be sent again; older missing ones are given up."""
        self.highest = -1
        self.missing: set[int] = set()
        self._kept: list[D | None] = [None] * span

    def add(self, datagram: D) -> bool:
        """Add a datagram that has arrived.  Return whether the set of missing ones has changed."""
        number = datagram.stream_sequence
        place = number % self.span
        if number == self.highest + 1 and not self.missing:
            self.highest, self._kept[place] = number, datagram
            return False
        kept = self._kept[place]
        if kept is None or number > kept.stream_sequence:
            self._kept[place] = datagram
        missing_before = len(self.missing)
        has_gap = False
        if number > self.highest:
            if self.highest >= 0 and number > self.highest + 1:
                self.missing.update(range(max(self.highest + 1, number - self.span), number))
                has_gap = True
            self.highest = number
            oldest = number - self.span
            self.missing = {each for each in self.missing if each >= oldest}
        else:
            self.missing.discard(number)
        return has_gap or len(self.missing) != missing_before

    def get(self, number: int) -> D | None:
        """Return a datagram that has arrived, unless a later one has taken its place."""
        kept = self._kept[number % self.span]
        return kept if kept is not None and kept.stream_sequence == number else None
