"""Routes of one group at one node: the next hops that follow from its memberships, put out as far as they changed."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.address import Address, NodeId
from pipeline.engines.api import RouteChanged, RouteKey, Side
from pipeline.engines.nemo import forwarding
from pipeline.engines.nemo.cluster_membership import ClusterMembership
from pipeline.engines.nemo.context import Context

WHY_GONE = "nemo: not in the group"
WHY_VIA = "nemo: not to the sender's crew"


class Routes:
    """Routes of one group."""

    def __init__(self, group: Address, context: Context) -> None:
        self._group = group
        self._context = context
        self._put_out: dict[RouteKey, tuple[frozenset[NodeId], ...]] = {}
        self._inputs: object = None
        """The data from which the present routes were computed."""
        self._why = ""

    def nodes(self) -> set[NodeId]:
        """Return all next hops."""
        return {node for stripes in self._put_out.values() for next_hops in stripes for node in next_hops}

    def update(self, memberships: Mapping[int, ClusterMembership]) -> None:
        """Put out the routes that have changed."""
        own, options = self._context.own, self._context.options
        inputs = forwarding.inputs(own, memberships)
        if inputs == self._inputs:
            return
        self._inputs = inputs
        new: dict[RouteKey, tuple[frozenset[NodeId], ...]] = {}
        old_why, self._why = self._why, forwarding.why(own, memberships)
        if 0 in memberships:
            found = forwarding.next_hops(own, memberships, options.crew_size)
            for side in Side:
                new[RouteKey(side, self._group)] = found.default
            for via, stripes in found.by_via.items():
                new[RouteKey(Side.OVERLAY, self._group, via=via)] = stripes
        for key, stripes in new.items():
            if self._put_out.get(key) != stripes or (key.via is None and self._why != old_why):
                why = self._why if key.via is None else WHY_VIA
                repairs = options.repair == "nack"
                self._context.outputs.append(RouteChanged(key, stripes[0], why, stripes[1:], repairs=repairs))
        for key in self._put_out:
            if key not in new:
                self._context.outputs.append(RouteChanged(key, None, WHY_GONE))
        self._put_out = new
