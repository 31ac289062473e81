"""What a data plane remembers of the streams that pass through it: which datagrams are missing, and the last ones.

Gaps are seen as the stages see them: datagram n of a stream has come and some before it have not.  It sends
nothing and reads no clock.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Numbered(Protocol):
    """A datagram of a stream."""

    @property
    def number(self) -> int:
        """Its stream sequence number."""


P = TypeVar("P", bound=Numbered)


class Stream(Generic[P]):
    """One origin's stream to one group, in one life of the origin."""

    __slots__ = ("_kept", "highest", "missing", "span")

    def __init__(self, span: int) -> None:
        self.span = span
        """The paper's buffer: packets that can be resent, and how far back a gap is worth a word."""
        self.highest = -1
        self.missing: set[int] = set()
        self._kept: list[P | None] = [None] * span

    def add(self, packet: P) -> bool:
        """A datagram has come.  Returns whether that changes what is missing."""
        number = packet.number
        place = number % self.span
        if number == self.highest + 1 and not self.missing:
            self.highest, self._kept[place] = number, packet
            return False
        kept = self._kept[place]
        if kept is None or number > kept.number:
            self._kept[place] = packet
        before = len(self.missing)
        is_changed = False
        if number > self.highest:
            if self.highest >= 0 and number > self.highest + 1:
                self.missing.update(range(max(self.highest + 1, number - self.span), number))
                is_changed = True
            self.highest = number
            oldest = number - self.span
            self.missing = {each for each in self.missing if each >= oldest}
        else:
            self.missing.discard(number)
        return is_changed or len(self.missing) != before

    def get(self, number: int) -> P | None:
        """A datagram that has come, if none has come since that takes its place in the buffer."""
        kept = self._kept[number % self.span]
        return kept if kept is not None and kept.number == number else None
