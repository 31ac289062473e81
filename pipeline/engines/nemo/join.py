"""Search for a leader to join: from the rendezvous to the top cluster, then down through the nearest leaders.

    IDLE ──find──▶ FINDING ──RootReply──▶ DESCENDING ──target layer reached──▶ JOINING ──View──▶ IDLE
                      │ this node is the root: it founds the group                │ no View in time: IDLE, search again
                      └─────────────────────────────▶ IDLE                        └ Redirect: Join to the leader named

The same descent, started at the super leader, finds out whether another leader is closer (refinement).  Then it queries
only those leaders whose distance is unknown or better than the present leader's.  The search knows no clusters but the
answers it receives.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

from pipeline.address import Address, NodeId
from pipeline.engines.nemo.clusters import Crew
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.messages import LAYERS_MAX, Answer, Join, Query, RootQuery
from pipeline.engines.nemo.rendezvous import Rendezvous


class Phase(enum.Enum):
    """Phase of a search."""

    IDLE = enum.auto()
    FINDING = enum.auto()
    DESCENDING = enum.auto()
    JOINING = enum.auto()


class JoinSearch:
    """Search for the nearest leader of a layer; one at a time for each group."""

    def __init__(
        self,
        group: Address,
        context: Context,
        rendezvous: Rendezvous,
        handle_result: Callable[[NodeId, int, int, float], None],
    ) -> None:
        self.phase = Phase.IDLE
        self.due: float | None = None
        self.target = 0
        """Layer of the cluster to join."""
        self.is_refinement = False
        self.failures = 0
        """Searches in a row that did not end with a membership."""
        self.unreached: NodeId = 0
        """Leader of the top cluster that this node cannot reach; the next query reports it to the rendezvous."""
        self._group = group
        self._context = context
        self._rendezvous = rendezvous
        self._handle_result = handle_result
        """Called with the leader to join, its layer, the top layer of the hierarchy, and now."""
        self._redirects = 0
        """Redirects followed in this search."""
        self._replaced: dict[int, NodeId] = {}
        """By layer: dead node whose place the next Join takes."""
        self._layer = LAYERS_MAX - 1
        self._present_s = math.inf
        self._ticket = 0
        self._queried: dict[NodeId, float] = {}
        self._answers: list[tuple[float, NodeId, Answer]] = []

    # ---- starting

    def find(self, target: int, now: float) -> None:
        """Start at the rendezvous."""
        options = self._context.options
        self.phase, self.target, self.is_refinement = Phase.FINDING, target, False
        self.due = now + options.retry_s
        rendezvous = self._rendezvous.node_for(self._group)
        if rendezvous != self._context.own:
            self._context.send(rendezvous, RootQuery(self._group, 0, self.unreached, 0))

    def descend(self, root: NodeId, target: int, now: float) -> None:
        """Start at the leader of the top cluster."""
        self.unreached = 0
        self.target, self.is_refinement, self._present_s = target, False, math.inf
        self._query([root], LAYERS_MAX - 1, now)

    def refine(self, super_leader: NodeId, target: int, present_s: float, now: float) -> None:
        """Start one layer above the target, to find a leader closer than `present_s` seconds."""
        self.target, self.is_refinement, self._present_s = target, True, present_s
        self._query([super_leader], target + 1, now)

    def request_membership(self, leader: NodeId, layer: int, crew: Crew, now: float) -> None:
        """Send a Join.  It ends a refinement, as a membership is more urgent."""
        self.target = layer
        self.phase, self.is_refinement = Phase.JOINING, False
        self.due = now + self._context.options.query_s
        self._context.send(leader, Join(self._group, layer, crew, self._replaced.get(layer, 0)), crew)

    # ---- state

    def is_joining(self, layer: int) -> bool:
        """Return whether a Join to a cluster of the layer has been sent and not answered."""
        return self.phase is Phase.JOINING and self.target == layer

    def take_place_of(self, node: NodeId, layer: int) -> None:
        """The next Join in a layer takes the place of a dead node."""
        self._replaced[layer] = node

    def handle_membership(self, layer: int) -> None:
        """A view with this node in it has arrived: the search is over if it was for this layer."""
        self._replaced.pop(layer, None)
        if self.is_joining(layer):
            self.stop()
            self.failures = 0

    def report_unreachable(self, root: NodeId, now: float) -> None:
        """The root cannot be reached: wait, and report it to the rendezvous from the second time on."""
        if self.unreached == root and self._rendezvous.node_for(self._group) == self._context.own:
            self._rendezvous.handle_unreachable(self._group, root, self._context.own, now)
        self.unreached = root
        self.wait(now)

    def handle_redirect(self, leader: NodeId, crew: Crew, now: float) -> None:
        """Follow a redirect of this search, but not more often than there are layers, as redirects may be circular.

        `leader` 0: the redirect names no leader of use.
        """
        if leader and self._redirects < LAYERS_MAX:
            self._redirects += 1
            self.request_membership(leader, self.target, crew, now)
        else:
            self.wait(now)

    def wait(self, now: float) -> None:
        """No answer is of use at present: go on after a check interval."""
        self.due = now + self._context.options.check_s

    def stop(self) -> None:
        """End the search."""
        self.phase, self.due, self.is_refinement, self._redirects = Phase.IDLE, None, False, 0
        self._queried, self._answers = {}, []

    # ---- descending

    def _query(self, leaders: list[NodeId], layer: int, now: float) -> None:
        self.phase, self._layer = Phase.DESCENDING, layer
        self._ticket += 1
        self._queried = {node: now for node in leaders if node != self._context.own}
        self._answers = []
        self.due = now + self._context.options.query_s
        for node in self._queried:
            self._context.send(node, Query(self._group, layer, self.target, self._ticket))
        if not self._queried:
            self.stop()

    def handle_answer(self, peer: NodeId, answer: Answer, now: float) -> None:
        """A leader has sent its members."""
        queried_at = self._queried.get(peer)
        if self.phase is not Phase.DESCENDING or answer.ticket != self._ticket or queried_at is None:
            return
        del self._queried[peer]
        self._context.record_rtt(peer, now - queried_at)
        self._answers.append((self._context.rtt(peer), peer, answer))
        if not self._queried:
            self._conclude(now)

    def handle_timeout(self, now: float) -> None:
        """The time for answers is over: go on with those that have arrived, or give up."""
        if self.due is None or now < self.due:
            return
        if self.phase is Phase.DESCENDING and self._answers:
            self._conclude(now)
            return
        if not self.is_refinement:
            self.failures += 1
        self.stop()

    def _conclude(self, now: float) -> None:
        """Take the nearest leader: it leads a cluster of the target layer, or its members are queried next."""
        _, leader, answer = min(self._answers, key=lambda each: each[:2])
        if answer.layer <= self.target:
            self._handle_result(leader, answer.layer, answer.top, now)
        else:
            members = [node for node in answer.members if self._may_be_closer(node)]
            self._query(members if members or self.is_refinement else [leader], answer.layer - 1, now)

    def _may_be_closer(self, node: NodeId) -> bool:
        context = self._context
        rtt_s = context.rtt(node) if context.has_rtt(node) else 0.0
        return node != context.own and (not self.is_refinement or context.is_clearly_better(rtt_s, self._present_s))
