"""Announcements of sources along the clusters of one group, where nodes do not know all other nodes.

A receiver needs the record of a source, and with it the key, before it can open its datagrams.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import limits
from pipeline.address import NodeId
from pipeline.engines.nemo.hierarchy import Hierarchy
from pipeline.engines.nemo.messages import Source

LIFETIME_GRACES = 4
"""Grace periods without an announcement after which a source is forgotten."""
INTERVAL_GRACES = 2
"""Grace periods between two announcements of a source."""


class SourceTable:
    """Sources of one group that have been announced."""

    def __init__(self, hierarchy: Hierarchy, now: float) -> None:
        self._hierarchy = hierarchy
        self._context = hierarchy.context
        self._sources: dict[NodeId, tuple[int, float]] = {}
        """Count of each source's last announcement, and the time at which it expires."""
        self.announce_at = now
        """Time of this node's next announcement, if it is a source."""

    def announce(self, now: float) -> None:
        """Announce this node as a source, if the engine has to."""
        count = self._context.next_source_count()
        self.announce_at = now + INTERVAL_GRACES * self._context.options.grace_s
        if self._context.view.announces_sources and self._hierarchy.memberships:
            self.handle_source(0, Source(self._hierarchy.group, self._context.own, count), now)

    def handle_source(self, peer: NodeId, source: Source, now: float) -> None:
        """A source has been announced: pass it on along the clusters, once.  `peer` is 0 for this node itself."""
        self._sources = {node: each for node, each in self._sources.items() if each[1] > now}
        is_full = source.origin not in self._sources and len(self._sources) >= limits.NODES_MAX
        if is_full or self._sources.get(source.origin, (-1, 0.0))[0] >= source.count:
            return
        self._sources[source.origin] = source.count, now + LIFETIME_GRACES * self._context.options.grace_s
        own, receivers = self._context.own, set[NodeId]()
        for membership in self._hierarchy.memberships.values():
            if own in membership.crew or not peer:
                receivers.update(membership.members)
            elif peer not in membership.crew:
                receivers.update(membership.crew)
        for node in sorted(receivers - {peer, source.origin, own}):
            self._context.send(node, source, (source.origin,))

    def send_to(self, newcomer: NodeId) -> None:
        """Send all announcements to a node that has joined."""
        for origin, (count, _) in self._sources.items():
            self._context.send(newcomer, Source(self._hierarchy.group, origin, count), (origin,))

    def origins(self) -> Iterable[NodeId]:
        """Return the sources."""
        return self._sources.keys()
