"""Links that a node's groups need, counted over all groups."""

from __future__ import annotations

from collections import Counter

from pipeline.address import Address, NodeId
from pipeline.engines.api import LinkWanted
from pipeline.engines.nemo.context import Context


class LinkDemand:
    """Number of groups that need a link, for each peer."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._count: Counter[NodeId] = Counter()
        self._peers: dict[Address, frozenset[NodeId]] = {}

    def set(self, group: Address, peers: frozenset[NodeId]) -> None:
        """Replace the peers to which a group needs links; requests for links precede all other outputs."""
        old = self._peers.pop(group, frozenset())
        if peers:
            self._peers[group] = peers
        for node in sorted(peers - old):
            self._count[node] += 1
            if self._count[node] == 1:
                self._context.outputs.appendleft(LinkWanted(node, is_wanted=True))
        for node in sorted(old - peers):
            self._count[node] -= 1
            if not self._count[node]:
                del self._count[node]
                self._context.outputs.append(LinkWanted(node, is_wanted=False))
