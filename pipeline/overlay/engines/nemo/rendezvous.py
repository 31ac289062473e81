"""Where groups begin: each group has a node that knows who leads its top cluster, the rendezvous.

The leader says so with each heartbeat; who asks first of a group that nobody leads becomes its leader.  Two leaders of
one group, after a partition or when the rendezvous has moved, are found here: the one that was first stays.

The paper leaves the rendezvous open.  Here it is one of the nodes within reach, the one with the greatest hash of both
(so that groups are spread and all nodes choose alike), or the first within reach of those that the configuration names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pipeline import limits
from pipeline.address import Address, NodeId
from pipeline.overlay.engines.nemo.desk import Desk
from pipeline.overlay.registry import node_id

GRACES = 2
"""A leader that has not been heard for so many grace periods leads no more; for one, if another says that it leads."""
HEIRS_S = 3.0
"""How long a group whose leader is gone waits for who follows it; then whoever asks begins it anew."""


class Rendezvous:
    """This node as the entrance of groups, and the way to those of others."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.named = [node_id(name, 0) for name in desk.parameters.rendezvous]
        """First choice first; one that is not linked is tried all the same."""
        self._roots: dict[Address, tuple[NodeId, float, int]] = {}
        """Who leads each group's top cluster, or 0 for an heir of whom nothing has been heard yet; until when that is
        believed; and how many layers it leads."""

    def of(self, group: Address) -> NodeId:
        """The group's entrance as this node sees it."""
        desk = self._desk
        if self.named:
            return next((node for node in self.named if node == desk.own or node in desk.up), self.named[0])
        return max((desk.own, *desk.up), key=lambda node: _weight(group, node))

    def roots(self) -> Iterator[NodeId]:
        """All whom this node names to those who ask."""
        return (root for root, _, _ in self._roots.values() if root)

    def root(
        self, group: Address, asker: NodeId, now: float, *, is_root: bool, instead: NodeId = 0, layers: int = 0
    ) -> NodeId:
        """Who leads the group's top cluster; the asker if nobody does, or nobody of so many layers; 0: ask again.

        `instead`: whom the asker has followed.
        """
        known = self._roots.get(group)
        grace_s = self._desk.parameters.grace_s
        if known is not None and known[1] - (GRACES - 1) * grace_s * is_root <= now:
            known = None
        until = now + GRACES * grace_s
        if known is None or known[0] == asker or (is_root and (known[0] in (0, instead) or layers > known[2])):
            self._roots.pop(group, None)
            if len(self._roots) >= limits.GROUPS_MAX:
                del self._roots[next(iter(self._roots))]  # the one of which nothing has been heard for longest
            self._roots[group] = asker, until, layers
            return asker
        return known[0]

    def forget(self, node: NodeId, now: float) -> None:
        """A node is no more, or knows nothing any more.  Who followed it has the first claim to its places."""
        for group, (root, _, layers) in list(self._roots.items()):
            if root == node:
                self._roots[group] = 0, now + HEIRS_S if layers else now, layers

    def withdraw(self, group: Address, node: NodeId) -> None:
        """A node leads the group no more."""
        if self._roots.get(group, (0, 0.0, 0))[0] == node:
            del self._roots[group]


def _weight(group: Address, node: NodeId) -> bytes:
    return hashlib.blake2b(node.to_bytes(4), key=group, digest_size=8).digest()
