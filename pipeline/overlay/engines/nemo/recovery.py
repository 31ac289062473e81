"""Lateral recovery: what is missing is asked for after 2 RTT to the farthest of the crew that the stream comes from.

Who should have sent it was the crew member in turn.  It is asked first: if only the path failed it has the packet.
Who lacks it itself does not answer and remembers nothing: it asks its own crew, and what it gets goes down its tree
to those who have asked it too, so that a later answer would be a second copy.  Then the next of the crew is asked.

Trees of different turns differ in length, so packets overtake each other without any loss.  How late they come is
learnt for each stream, and nothing is asked for sooner.  It sees no packets: they are resent by the data plane out of
its own history.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from pipeline.address import Address, NodeId
from pipeline.overlay.api import Resend
from pipeline.overlay.engines.nemo.clusters import Crew
from pipeline.overlay.engines.nemo.desk import Desk
from pipeline.overlay.engines.nemo.talk import Nack

UNMEASURED_S = 0.1
"""For a crew of which nobody has been measured: the median of the world."""
LATE_MAX_S = 0.5
LATE_STEP_S = 0.01
LATE_SHARE = 0.9
"""Of the packets that come by themselves come within the time that is waited."""
NUMBERS_MAX = 64
"""Of one Nack: twice the paper's buffer."""


@dataclass(slots=True)
class _Wanted:
    due: float
    since: float
    tries: int = 0
    answer_at: float = 0.0
    """Before this it cannot be an answer to what was asked last."""


class Recovery:
    """Of one group."""

    def __init__(self, group: Address, desk: Desk, crew_behind: Callable[[NodeId | None], Crew]) -> None:
        self._group = group
        self._desk = desk
        self._crew_behind = crew_behind
        self._missing: dict[NodeId, dict[int, _Wanted]] = {}
        self._crews: dict[NodeId, Crew] = {}
        """Where the stream of each origin comes from."""
        self._late_s: dict[NodeId, float] = {}
        self.due: float | None = None

    def handle_gap(self, origin: NodeId, numbers: Collection[int], via: NodeId | None, now: float) -> None:
        """What of the origin's stream is missing now."""
        if self._desk.parameters.repair == "none":
            return
        self._learn(origin, numbers, now)
        if numbers:
            held = self._missing.get(origin, {})
            if any(number not in held for number in numbers) or origin not in self._crews:
                self._crews[origin] = self._crew_behind(via) or (origin,)
            due = now + self._patience(origin)
            self._missing[origin] = {number: held.get(number) or _Wanted(due, now) for number in numbers}
        else:
            self._missing.pop(origin, None)
            self._crews.pop(origin, None)
        self._plan()

    def _learn(self, origin: NodeId, numbers: Collection[int], now: float) -> None:
        """What has come by itself was only late."""
        oldest = min(numbers, default=0)
        for number, each in self._missing.get(origin, {}).items():
            if number not in numbers and number >= oldest and (not each.tries or now < each.answer_at):
                old_s = self._late_s.get(origin, 0.0)
                step_s = LATE_STEP_S * (LATE_SHARE if now - each.since > old_s else LATE_SHARE - 1)
                self._late_s[origin] = min(max(0.0, old_s + step_s), LATE_MAX_S)

    def handle_nack(self, peer: NodeId, nack: Nack) -> None:
        """A peer lacks datagrams: the data plane may have them."""
        if self._desk.parameters.repair == "nack":
            self._desk.outputs.append(Resend(peer, self._group, nack.origin, nack.numbers))

    def handle_timeout(self, now: float) -> None:
        """Ask for what is due."""
        if self.due is None or now < self.due:
            return
        asks: dict[tuple[NodeId, NodeId], list[int]] = {}
        for origin, wanted in self._missing.items():
            crew = self._crews[origin]
            for number, each in wanted.items():
                if each.due > now:
                    continue
                peer = crew[(number + each.tries) % len(crew)]
                each.tries += 1
                each.answer_at = now + 0.8 * self._desk.rtt(peer)
                is_last = each.tries >= self._desk.parameters.nack_tries
                each.due = float("inf") if is_last else now + self._patience(origin) * (1 + each.tries)
                if peer != self._desk.own:
                    asks.setdefault((peer, origin), []).append(number)
        for (peer, origin), numbers in asks.items():
            self._desk.send(peer, Nack(self._group, origin, tuple(sorted(numbers)[-NUMBERS_MAX:])), (origin,))
        self._plan()

    def _patience(self, origin: NodeId) -> float:
        """The missing-packet timer, in seconds."""
        crew = self._crews.get(origin, ())
        farthest = max((self._desk.rtt(node) for node in crew if self._desk.knows_rtt(node)), default=UNMEASURED_S)
        return max(2 * farthest, self._late_s.get(origin, 0.0), self._desk.parameters.nack_floor_s)

    def _plan(self) -> None:
        due = min((each.due for wanted in self._missing.values() for each in wanted.values()), default=None)
        self.due = None if due == float("inf") else due
