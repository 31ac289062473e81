"""Directory views: which records a node holds, and with which nodes it keeps a session.

A node is made with one view.  Everything that differs between the two stands here:

                       FullView                                PartialView
    records            all nodes                               nodes that the engine uses, or that a message mentions
    sessions           with every node                         with nodes to which the engine needs a link
    gossip             digests in heartbeats, then summaries   records travel with the engine's messages
    a forgotten node   leaves a tombstone against old gossip   is dropped, unless the engine still needs its record
    heartbeats         at all times                            where the engine has nothing to send
    floods, unicast    yes                                     no: they need a link to every node
    engines            all                                     those with `supports_partial_view`

A full view costs each node about 100 kB/s with 1,024 nodes.  A partial view serves many thousands of nodes.  Only the
simulator can select it today: a daemon has to carry flooded groups and unicast.

PeerTable consults the view about records, Sessions about messages, and OverlayNode about addresses; an engine receives
it as a NodeView.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Container, Iterable, Mapping
from typing import ClassVar

from pipeline import limits
from pipeline.address import NodeId
from pipeline.engines.api import NodeView
from pipeline.messages import Heartbeat, NodeRecord
from pipeline.overlay.directory import Directory
from pipeline.overlay.peer import Pace, Peer
from pipeline.overlay.transmitter import Transmitter

SESSION_SLOWDOWN = 3.0
"""Partial view: heartbeats of sessions are slower than those of the engine by this factor, as it watches its peers."""
ENGINE_HEARTBEAT_S, ENGINE_GRACE_S = 10.0, 15.0
"""Used where the engine's options `heartbeat_s` and `grace_s` are not set."""
FORGET_S = 40.0
"""Partial view: time after which an unused record is dropped."""
MENTION_SHARE = 0.9
"""A record that was sent with a mention is not sent again for this share of FORGET_S."""
MENTIONS_MAX = 64
"""Records remembered as sent to one peer; above it the entries that have expired are removed."""
EVICTED_SHARE = 1 / 8
"""Share of a full directory that is evicted at once, so that evictions are rare."""


class DirectoryView(NodeView, abc.ABC):
    """The decisions in which the two views differ."""

    covers_all_nodes: ClassVar[bool]
    """True if the node has a link to every other node, as flooded groups, unicast and address ownership need."""

    def __init__(
        self,
        directory: Directory,
        transmitter: Transmitter,
        *,
        engine_options: Mapping[str, object],
        engine_nodes: Callable[[], Iterable[NodeId]],
    ) -> None:
        self._directory = directory
        self._transmitter = transmitter
        self._engine_nodes = engine_nodes
        """Returns the nodes whose records the engine needs beside those of its links."""
        self.pace = self._pace(engine_options)
        """Intervals of the sessions."""

    def node_named(self, name: str) -> NodeId | None:
        """Return the node that has this name, this node included; None if none is known."""
        if name == self._directory.own.name:
            return self._directory.own.node_id
        return min(self._directory.named(name), default=None)

    @abc.abstractmethod
    def _pace(self, engine_options: Mapping[str, object]) -> Pace:
        """Return the intervals of the sessions."""

    # ---- sessions

    @abc.abstractmethod
    def set_link_wanted(self, node_id: NodeId, *, is_wanted: bool) -> None:
        """Note that the engine needs a link to a node, or no longer needs it."""

    @abc.abstractmethod
    def keeps_session(self, node_id: NodeId) -> bool:
        """Return whether this node calls the other one, and takes its link down when it is silent."""

    # ---- records

    @abc.abstractmethod
    def refresh(self, peer: Peer, now: float) -> None:
        """Note that another node has mentioned this peer, whose record is known already."""

    @abc.abstractmethod
    def needs_record(self, node_id: NodeId) -> bool:
        """Return whether the record of a silent node must be kept."""

    @abc.abstractmethod
    def remove_record(self, node_id: NodeId, now: float) -> None:
        """Remove the record of a forgotten node from the directory."""

    @abc.abstractmethod
    def evictable(self, peers: Mapping[NodeId, Peer]) -> Iterable[Peer]:
        """Return the peers to forget in favour of a new one, when the directory is full."""

    # ---- messages

    @abc.abstractmethod
    def introduce(self, newcomer: Peer, peers: Mapping[NodeId, Peer], *, is_new: bool) -> None:
        """Send what a node needs that has called with an endpoint alone; `is_new`: its record was not known before."""

    @abc.abstractmethod
    def answer_heartbeat(self, peer: Peer, heartbeat: Heartbeat, now: float) -> None:
        """Answer a heartbeat that acknowledges this node's present record, if an answer is due."""

    @abc.abstractmethod
    def precede_engine_message(self, peer: Peer, mentions: Iterable[NodeId], now: float) -> None:
        """Send what the peer needs to understand an engine's message that names other nodes."""


class FullView(DirectoryView):
    """Every node holds all records and has a link to every other node."""

    covers_all_nodes = True

    _next_summary_at = -math.inf
    """Time from which a difference of digests may cause a summary again."""

    def _pace(self, engine_options: Mapping[str, object]) -> Pace:  # noqa: ARG002 (the engine does not matter here)
        return Pace()

    def set_link_wanted(self, node_id: NodeId, *, is_wanted: bool) -> None:
        """Do nothing: there is a session with every node."""

    def keeps_session(self, node_id: NodeId) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    def refresh(self, peer: Peer, now: float) -> None:
        """Do nothing: a record stays until its own node has been silent for too long."""

    def needs_record(self, node_id: NodeId) -> bool:  # noqa: ARG002
        """Return False."""
        return False

    def remove_record(self, node_id: NodeId, now: float) -> None:
        """Leave a tombstone, so that gossip does not bring the record back."""
        self._directory.replace_by_tombstone(node_id, now)

    def evictable(self, peers: Mapping[NodeId, Peer]) -> Iterable[Peer]:  # noqa: ARG002
        """Return nothing: the new node is refused."""
        return ()

    def introduce(self, newcomer: Peer, peers: Mapping[NodeId, Peer], *, is_new: bool) -> None:
        """Send all records to the newcomer, and the newcomer's record to all peers.

        The peers need not wait for a difference of digests.
        """
        others = [record for record in self._directory.others() if record is not newcomer.record]
        self._transmitter.send_records(newcomer, others)
        if is_new:
            for peer in peers.values():
                if peer is not newcomer and peer.is_alive:
                    self._transmitter.send_records(peer, [newcomer.record])

    def answer_heartbeat(self, peer: Peer, heartbeat: Heartbeat, now: float) -> None:
        """Send a summary if the two directories differ.  Those of peers of protocol 1 always do, and they ask."""
        if not peer.record.is_signed:
            return
        if heartbeat.directory_digest != self._directory.digest and now >= self._next_summary_at:
            self._next_summary_at = now + limits.DIRECTORY_SYNC_INTERVAL_S
            self._transmitter.send_summary(peer, is_reply_requested=True)

    def precede_engine_message(self, peer: Peer, mentions: Iterable[NodeId], now: float) -> None:
        """Do nothing: the peer has all records."""


class PartialView(DirectoryView):
    """A node holds records of the nodes it has to do with, and has links to those that its engine chooses."""

    covers_all_nodes = False
    announces_sources = True

    def __init__(
        self,
        directory: Directory,
        transmitter: Transmitter,
        *,
        engine_options: Mapping[str, object],
        engine_nodes: Callable[[], Iterable[NodeId]],
    ) -> None:
        super().__init__(directory, transmitter, engine_options=engine_options, engine_nodes=engine_nodes)
        self._linked: set[NodeId] = set()
        """Nodes to which the engine needs a link."""

    def _pace(self, engine_options: Mapping[str, object]) -> Pace:
        heartbeat_s = float(str(engine_options.get("heartbeat_s", ENGINE_HEARTBEAT_S)))
        grace_s = float(str(engine_options.get("grace_s", ENGINE_GRACE_S)))
        return Pace(heartbeat_s * SESSION_SLOWDOWN, grace_s * SESSION_SLOWDOWN, FORGET_S)

    def can_reach(self, node: NodeId, up: Container[NodeId]) -> bool:  # noqa: ARG002
        """Return True: a session begins with the first message."""
        return True

    def set_link_wanted(self, node_id: NodeId, *, is_wanted: bool) -> None:
        """Keep or end the session with a node."""
        (self._linked.add if is_wanted else self._linked.discard)(node_id)

    def keeps_session(self, node_id: NodeId) -> bool:
        """Return whether the engine needs a link to the node; messages of other nodes are only answered."""
        return node_id in self._linked

    def refresh(self, peer: Peer, now: float) -> None:
        """Keep the record for another FORGET_S."""
        if not peer.is_alive:
            peer.postpone_forgetting(now)

    def needs_record(self, node_id: NodeId) -> bool:
        """Return whether the engine uses the node."""
        return node_id in self._linked or node_id in self._needed()

    def remove_record(self, node_id: NodeId, now: float) -> None:  # noqa: ARG002
        """Drop the record; the next mention brings it back."""
        self._directory.drop(node_id)

    def evictable(self, peers: Mapping[NodeId, Peer]) -> Iterable[Peer]:
        """Return those that the engine does not use and that have been silent for longest."""
        needed = self._linked | self._needed()
        idle = [peer for node_id, peer in peers.items() if node_id not in needed]
        return sorted(idle, key=lambda peer: peer.last_seen_at)[: int(limits.NODES_MAX * EVICTED_SHARE)]

    def _needed(self) -> set[NodeId]:
        return set(self._engine_nodes())

    def introduce(self, newcomer: Peer, peers: Mapping[NodeId, Peer], *, is_new: bool) -> None:
        """Do nothing: the engine's messages bring the records that the newcomer needs."""

    def answer_heartbeat(self, peer: Peer, heartbeat: Heartbeat, now: float) -> None:  # noqa: ARG002
        """Answer a peer to which this node does not send heartbeats of its own accord."""
        if not peer.is_kept and peer.may_answer_heartbeat(now):
            self._transmitter.send_heartbeat(peer)
            peer.keepalive_sent(now)

    def precede_engine_message(self, peer: Peer, mentions: Iterable[NodeId], now: float) -> None:
        """Send this node's record and those of the mentioned nodes, as far as the peer may lack them."""
        if not peer.holds(self._directory.own.stamp, now):
            self._transmitter.send_hello(peer, now)
        self._transmitter.send_records(peer, self._unsent(peer, mentions, now))
        peer.other_message_sent(now)

    def _unsent(self, peer: Peer, nodes: Iterable[NodeId], now: float) -> list[NodeRecord]:
        """Return the present records of nodes that the peer has not been sent lately, and remember them as sent."""
        unsent = []
        for node_id in nodes:
            record = self._directory.get(node_id)
            sent = peer.sent_records.get(node_id)
            if record is None or (sent is not None and sent[0] is record and now < sent[1]):
                continue
            if len(peer.sent_records) >= limits.NODES_MAX:
                peer.sent_records.clear()
            peer.sent_records[node_id] = record, now + FORGET_S * MENTION_SHARE
            unsent.append(record)
        if unsent and len(peer.sent_records) > MENTIONS_MAX:
            peer.sent_records = {node_id: sent for node_id, sent in peer.sent_records.items() if now < sent[1]}
        return unsent
