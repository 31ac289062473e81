"""Link indices: the bit of each peer in the link sets of the forwarding table, 0 … NODES_MAX - 1.

A peer keeps its index from the moment its record is known until it is forgotten, across restarts of the peer and of
this node's control process, so that entries in shared memory keep their meaning.  A released index goes to the end of
the queue: the later it is used again, the less likely it is that an entry still names it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from pipeline import limits
from pipeline.address import NodeId


class LinkTable:
    """Allocator of link indices."""

    def __init__(self) -> None:
        self._index: dict[NodeId, int] = {}
        self._fresh = 0
        """Lowest index that was never allocated."""
        self._released: deque[int] = deque()

    def allocate(self, node_id: NodeId) -> int | None:
        """Return the node's index, allocated if it has none yet; None if all are in use."""
        index = self._index.get(node_id)
        if index is None:
            if self._fresh < limits.NODES_MAX:
                index, self._fresh = self._fresh, self._fresh + 1
            elif self._released:
                index = self._released.popleft()
            else:
                return None
            self._index[node_id] = index
        return index

    def release(self, node_id: NodeId) -> int | None:
        """Release the node's index and return it; another node may be given it soon."""
        index = self._index.pop(node_id, None)
        if index is not None:
            self._released.append(index)
        return index

    def get(self, node_id: NodeId) -> int | None:
        """Return the node's index, or None."""
        return self._index.get(node_id)

    def as_mapping(self) -> Mapping[NodeId, int]:
        """Return all indices in use, for a snapshot."""
        return dict(self._index)

    def restore(self, indices: Mapping[NodeId, int]) -> None:
        """Take over the indices of a snapshot; ValueError if two nodes share one or one is out of range."""
        taken = set(indices.values())
        if len(taken) != len(indices) or not taken <= set(range(limits.NODES_MAX)):
            raise ValueError("link indices of the snapshot clash")
        self._index = dict(indices)
        self._fresh = limits.NODES_MAX
        self._released = deque(index for index in range(limits.NODES_MAX) if index not in taken)
