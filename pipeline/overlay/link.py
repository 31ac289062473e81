"""Link indices: the bit of each peer in the link sets of the forwarding table, 0 … NODES_MAX - 1.

An index is a peer's from the moment its record is known until it is forgotten, across restarts of the peer and of
this node's control process, so that entries in shared memory keep their meaning.  A freed index goes to the end of
the queue: the longer it rests, the surer no entry still names it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from pipeline import limits
from pipeline.address import NodeId


class LinkTable:
    """Allocates link indices."""

    def __init__(self) -> None:
        self._index: dict[NodeId, int] = {}
        self._fresh = 0
        """From here on indices have never been given."""
        self._freed: deque[int] = deque()

    def allocate(self, node_id: NodeId) -> int | None:
        """The node's index, now if it has none yet; None if all are taken."""
        index = self._index.get(node_id)
        if index is None:
            if self._fresh < limits.NODES_MAX:
                index, self._fresh = self._fresh, self._fresh + 1
            elif self._freed:
                index = self._freed.popleft()
            else:
                return None
            self._index[node_id] = index
        return index

    def release(self, node_id: NodeId) -> int | None:
        """The index that was the node's; it may soon be another's."""
        index = self._index.pop(node_id, None)
        if index is not None:
            self._freed.append(index)
        return index

    def get(self, node_id: NodeId) -> int | None:
        """The node's index."""
        return self._index.get(node_id)

    def as_mapping(self) -> Mapping[NodeId, int]:
        """All indices in use, for a snapshot."""
        return dict(self._index)

    def restore(self, indices: Mapping[NodeId, int]) -> None:
        """Take over the indices of a snapshot; ValueError if they cannot be."""
        taken = set(indices.values())
        if len(taken) != len(indices) or not taken <= set(range(limits.NODES_MAX)):
            raise ValueError("link indices of the snapshot clash")
        self._index = dict(indices)
        self._fresh = limits.NODES_MAX
        self._freed = deque(index for index in range(limits.NODES_MAX) if index not in taken)
