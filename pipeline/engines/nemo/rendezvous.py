"""Where groups begin: each group has a node that knows who leads its top cluster, the rendezvous.

The leader says so with each heartbeat; who asks first of a group that nobody leads becomes its leader.  Two leaders of
one group, after a partition or when the rendezvous has moved, are found here: the one that was first stays, unless the
other has followed it or leads more layers; and who does not stay is told at once.

The paper leaves the rendezvous open.  Here it is one of the nodes within reach, the one with the greatest hash of both
(so that groups are spread and all nodes choose alike), or the first within reach of those that the configuration names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from pipeline import limits
from pipeline.address import Address, NodeId, derive_node_id
from pipeline.engines.nemo import messages
from pipeline.engines.nemo.context import Context

GRACES = 2
"""A leader that has not been heard for so many grace periods leads no more; for one, if another says that it leads."""
HEIRS_S = 3.0
"""How long a group whose leader is gone waits for who follows it; then whoever asks begins it anew."""


class _Root(NamedTuple):
    """Who leads a group's top cluster."""

    node: NodeId
    """0: an heir of whom nothing has been heard yet."""
    until: float
    """When that is not believed any more."""
    layers: int
    """That it leads."""
    outlived: NodeId
    """Who led before: if it says from fewer layers that it follows this one, both live and were apart; or 0."""


class Rendezvous:
    """This node as the entrance of groups, and the way to those of others."""

    def __init__(self, desk: Context) -> None:
        self._desk = desk
        self.named = [derive_node_id(name, 0) for name in desk.parameters.rendezvous]
        """First choice first; one that is not linked is tried all the same."""
        self._roots: dict[Address, _Root] = {}

    def of(self, group: Address) -> NodeId:
        """The group's entrance as this node sees it."""
        desk = self._desk
        if self.named:
            return next((node for node in self.named if node == desk.own or node in desk.up), self.named[0])
        return max((desk.own, *desk.up), key=lambda node: _weight(group, node))

    def roots(self) -> Iterator[NodeId]:
        """All whom this node names to those who ask."""
        return (root.node for root in self._roots.values() if root.node)

    def root(
        self, group: Address, asker: NodeId, now: float, *, is_root: bool, instead: NodeId = 0, layers: int = 0
    ) -> NodeId:
        """Who leads the group's top cluster; the asker if nobody does, or nobody of so many layers; 0: ask again.

        `instead`: whom the asker has followed.
        """
        known = self._roots.get(group)
        grace_s = self._desk.parameters.grace_s
        if known is not None and known.until - (GRACES - 1) * grace_s * is_root <= now:
            known = None
        if known is not None and known.node != asker:
            may_follow = layers >= known.layers or known.outlived != asker
            is_heir = known.node == 0 or (known.node == instead and may_follow)
            if not is_root or not (is_heir or layers > known.layers):
                return known.node
        outlived = 0 if known is None else known.outlived if known.node == asker else known.node
        if known is not None and known.node not in (0, asker, self._desk.own):
            # It may live.  Of fewer layers it need not heed: it says again that it leads.
            self._desk.send(known.node, messages.RootReply(group, asker if layers >= known.layers else 0), (asker,))
        self._roots.pop(group, None)
        if len(self._roots) >= limits.GROUPS_MAX:
            del self._roots[next(iter(self._roots))]  # the one of which nothing has been heard for longest
        self._roots[group] = _Root(asker, now + GRACES * grace_s, layers, outlived)
        return asker

    def forget(self, node: NodeId, now: float) -> None:
        """A node is no more, or knows nothing any more.  Who followed it has the first claim to its places."""
        for group, root in list(self._roots.items()):
            if root.node == node:
                self._vacate(group, root, now)

    def _vacate(self, group: Address, root: _Root, now: float) -> None:
        self._roots[group] = _Root(0, now + HEIRS_S if root.layers else now, root.layers, 0)

    def complain(self, group: Address, node: NodeId, asker: NodeId, now: float) -> None:
        """Somebody does not reach who leads the group: if this node does not either it is no more, else it is told."""
        root = self._roots.get(group)
        if root is None or root.node != node:
            return
        if self._desk.is_reachable(node):
            self._desk.send(node, messages.Blocked(group, asker), (asker,))
        elif node != self._desk.own:
            self._vacate(group, root, now)

    def withdraw(self, group: Address, node: NodeId) -> None:
        """A node leads the group no more."""
        root = self._roots.get(group)
        if root is not None and root.node == node:
            del self._roots[group]


def _weight(group: Address, node: NodeId) -> bytes:
    return hashlib.blake2b(node.to_bytes(4), key=group, digest_size=8).digest()
