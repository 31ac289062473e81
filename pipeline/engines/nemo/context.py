"""What all groups of a node share: its identity, parameters, distances, chance, and the tray of outgoing messages."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from pipeline.address import NodeId
from pipeline.engines.api import NodeView, Output, Transmit
from pipeline.engines.nemo import messages
from pipeline.engines.nemo.options import Options

UNKNOWN_RTT_S = 0.5
"""Taken for a peer that has not been measured: farther than most."""
SMOOTHING = 0.25
RTTS_MAX = 4096


class Context:
    """One node's."""

    def __init__(
        self, own: NodeId, parameters: Options, random: Callable[[], float], *, view: NodeView | None = None
    ) -> None:
        self.own = own
        self.view = view or NodeView()
        self.parameters = parameters
        self.random = random
        self.outputs: deque[Output] = deque()
        self.up: set[NodeId] = set()
        """Nodes whose link is up."""
        self._rtts: dict[NodeId, float] = {}

    def is_reachable(self, node: NodeId) -> bool:
        """Whether it is of use to ask a node: its link is up, or links are made on demand and nobody knows before."""
        return self.view.can_reach(node, self.up)

    def send(self, peer: NodeId, message: messages.Message, mentions: Iterable[NodeId] = ()) -> None:
        """Say something to another node."""
        if peer:
            self.send_all((peer,), message, mentions)

    def send_all(self, peers: Iterable[NodeId], message: messages.Message, mentions: Iterable[NodeId] = ()) -> None:
        """Say the same to others; it is encoded once, as there may be many of them."""
        encoded, named = messages.encode(message), dict.fromkeys(mentions)
        for known in (0, self.own):
            named.pop(known, None)
        for peer in peers:
            assert peer != self.own, "a node does not talk to itself"
            but = tuple(node for node in named if node != peer)
            self.outputs.append(Transmit(peer, encoded, but))

    def measured(self, peer: NodeId, rtt_s: float) -> None:
        """A round-trip time has been measured."""
        old = self._rtts.get(peer)
        if old is None and len(self._rtts) >= RTTS_MAX:
            del self._rtts[next(iter(self._rtts))]
        self._rtts[peer] = rtt_s if old is None else old + SMOOTHING * (rtt_s - old)

    def rtt(self, peer: NodeId) -> float:
        """The round-trip time to another node as far as it is known."""
        return 0.0 if peer == self.own else self._rtts.get(peer, UNKNOWN_RTT_S)

    def is_better(self, latency_s: float, present_s: float) -> bool:
        """Whether a latency is so much less than the present one that it is worth a change."""
        parameters = self.parameters
        return latency_s <= min(parameters.better_share * present_s, present_s - parameters.better_floor_s)

    def knows_rtt(self, peer: NodeId) -> bool:
        """Whether it has been measured."""
        return peer in self._rtts

    def rounds(self, probability: float) -> float:
        """How many rounds it takes until something happens that has this probability in each."""
        if probability <= 0:
            return math.inf
        return 1 if probability >= 1 else 1 + int(math.log(1 - self.random()) / math.log(1 - probability))

    def exponential(self, mean_s: float) -> float:
        """A waiting time."""
        # Not quite exponential: the sum of two uniform draws has the mean, and bounded tails.
        return mean_s * (self.random() + self.random())
