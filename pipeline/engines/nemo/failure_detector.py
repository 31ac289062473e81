"""Whether a peer lives: who has not answered a question is asked again, and is dead if it does not answer at all.

    suspected ──▶ asked, TRIES times, 2 RTT apart ──any answer──▶ it lives: no new doubt within GOOD_S
                                                  └─none──▶ dead, long before its grace period is over

A gap in a stream is a reason to suspect who should have closed it (recovery.py), and a stream that stops one to ask the
leader.  The paper waits for the grace period alone; data that does not come is better evidence, and the questions make
sure of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.address import Address, NodeId
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.expiring import TtlMap
from pipeline.engines.nemo.messages import Nack

TRIES = 3
WAIT_MIN_S = 0.1
"""Of one try: a busy host needs more than the network."""
SILENT_WAIT_S = 0.3
"""Of one try where there is no other evidence than silence: the stream may have ended, and all members ask at once."""
GOOD_S = 1.0
CASES_MAX = 64
"""Peers in doubt at a time: all of a few clusters."""


@dataclass(slots=True)
class _Case:
    wait_s: float
    """How long each try is waited for at the least."""
    instead: NodeId
    """A node that is dead, which the one in doubt may not know."""
    tries: int = 0
    due: float = 0.0
    """When the next try is."""


class FailureDetector:
    """Of one group."""

    def __init__(self, group: Address, desk: Context) -> None:
        self._group = group
        self._desk = desk
        self._cases: dict[NodeId, _Case] = {}
        self._good: TtlMap[NodeId] = TtlMap()
        """Those who have answered, as long as they are believed to live."""
        self.due: float | None = None

    def begin(self, node: NodeId, now: float, *, wait_s: float = WAIT_MIN_S, instead: NodeId = 0) -> None:
        """Find out whether it lives, and let it do so of another."""
        if node not in self._cases and not self.is_good(node, now) and len(self._cases) < CASES_MAX:
            self._cases[node] = _Case(wait_s, instead)
            self._ask(node, now)

    def is_good(self, node: NodeId, now: float) -> bool:
        """Whether it has answered just now."""
        return self._good.has(node, now)

    def end(self, node: NodeId, now: float) -> None:
        """It has been heard."""
        if self._cases.pop(node, None) is not None:
            self._good.add(node, now + GOOD_S, now)
            self._plan()

    def handle_timeout(self, now: float) -> list[NodeId]:
        """Ask again; returns who is dead."""
        if self.due is None or now < self.due:
            return []
        due = [node for node, case in self._cases.items() if case.due <= now]
        dead = [node for node in due if self._cases[node].tries >= TRIES]
        for node in dead:
            del self._cases[node]
        for node in due:
            if node in self._cases:
                self._ask(node, now)
        self._plan()
        return dead

    def _ask(self, node: NodeId, now: float) -> None:
        case = self._cases[node]
        case.tries += 1
        case.due = now + max(case.wait_s, 2 * self._desk.rtt(node))
        self._desk.send(node, Nack(self._group, 0, (), case.instead), (case.instead,))
        self._plan()

    def _plan(self) -> None:
        self.due = min((case.due for case in self._cases.values()), default=None)
