"""Failure detector of one group: probes a suspected node, and declares it dead if it does not answer.

    suspect ──▶ probed TRIES times, at least 2 RTT apart ──any message──▶ alive: not suspected again within ALIVE_S
                                                         └──none──▶ dead, long before the grace period ends

Two observations make a node a suspect: a gap in a stream that the node should have closed (recovery.py), and a steady
stream that stops (the leader is suspected).  The paper has the grace period alone; missing data is better evidence, and
the probes confirm it.  A probe is a Nack without numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.address import NodeId
from pipeline.engines.nemo.hierarchy import Hierarchy
from pipeline.engines.nemo.messages import Nack
from pipeline.timers import TtlMap

TRIES = 3
WAIT_MIN_S = 0.1
"""Shortest wait for the answer to one probe: a busy host needs more than the network."""
STALL_WAIT_S = 0.3
"""The same if silence is the only evidence: the stream may have ended, and all members probe at once."""
ALIVE_S = 1.0
"""Time for which an answer counts."""
SUSPECTS_MAX = 64
"""Suspects at a time: all members of a few clusters."""
NOTIFY_BACKOFF_S = 1.0
"""Shortest time between two reports of one suspect to its leader."""


@dataclass(slots=True)
class _Suspect:
    wait_s: float
    """Shortest wait for the answer to each probe."""
    dead: NodeId
    """Dead node that the probes name, because the suspect may not know of it yet; 0: none."""
    tries: int = 0
    due: float = 0.0
    """Time of the next probe."""


class FailureDetector:
    """Suspects of one group."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._context = hierarchy.context
        self._suspects: dict[NodeId, _Suspect] = {}
        self._alive: TtlMap[NodeId] = TtlMap()
        """Former suspects that have answered."""
        self._notify_backoff: TtlMap[NodeId] = TtlMap()
        """Suspects that have been reported to their leader, which is not repeated soon."""
        self.due: float | None = None

    def suspect(self, node: NodeId, now: float) -> None:
        """A node has not answered.  Its leader probes it; members probe the leader, and report others to the leader."""
        own = self._hierarchy.own
        for membership in self._hierarchy.memberships.values():
            if node not in membership.members or node == own:
                continue
            if membership.leader in (own, node):
                self.probe(node, now)
            elif not self._notify_backoff.has(node, now):
                self._notify_backoff.add(node, now + NOTIFY_BACKOFF_S, now)
                self._context.send(membership.leader, Nack(self._hierarchy.group, 0, (), node), (node,))

    def suspect_leader(self, now: float) -> None:
        """Probe the leader of this node's highest cluster: a steady stream has stopped."""
        memberships = self._hierarchy.memberships
        if memberships and memberships[max(memberships)].leader != self._hierarchy.own:
            self.probe(memberships[max(memberships)].leader, now, wait_s=STALL_WAIT_S)

    def probe(self, node: NodeId, now: float, *, wait_s: float = WAIT_MIN_S, dead: NodeId = 0) -> None:
        """Find out whether a node is alive.  The probes name a node that is dead, if one is given."""
        if node not in self._suspects and not self.is_alive(node, now) and len(self._suspects) < SUSPECTS_MAX:
            self._suspects[node] = _Suspect(wait_s, dead)
            self._send_probe(node, now)

    def is_alive(self, node: NodeId, now: float) -> bool:
        """Return whether a former suspect has answered within ALIVE_S."""
        return self._alive.has(node, now)

    def handle_alive(self, node: NodeId, now: float) -> None:
        """A message of a node has arrived."""
        if self._suspects.pop(node, None) is not None:
            self._alive.add(node, now + ALIVE_S, now)
            self._set_due()

    def handle_timeout(self, now: float) -> list[NodeId]:
        """Send the probes that are due.  Returns the nodes that are dead."""
        if self.due is None or now < self.due:
            return []
        due = [node for node, suspect in self._suspects.items() if suspect.due <= now]
        dead = [node for node in due if self._suspects[node].tries >= TRIES]
        for node in dead:
            del self._suspects[node]
        for node in due:
            if node in self._suspects:
                self._send_probe(node, now)
        self._set_due()
        return dead

    def _send_probe(self, node: NodeId, now: float) -> None:
        suspect = self._suspects[node]
        suspect.tries += 1
        suspect.due = now + max(suspect.wait_s, 2 * self._context.rtt(node))
        self._context.send(node, Nack(self._hierarchy.group, 0, (), suspect.dead), (suspect.dead,))
        self._set_due()

    def _set_due(self) -> None:
        self.due = min((suspect.due for suspect in self._suspects.values()), default=None)
