"""Lateral recovery: what is missing is asked for after 2 RTT to the farthest crew member, from one after the other.

A datagram is resent by the data plane of whoever is asked, from its own history, and goes the ways that forwarding.py
gives to a stray.  Who is asked may not have it yet: the next try asks somebody else.  It sees no packets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pipeline.address import Address, NodeId
from pipeline.overlay.api import Resend
from pipeline.overlay.engines.nemo.desk import Desk
from pipeline.overlay.engines.nemo.talk import Nack

NUMBERS_MAX = 64
"""Of one Nack: twice the paper's buffer."""


@dataclass(slots=True)
class _Wanted:
    due: float
    tries: int


class Recovery:
    """Of one group."""

    def __init__(self, group: Address, desk: Desk, crews: Callable[[], Sequence[NodeId]]) -> None:
        self._group = group
        self._desk = desk
        self._crews = crews
        """Whom to ask, the most likely first."""
        self._missing: dict[NodeId, dict[int, _Wanted]] = {}
        self.due: float | None = None
        self.nacks = 0

    def handle_gap(self, origin: NodeId, numbers: Collection[int], now: float) -> None:
        """What of the origin's stream is missing now."""
        if self._desk.parameters.repair == "none":
            return
        held = self._missing.get(origin, {})
        due = now + self._patience()
        wanted = {number: held.get(number) or _Wanted(due, 0) for number in numbers}
        if wanted:
            self._missing[origin] = wanted
        else:
            self._missing.pop(origin, None)
        self._plan()

    def handle_nack(self, peer: NodeId, nack: Nack) -> None:
        """A peer lacks datagrams: the data plane may have them."""
        if self._desk.parameters.repair == "nack":
            self._desk.outputs.append(Resend(peer, self._group, nack.origin, nack.numbers))

    def handle_timeout(self, now: float) -> None:
        """Ask for what is due."""
        if self.due is None or now < self.due:
            return
        crews = self._crews()
        asks: dict[tuple[NodeId, NodeId], list[int]] = {}
        for origin, wanted in self._missing.items():
            for number, each in list(wanted.items()):
                if each.due > now:
                    continue
                if not crews or each.tries >= self._desk.parameters.nack_tries:
                    del wanted[number]
                    continue
                peer = crews[each.tries % len(crews)]
                each.tries += 1
                each.due = now + self._patience() * (1 + each.tries)
                asks.setdefault((peer, origin), []).append(number)
        for (peer, origin), numbers in asks.items():
            self.nacks += 1
            self._desk.send(peer, Nack(self._group, origin, tuple(sorted(numbers)[-NUMBERS_MAX:])), (origin,))
        self._plan()

    def _patience(self) -> float:
        """The missing-packet timer, in seconds."""
        farthest = max((self._desk.rtt(node) for node in self._crews()), default=0.0)
        return max(2 * farthest, self._desk.parameters.nack_floor_s)

    def _plan(self) -> None:
        times = [each.due for wanted in self._missing.values() for each in wanted.values()]
        self.due = min(times, default=None)
