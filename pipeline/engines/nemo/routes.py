"""One group's routes at one node: what its seats say, put out as far as it has changed."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.address import Address, NodeId
from pipeline.engines.api import RouteChanged, RouteKey, Side
from pipeline.engines.nemo import forwarding
from pipeline.engines.nemo.clusters import Seat
from pipeline.engines.nemo.context import Context

WHY_GONE = "nemo: no seat"
WHY_VIA = "nemo: not to the sender's crew"


class Routes:
    """Of one group."""

    def __init__(self, group: Address, desk: Context) -> None:
        self._group = group
        self._desk = desk
        self._put_out: dict[RouteKey, tuple[frozenset[NodeId], ...]] = {}
        self._basis: object = None
        """What they were made of."""
        self._why = ""

    def nodes(self) -> set[NodeId]:
        """All next hops."""
        return {node for sets in self._put_out.values() for each in sets for node in each}

    def follow(self, seats: Mapping[int, Seat]) -> None:
        """Put out what has changed with the seats."""
        basis = forwarding.basis(self._desk.own, seats)
        if basis == self._basis:
            return
        self._basis = basis
        new: dict[RouteKey, tuple[frozenset[NodeId], ...]] = {}
        old_why, self._why = self._why, forwarding.why(self._desk.own, seats)
        if 0 in seats:
            found = forwarding.hops(self._desk.own, seats, self._desk.parameters.crew_size)
            for side in Side:
                new[RouteKey(side, self._group)] = found.default
            for via, sets in found.by_via.items():
                new[RouteKey(Side.OVERLAY, self._group, via=via)] = sets
        for key, sets in new.items():
            if self._put_out.get(key) != sets or (key.via is None and self._why != old_why):
                why = self._why if key.via is None else WHY_VIA
                repairs = self._desk.parameters.repair == "nack"
                self._desk.outputs.append(RouteChanged(key, sets[0], why, sets[1:], repairs=repairs))
        for key in self._put_out:
            if key not in new:
                self._desk.outputs.append(RouteChanged(key, None, WHY_GONE))
        self._put_out = new
