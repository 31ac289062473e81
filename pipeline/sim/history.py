"""What a data plane remembers of the streams that pass through it: which datagrams are missing, and the last ones.

Gaps are seen as the stages see them: datagram n of a stream has come and some before it have not.  It sends
nothing and reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")


@dataclass(slots=True)
class Stream(Generic[P]):
    """One origin's stream to one group, in one life of the origin."""

    kept_max: int
    """The paper's buffer: packets that can be resent, and how far back a gap is worth a word."""
    highest: int = -1
    missing: set[int] = field(default_factory=set)
    kept: dict[int, P] = field(default_factory=dict)

    def add(self, number: int, packet: P) -> bool:
        """A datagram has come.  Returns whether that changes what is missing."""
        before = len(self.missing)
        is_changed = False
        if number > self.highest:
            if self.highest >= 0 and number > self.highest + 1:
                self.missing.update(range(max(self.highest + 1, number - self.kept_max), number))
                is_changed = True
            self.highest = number
            if self.missing:
                oldest = number - self.kept_max
                self.missing = {each for each in self.missing if each >= oldest}
        else:
            self.missing.discard(number)
        self.kept[number] = packet
        if len(self.kept) > self.kept_max:
            del self.kept[next(iter(self.kept))]
        return is_changed or len(self.missing) != before
