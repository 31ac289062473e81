"""The way into a cluster: ask the rendezvous for the top, then descend, each time into the nearest leader's cluster.

    IDLE ──begin──▶ FINDING ──Root──▶ DESCENDING ──target layer reached──▶ JOINING ──View──▶ IDLE
                       │ Root is this node: it is the first                   │ no View in time: begin again
                       └──────────────▶ IDLE                                  └─ Redirect: the leader named

The same descent, begun at the super leader, finds out whether another leader is closer (refinement): it asks those
whose distance is not known, or is better than the present leader's.  It knows no clusters but the answers it gets.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

from pipeline.address import Address, NodeId
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.messages import LAYERS_MAX, Answer, Query, RootQuery


class Phase(enum.Enum):
    """Of a search."""

    IDLE = enum.auto()
    FINDING = enum.auto()
    DESCENDING = enum.auto()
    JOINING = enum.auto()


class JoinSearch:
    """One search for the nearest leader of a layer."""

    def __init__(self, group: Address, desk: Context, arrive: Callable[[NodeId, int, int, float], None]) -> None:
        self.phase = Phase.IDLE
        self.due: float | None = None
        self.target = 0
        self.is_refinement = False
        self.failures = 0
        """Searches in a row that have led nowhere."""
        self.redirects = 0
        """Followed in this one."""
        self._group = group
        self._desk = desk
        self._arrive = arrive
        """Called with the leader to join, the layer, the top layer of the hierarchy, and now."""
        self.unreached: NodeId = 0
        """Who leads the top cluster, says the rendezvous, and is out of reach: if asked again it hears of that."""
        self._layer = LAYERS_MAX - 1
        self._present_s = math.inf
        self._ticket = 0
        self._asked: dict[NodeId, float] = {}
        self._answers: list[tuple[float, NodeId, Answer]] = []

    def find(self, rendezvous: NodeId, target: int, now: float) -> None:
        """Begin at the rendezvous."""
        self.phase, self.target, self.is_refinement = Phase.FINDING, target, False
        self.due = now + self._desk.parameters.retry_s
        if rendezvous != self._desk.own:
            self._desk.send(rendezvous, RootQuery(self._group, 0, self.unreached, 0))

    def descend(self, leader: NodeId, target: int, now: float) -> None:
        """Begin at the leader of the top cluster."""
        self.unreached = 0
        self.target, self.is_refinement, self._present_s = target, False, math.inf
        self._ask([leader], LAYERS_MAX - 1, now)

    def refine(self, super_leader: NodeId, target: int, present_s: float, now: float) -> None:
        """Begin one layer above the target, to find somebody closer than `present_s`."""
        self.target, self.is_refinement, self._present_s = target, True, present_s
        self._ask([super_leader], target + 1, now)

    def _ask(self, leaders: list[NodeId], layer: int, now: float) -> None:
        self.phase, self._layer = Phase.DESCENDING, layer
        self._ticket += 1
        self._asked = {node: now for node in leaders if node != self._desk.own}
        self._answers = []
        self.due = now + self._desk.parameters.query_s
        for node in self._asked:
            self._desk.send(node, Query(self._group, layer, self.target, self._ticket))
        if not self._asked:
            self.stop()

    def joining(self, now: float) -> None:
        """A Join has been sent: whatever was looked at before, a place is what is needed now."""
        self.phase, self.is_refinement = Phase.JOINING, False
        self.due = now + self._desk.parameters.query_s

    def retry(self, now: float) -> None:
        """The one who was asked cannot help now."""
        self.due = now + self._desk.parameters.check_s

    def stop(self) -> None:
        """Found, or not needed any more."""
        self.phase, self.due, self.is_refinement, self.redirects = Phase.IDLE, None, False, 0
        self._asked, self._answers = {}, []

    def handle_answer(self, peer: NodeId, answer: Answer, now: float) -> None:
        """One leader's members."""
        asked_at = self._asked.get(peer)
        if self.phase is not Phase.DESCENDING or answer.ticket != self._ticket or asked_at is None:
            return
        del self._asked[peer]
        self._desk.measured(peer, now - asked_at)
        self._answers.append((self._desk.rtt(peer), peer, answer))
        if not self._asked:
            self._conclude(now)

    def handle_timeout(self, now: float) -> None:
        """The time for answers is over: go on with those that have come, or give up."""
        if self.due is None or now < self.due:
            return
        if self.phase is Phase.DESCENDING and self._answers:
            self._conclude(now)
            return
        if not self.is_refinement:
            self.failures += 1
        self.stop()

    def _conclude(self, now: float) -> None:
        """The nearest leader is where to go: it leads the target layer, or its members are asked next."""
        _, leader, answer = min(self._answers, key=lambda each: each[:2])
        if answer.layer <= self.target:
            self._arrive(leader, answer.layer, answer.top, now)
        else:
            members = [node for node in answer.members if self._may_be_closer(node)]
            self._ask(members if members or self.is_refinement else [leader], answer.layer - 1, now)

    def _may_be_closer(self, node: NodeId) -> bool:
        rtt_s = self._desk.rtt(node) if self._desk.knows_rtt(node) else 0.0
        return node != self._desk.own and (not self.is_refinement or self._desk.is_better(rtt_s, self._present_s))
