"""State that all groups of a node share: identity, options, round-trip times, random numbers, and the output queue."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from pipeline.address import NodeId
from pipeline.engines.api import NodeView, Output, Transmit
from pipeline.engines.nemo import messages
from pipeline.engines.nemo.options import Options

UNKNOWN_RTT_S = 0.5
"""Round-trip time assumed for a node that has not been measured: longer than most."""
SMOOTHING = 0.25
"""Weight of a new measurement in the smoothed round-trip time."""
RTTS_MAX = 4096


class Context:
    """Shared state of one node's groups."""

    def __init__(
        self,
        own: NodeId,
        options: Options,
        random: Callable[[], float],
        *,
        view: NodeView | None = None,
        now: float = 0.0,
    ) -> None:
        self.own = own
        self.view = view or NodeView()
        self.options = options
        self.random = random
        self.outputs: deque[Output] = deque()
        self.up: set[NodeId] = set()
        """Nodes whose link is up."""
        self._rtts: dict[NodeId, float] = {}
        self._source_count = int(now * 1e3)

    def next_source_count(self) -> int:
        """Return a number for a source announcement; it grows with each call and, by its start, with each restart."""
        self._source_count += 1
        return self._source_count

    # ---- sending

    def can_reach(self, node: NodeId) -> bool:
        """Return whether a message may arrive: the link is up, or links are made on demand."""
        return self.view.can_reach(node, self.up)

    def send(self, peer: NodeId, message: messages.Message, mentions: Iterable[NodeId] = ()) -> None:
        """Send a message to a node; to 0, nothing is sent.  `mentions` holds the nodes that the message names."""
        if peer:
            self.send_all((peer,), message, mentions)

    def send_all(self, peers: Iterable[NodeId], message: messages.Message, mentions: Iterable[NodeId] = ()) -> None:
        """Send one message to several nodes.  It is encoded once, as there may be many of them."""
        encoded, named = messages.encode(message), dict.fromkeys(mentions)
        for unneeded in (0, self.own):
            named.pop(unneeded, None)
        for peer in peers:
            assert peer != self.own, "a node sends nothing to itself"
            self.outputs.append(Transmit(peer, encoded, tuple(node for node in named if node != peer)))

    # ---- round-trip times

    def record_rtt(self, peer: NodeId, rtt_s: float) -> None:
        """A round-trip time has been measured."""
        old = self._rtts.get(peer)
        if old is None and len(self._rtts) >= RTTS_MAX:
            del self._rtts[next(iter(self._rtts))]
        self._rtts[peer] = rtt_s if old is None else old + SMOOTHING * (rtt_s - old)

    def has_rtt(self, peer: NodeId) -> bool:
        """Return whether the round-trip time to the node has been measured."""
        return peer in self._rtts

    def rtt(self, peer: NodeId) -> float:
        """Return the round-trip time to the node in seconds; 0 to this node, UNKNOWN_RTT_S if not measured."""
        return 0.0 if peer == self.own else self._rtts.get(peer, UNKNOWN_RTT_S)

    def is_clearly_better(self, latency_s: float, present_s: float) -> bool:
        """Return whether a latency is so much below the present one that a change pays."""
        options = self.options
        return latency_s <= min(options.better_share * present_s, present_s - options.better_floor_s)

    # ---- random numbers

    def draw_rounds(self, probability: float) -> float:
        """Return the round in which an event happens first that has this probability in each; infinity for 0."""
        if probability <= 0:
            return math.inf
        return 1 if probability >= 1 else 1 + int(math.log(1 - self.random()) / math.log(1 - probability))

    def draw_interval(self, mean_s: float) -> float:
        """Return a random interval: the sum of two uniform draws, which has the mean and, unlike the exponential
        distribution of the paper, a bound.
        """
        return mean_s * (self.random() + self.random())
