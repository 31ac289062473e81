"""What control looks at again and again, whether or not anything has come in.

    sender key    each second, and each 50 ms while one key gives way to the next            keys/sender.py
    probes        each PROBES_AGE_S: whom the stages have heard, and how far away it is      overlay/peer.py
    streams       each second: which have stopped                                            forwarding/stream_stall.py
    sources       each 30 s: groups that local programs send to no longer                    forwarding/sources.py
    adopted       once, 3 s after a restart: what a predecessor has set and nobody wants

A look feeds the cores; then control carries out what they have to say.  It knows no protocol, and nothing of inputs:
those are control/process.py's.  A look that raises is our bug, and has its next turn all the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable

from pipeline import limits
from pipeline.address import NodeId
from pipeline.control.network_key import NetworkKeys
from pipeline.control.publish import Publisher
from pipeline.forwarding.sources import LocalSources
from pipeline.forwarding.stream_stall import TICK_S, StreamStallDetector
from pipeline.forwarding.table import ForwardingTable
from pipeline.keys.sender import Phase, SenderKeyRotation, phase_of
from pipeline.overlay.node import OverlayNode
from pipeline.shm import counters, repair
from pipeline.shm.region import Region

KEY_LOOK_S, KEY_STEP_S = 1.0, 0.05
"""Between looks at the sender key's age, and while one key gives way to the next."""
SOURCES_LOOK_S = 30.0
ADOPT_S = 3.0
"""How long a restarted control leaves entries alone that it has not set again: membership is relearned meanwhile."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTasks:
    """Of one control process."""

    loop: asyncio.AbstractEventLoop
    region: Region
    node: OverlayNode
    table: ForwardingTable
    publisher: Publisher
    sources: LocalSources
    rotation: SenderKeyRotation
    network_keys: NetworkKeys
    drain: Callable[[float], None]
    """Carries out what the cores have to say."""
    save: Callable[[], None]
    """Writes the checkpoint at once."""

    def start(self) -> None:
        """Each look has its first turn after one pause."""
        self.loop.call_later(KEY_LOOK_S, self._look_at_keys)
        self.loop.call_later(limits.PROBES_AGE_S, self._look_at_probes)
        self.loop.call_later(TICK_S, self._look_for_silence, StreamStallDetector())
        self.loop.call_later(SOURCES_LOOK_S, self._look_for_idle_sources)
        self.loop.call_later(ADOPT_S, self._expire_adopted)

    def _look_at_keys(self) -> None:
        pause_s = KEY_LOOK_S
        try:
            now = time.monotonic()
            if self.network_keys.look(now):
                self.drain(now)
            sent = counters.value(self.region, "sealed")
            record, is_acknowledged = self.node.record, self.node.is_acknowledged
            change = self.rotation.tick(record, sent=sent, is_acknowledged=is_acknowledged, now=now)
            if change is not None:
                self.node.set_keys(now, **dataclasses.asdict(change))
                self.publisher.publish_sender(self.node.record)
                self.save()  # before anybody is told: a successor must not draw another key for this epoch
                self.drain(now)
            if phase_of(self.node.record) is not Phase.STEADY or self.rotation.pending:
                pause_s = KEY_STEP_S
        finally:
            self.loop.call_later(pause_s, self._look_at_keys)  # whatever raises above: keys go on growing old

    def _look_at_probes(self) -> None:
        self.loop.call_later(limits.PROBES_AGE_S, self._look_at_probes)
        now = time.monotonic()
        for peer, figures, are_answered in self.publisher.probed():
            self.node.handle_probes(peer, now, are_answered=are_answered)
            if figures.rtt_ns:
                self.node.handle_rtt(peer, figures.rtt_ns / 1e9, now)
        self.drain(now)

    def _look_for_silence(self, watch: StreamStallDetector[tuple[NodeId, int]]) -> None:
        self.loop.call_later(TICK_S, self._look_for_silence, watch)
        now = time.monotonic()
        for _, stream in watch.tick(repair.tracked_streams(self.region)):
            group = self.table.group_of(stream)
            if group is not None:
                self.node.handle_stream_stall(group, now)
        self.drain(now)

    def _look_for_idle_sources(self) -> None:
        """Sources whose groups' entries have not been used for a while are sources no longer."""
        self.loop.call_later(SOURCES_LOOK_S, self._look_for_idle_sources)
        now = time.monotonic()
        for group in self.sources.expire_idle(self.publisher.used_groups()):
            self.node.deregister_source(group, now)
        self.drain(now)

    def _expire_adopted(self) -> None:
        self.table.expire_adopted()
        self.publisher.expire_adopted(record.node_id for record in self.node.records())
        self.drain(time.monotonic())
