"""Periodic tasks of the control process, which run whether or not an input arrives.

    sender key    each second, and each 50 ms during a rotation                              keys/sender.py
    probes        each PROBES_AGE_S: peers that were received from, and their distance       overlay/peer.py
    streams       each second: streams that have stalled                                     forwarding/stream_stall.py
    sources       each 30 s: groups to which local programs no longer send                   forwarding/sources.py
    members       each second: pins, expired certificates, a host that was restored          control/membership_rules.py
    health        each second: faults that have begun or ended, what found no room, sums of the log   control/health.py
    adopted       once, 3 s after a restart: entries of a predecessor that were not set again

Each tick feeds the cores, and then control carries out their outputs.  A tick that raises shows a bug in this
program; the next one runs all the same.  Inputs are handled in control/process.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable

import structlog

from pipeline import limits, logs
from pipeline.address import NodeId
from pipeline.control.health import Health
from pipeline.control.membership_rules import MembershipRules
from pipeline.control.network_key import NetworkKeys
from pipeline.control.publish import Publisher
from pipeline.control.restore_detector import RestoreDetector
from pipeline.forwarding import stream_stall
from pipeline.forwarding.sources import LocalSources
from pipeline.forwarding.stream_stall import StreamStallDetector
from pipeline.forwarding.table import ForwardingTable
from pipeline.keys.sender import Phase, SenderKeyRotation, phase_of
from pipeline.overlay.node import OverlayNode
from pipeline.shm import counters, repair
from pipeline.shm.region import Region

log = structlog.get_logger()

KEYS_TICK_S, KEYS_ROTATION_TICK_S = 1.0, 0.05
"""Time between two ticks of the keys, in general and during a rotation of the sender key."""
HEALTH_TICK_S = 1.0
"""Time between two ticks of the health: early enough for a log."""
MEMBERS_TICK_S = 1.0
"""Time between two checks of all peers' certificates, and before new pins are written."""
SOURCES_TICK_S = 30.0
"""Time between two ticks of the sources: a group to which no packet was sent in between is deregistered."""
ADOPTED_EXPIRE_S = 3.0
"""Age at which a restarted control removes its predecessor's entries; membership is learnt again by then."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTasks:
    """Timers of the control process, with the parts of it that they drive."""

    loop: asyncio.AbstractEventLoop
    region: Region
    node: OverlayNode
    table: ForwardingTable
    publisher: Publisher
    sources: LocalSources
    rotation: SenderKeyRotation
    network_keys: NetworkKeys
    rules: MembershipRules
    restore_detector: RestoreDetector
    health: Health
    drain: Callable[[float], None]
    """Carry out all outputs of the cores."""
    save: Callable[[], None]
    """Write the checkpoint now."""

    def start(self) -> None:
        """Start all timers; each task has its first tick one interval from now."""
        self.loop.call_later(KEYS_TICK_S, self._tick_keys)
        self.loop.call_later(limits.PROBES_AGE_S, self._tick_probes)
        self.loop.call_later(stream_stall.TICK_S, self._tick_streams, StreamStallDetector())
        self.loop.call_later(SOURCES_TICK_S, self._tick_sources)
        self.loop.call_later(HEALTH_TICK_S, self._tick_health)
        self.loop.call_later(MEMBERS_TICK_S, self._tick_members)
        self.loop.call_later(ADOPTED_EXPIRE_S, self._expire_adopted)

    def _tick_keys(self) -> None:
        interval_s = KEYS_TICK_S
        try:
            now = time.monotonic()
            if self.network_keys.tick(now):
                self.drain(now)
            sent = counters.value(self.region, "sealed")
            record, is_acknowledged = self.node.record, self.node.is_acknowledged
            change = self.rotation.tick(record, sent=sent, is_acknowledged=is_acknowledged, now=now)
            if change is not None:
                self.node.set_keys(now, **dataclasses.asdict(change))
                self.publisher.publish_sender(self.node.record)
                self.save()  # before peers receive the key: a successor must not draw another one for this epoch
                self.drain(now)
            if phase_of(self.node.record) is not Phase.STEADY or self.rotation.pending:
                interval_s = KEYS_ROTATION_TICK_S
        finally:
            self.loop.call_later(interval_s, self._tick_keys)  # also after an error: keys still have to be rotated

    def _tick_probes(self) -> None:
        self.loop.call_later(limits.PROBES_AGE_S, self._tick_probes)
        now = time.monotonic()
        for peer, figures, are_answered in self.publisher.probed_peers():
            self.node.handle_probes(peer, now, are_answered=are_answered)
            if figures.rtt_ns:
                self.node.handle_rtt(peer, figures.rtt_ns / 1e9, now)
        self.drain(now)

    def _tick_streams(self, detector: StreamStallDetector[tuple[NodeId, int]]) -> None:
        self.loop.call_later(stream_stall.TICK_S, self._tick_streams, detector)
        now = time.monotonic()
        for _, stream in detector.tick(repair.tracked_streams(self.region)):
            group = self.table.group_of(stream)
            if group is not None:
                self.node.handle_stream_stall(group, now)
        self.drain(now)

    def _tick_sources(self) -> None:
        self.loop.call_later(SOURCES_TICK_S, self._tick_sources)
        now = time.monotonic()
        for group in self.sources.expire_idle(self.publisher.take_used_groups()):
            self.node.deregister_source(group, now)
        self.drain(now)

    def _tick_health(self) -> None:
        self.loop.call_later(HEALTH_TICK_S, self._tick_health)
        if self.publisher.fault:
            self.publisher.retry()
        self.health.tick(time.monotonic())
        logs.write_summaries()

    def _tick_members(self) -> None:
        self.loop.call_later(MEMBERS_TICK_S, self._tick_members)
        now = time.monotonic()
        if self.restore_detector.has_been_restored():
            log.warning("this host was restored, or its clock was set: all sessions and keys are made anew")
            self.node.begin_incarnation(time.time_ns() // 1_000_000, os.urandom(32), now)
            self.publisher.publish_sender(self.node.record)
            self.save()
            self.drain(now)
        self.rules.tick(now)
        excluded = self.node.exclude_objectionable(now)
        if excluded:
            log.warning("certificates have expired: nodes are excluded", excluded=excluded)
            self.network_keys.exclude(now)
            self.drain(now)

    def _expire_adopted(self) -> None:
        self.table.expire_adopted()
        self.publisher.expire_adopted(record.node_id for record in self.node.records())
        self.drain(time.monotonic())
