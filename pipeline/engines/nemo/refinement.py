"""Refinement: a member looks from time to time whether another leader of its layer is closer.

The paper has a probability for each check (1 %; 0.1 % from an undersized cluster).  The check in which it happens is
drawn in advance, so that a member without a cluster of its own can skip the checks before it.
"""

from __future__ import annotations

from pipeline.engines.nemo.cluster_membership import ClusterMembership
from pipeline.engines.nemo.hierarchy import Hierarchy
from pipeline.engines.nemo.join import JoinSearch, Phase

_NOT_DRAWN = -1.0
"""Probability of no membership."""


class Refinement:
    """Time of a node's next refinement in one group."""

    def __init__(self, hierarchy: Hierarchy, join_search: JoinSearch, now: float) -> None:
        self._hierarchy = hierarchy
        self._context = hierarchy.context
        self._join_search = join_search
        self.due = now
        """Time of the next refinement, valid while the probability is the one it was drawn with."""
        self._drawn_with = _NOT_DRAWN

    def is_drawn(self, membership: ClusterMembership) -> bool:
        """Return whether `due` has been drawn with the membership's present probability."""
        return self._drawn_with == self._probability(membership)

    def check(self, now: float) -> None:
        """Start a refinement if it is due, and draw the time of the next one."""
        layer = self._hierarchy.top
        membership = self._hierarchy.memberships[layer]
        if membership.leader == self._hierarchy.own or not membership.super_crew:
            self._drawn_with = _NOT_DRAWN  # a time drawn for an earlier membership must not be used for a later one
            return
        if self._join_search.phase is not Phase.IDLE:
            return
        if self.is_drawn(membership):
            if now < self.due:
                return
            present_s = self._context.rtt(membership.leader)
            self._join_search.refine(membership.super_crew[0], layer, present_s, now)
        probability = self._probability(membership)
        self.due = now + self._context.options.check_s * self._context.draw_rounds(probability)
        self._drawn_with = probability

    def _probability(self, membership: ClusterMembership) -> float:
        options = self._context.options
        is_undersized = len(membership.members) < options.k
        return options.refine_undersized_probability if is_undersized else options.refine_probability
