"""Seeds: endpoints given by `--peer`, called until their nodes are known, and again whenever these are down.

An endpoint that has not answered twice is called in protocol 1 too, as its node may speak nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pipeline import limits
from pipeline.address import NodeId
from pipeline.overlay.events import NoticeKind
from pipeline.overlay.peer import Seed
from pipeline.overlay.peer_table import PeerTable
from pipeline.overlay.transmitter import Transmitter


class Seeds:
    """Seeds of one node; their times are deadlines of the peer table."""

    def __init__(
        self,
        peer_table: PeerTable,
        transmitter: Transmitter,
        endpoints: Iterable[str],
        *,
        accepts_unsigned: bool,
        random: Callable[[], float],
        now: float,
    ) -> None:
        self._peer_table = peer_table
        self._transmitter = transmitter
        self._accepts_unsigned = accepts_unsigned
        own = peer_table.own.endpoint
        self._seeds = {each: Seed(each, random=random, now=now) for each in endpoints if each != own}

    def __contains__(self, endpoint: object) -> bool:
        return endpoint in self._seeds

    def start(self, now: float) -> None:
        """Call all seeds."""
        for endpoint in self._seeds:
            self._peer_table.deadlines.set(endpoint, now)

    def unanswered(self) -> Iterator[str]:
        """Return the seeds whose nodes are not known."""
        return (seed.endpoint for seed in self._seeds.values() if seed.node_id is None)

    # ---- what sessions learn about them

    def answered(self, endpoint: str, node_id: NodeId) -> None:
        """Note the node that was reached at an endpoint, if that is a seed."""
        if endpoint in self._seeds:
            self._seeds[endpoint].node_id = node_id

    def refused(self, endpoint: str) -> None:
        """Note that the node at an endpoint has refused this one."""
        if endpoint in self._seeds:
            self._seeds[endpoint].is_refused = True

    def forget_all(self) -> None:
        """Forget the nodes of all seeds."""
        for seed in self._seeds.values():
            seed.node_id = None

    def forget(self, node_id: NodeId) -> None:
        """Forget a node; after an upgrade another id is at its endpoint."""
        for seed in self._seeds.values():
            if seed.node_id == node_id:
                others = self._peer_table.peers.items()
                seed.node_id = next((other for other, peer in others if peer.record.endpoint == seed.endpoint), None)

    # ---- time

    def call(self, endpoint: str, now: float) -> None:
        """Call a seed that is due, unless its node is alive."""
        seed = self._seeds[endpoint]
        if seed.node_id == self._peer_table.own.node_id:
            return
        peer = self._peer_table.peers.get(seed.node_id) if seed.node_id is not None else None
        if peer is not None and peer.is_alive:
            seed.attempts = 0
            seed.backoff.restart(now, delay_s=self._peer_table.view.pace.timeout_s)
        else:
            self._greet(seed)
            if seed.node_id is None and not seed.is_refused and now - seed.backoff.since >= limits.ANSWER_EXPECTED_S:
                text = f"no answer from {endpoint}: is a node there, has it this network key, is its port open?"
                self._peer_table.notice(NoticeKind.NO_ANSWER, endpoint, text)
            seed.backoff.attempt_made(now)
        self._peer_table.deadlines.set(endpoint, seed.backoff.next_at)

    def _greet(self, seed: Seed) -> None:
        seed.attempts += 1
        self._transmitter.greet(seed.endpoint, dialled=seed.endpoint)
        if self._accepts_unsigned and seed.attempts > 2 and not seed.is_refused:
            self._transmitter.call_unsigned(seed.endpoint, dialled=seed.endpoint)
