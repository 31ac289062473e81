"""One packet of a large simulation.  All hosts share the object, and it records what happens at each of them."""

from __future__ import annotations

from pipeline.address import NodeId


class Packet:
    """A packet from host number `source` to the group, and the hosts where it has arrived."""

    __slots__ = (
        "duplicates",
        "expected",
        "is_sampled",
        "origin",
        "received",
        "sent_at",
        "source",
        "stream",
        "stream_sequence",
    )

    def __init__(
        self, *, origin: NodeId, source: int, incarnation: int, stream_sequence: int, sent_at: float, hosts: int
    ) -> None:
        self.origin = origin
        self.source = source
        self.stream = origin, incarnation
        self.stream_sequence = stream_sequence
        self.sent_at = sent_at
        self.received = bytearray(hosts)
        """One byte a host: 1 where the packet has arrived."""
        self.expected = b""
        """One byte a host: 1 where the packet counts as lost if it does not arrive.  Empty until it is measured."""
        self.duplicates = 0
        """Copies that arrived where the packet had already arrived."""
        self.is_sampled = False
        """True if latency, stretch and link stress are measured with this packet."""
