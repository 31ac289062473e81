"""Rendezvous: for each group one node knows the root, the leader of the top cluster.

The root registers with each of its heartbeats.  The first node that queries a group without a root becomes its root.
The rendezvous detects two roots of one group, after a partition or after it has moved: the one that registered first
stays, unless the other one has replaced it or leads more layers; the one that does not stay is notified at once.

The paper leaves the rendezvous open.  Here it is the node in reach with the greatest hash of node and group, so that
groups spread over the nodes and all nodes choose alike; or the first in reach of those that the configuration names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from pipeline import limits
from pipeline.address import Address, NodeId
from pipeline.engines.nemo import messages
from pipeline.engines.nemo.context import Context

ROOT_GRACES = 2
"""Grace periods after which a root that does not register expires; one, if another node registers as root."""
SUCCESSOR_WAIT_S = 3.0
"""Time for which the place of a dead root is kept for its successor; then the next node that queries is the root."""


class _Root(NamedTuple):
    """Registered root of a group."""

    node: NodeId
    """0: a successor that has not registered yet."""
    expires_at: float
    layers: int
    """Layers that it leads."""
    previous: NodeId
    """Root before it, or 0.  If that one registers with fewer layers as the successor of this one, both are alive and
    were separated.
    """


class Rendezvous:
    """This node as the rendezvous of groups, and its choice of the rendezvous of others."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._roots: dict[Address, _Root] = {}

    def node_for(self, group: Address) -> NodeId:
        """Return the group's rendezvous as this node sees it; 0: a node of the configuration that is not known yet."""
        own, up = self._context.own, self._context.up
        if self._context.options.rendezvous:
            named = self.named()
            return next((node for node in named if node == own or node in up), named[0] if named else 0)
        return max((own, *up), key=lambda node: _weight(group, node))

    def named(self) -> list[NodeId]:
        """Return the known nodes of the configuration, first choice first.

        If no link to one of them is up, the first is tried all the same.
        """
        found = (self._context.view.node_named(name) for name in self._context.options.rendezvous)
        return [node for node in found if node is not None]

    def roots(self) -> Iterator[NodeId]:
        """Return the registered roots."""
        return (root.node for root in self._roots.values() if root.node)

    def find_root(
        self, group: Address, peer: NodeId, now: float, *, is_root: bool, superseded: NodeId = 0, layers: int = 0
    ) -> NodeId:
        """Return the root of a group; 0: query again later.

        The peer itself is registered and returned if there is no root, or if it is a root (`is_root`) that has replaced
        the registered one (`superseded`) or leads more `layers`.
        """
        present = self._roots.get(group)
        grace_s = self._context.options.grace_s
        if present is not None and present.expires_at - (ROOT_GRACES - 1) * grace_s * is_root <= now:
            present = None
        if present is not None and present.node != peer:
            may_replace = layers >= present.layers or present.previous != peer
            is_successor = present.node == 0 or (present.node == superseded and may_replace)
            if not is_root or not (is_successor or layers > present.layers):
                return present.node
        previous = 0 if present is None else present.previous if present.node == peer else present.node
        if present is not None and present.node not in (0, peer, self._context.own):
            # It may be alive.  With 0, because it leads more layers, it stays root and registers again.
            root = peer if layers >= present.layers else 0
            self._context.send(present.node, messages.RootReply(group, root), (peer,))
        self._roots.pop(group, None)
        if len(self._roots) >= limits.GROUPS_MAX:
            del self._roots[next(iter(self._roots))]  # the root whose last registration is the oldest
        self._roots[group] = _Root(peer, now + ROOT_GRACES * grace_s, layers, previous)
        return peer

    def handle_gone(self, node: NodeId, now: float) -> None:
        """A node is dead or has lost its state.  Its successors have the first claim to its places."""
        for group, root in list(self._roots.items()):
            if root.node == node:
                self._keep_for_successor(group, root, now)

    def handle_unreachable(self, group: Address, node: NodeId, peer: NodeId, now: float) -> None:
        """A peer cannot reach the root: it counts as dead if this node cannot either, else it is notified."""
        root = self._roots.get(group)
        if root is None or root.node != node:
            return
        if self._context.can_reach(node):
            self._context.send(node, messages.Blocked(group, peer), (peer,))
        elif node != self._context.own:
            self._keep_for_successor(group, root, now)

    def withdraw(self, group: Address, node: NodeId) -> None:
        """A node is not the root of the group any more, and has no successor."""
        root = self._roots.get(group)
        if root is not None and root.node == node:
            del self._roots[group]

    def _keep_for_successor(self, group: Address, root: _Root, now: float) -> None:
        expires_at = now + SUCCESSOR_WAIT_S if root.layers else now  # a root that was alone has no successor
        self._roots[group] = _Root(0, expires_at, root.layers, 0)


def _weight(group: Address, node: NodeId) -> bytes:
    return hashlib.blake2b(node.to_bytes(4), key=group, digest_size=8).digest()
