"""Worker process: the C loop over its stages, and the sending of punts to control.

Python handles no packet here.  mp_worker_run() returns after its time, after a signal, or when there are punts for
control.  State that must survive the process is in shared memory.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import structlog
import zmq

from pipeline.io import bus, seccomp
from pipeline.messages import Punt, encode_local
from pipeline.shm._native import ffi, lib
from pipeline.shm.policy import Policy
from pipeline.shm.region import ProcessState, Region
from pipeline.shm.stage import Stage
from pipeline.workers.graph import Worker, mask

BUDGET_NS = 1_000_000_000
"""Longest run of the C loop.  It may be long, because signals and punts end it early."""
IDLE = {"adaptive": lib.MP_IDLE_ADAPTIVE, "busy": lib.MP_IDLE_BUSY, "sleep": lib.MP_IDLE_SLEEP}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LaneDescriptors:
    """Descriptors of a lane, opened by the supervisor: TUN queue, UDP socket, one eventfd for each stage."""

    tun: int
    udp: int
    bells: tuple[int, ...]

    def needed_by(self, worker: Worker) -> frozenset[int]:
        """Return the descriptors of a worker's stages and inline stages; the worker closes all others."""
        stages = worker.stages + worker.inline_stages
        needed = set(self.bells)
        if {Stage.TUN_INGRESS, Stage.OVERLAY_INGRESS} & set(stages):
            needed.add(self.tun)
        if {Stage.OVERLAY_EGRESS, Stage.OVERLAY_INGRESS} & set(stages):
            needed.add(self.udp)
        return frozenset(needed)


def run(
    worker: Worker,
    region: Region,
    descriptors: LaneDescriptors,
    *,
    idle: str,
    moderation_us: int,
    super_packets: bool,
    punt_endpoint: str,
    ready_bell: int,
    policy: Policy,
) -> None:
    """Run a worker process from the fork to SIGTERM."""
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    config = ffi.new("struct mp_worker_config *")
    config.lane, config.stages, config.inline_stages = worker.lane, mask(worker.stages), mask(worker.inline_stages)
    config.idle = IDLE[idle]
    config.moderation_us = moderation_us
    config.super = super_packets
    config.tun, config.udp, config.wake = descriptors.tun, descriptors.udp, wake_read
    config.bell = descriptors.bells
    config.policy = policy.native
    native = lib.mp_worker_new(region.native, config)
    if native == ffi.NULL:
        raise MemoryError("worker, or no AES-256-GCM on this machine")
    punts = _Punts(worker.lane, punt_endpoint)
    if not seccomp.install(_words(worker.stages), inline=_words(worker.inline_stages)):
        log.warning("no filter of system calls for this machine", worker=worker.role, lane=worker.lane)
    region.set_process_state(worker.process, ProcessState.READY)
    os.eventfd_write(ready_bell, 1)
    while not stopping:
        if lib.mp_worker_run(native, BUDGET_NS) > 0:
            punts.forward(native)
    lib.mp_worker_free(native)


def _words(stages: tuple[Stage, ...]) -> list[str]:
    return [stage.word for stage in stages]


class _Punts:
    """Sender of punts to control.

    While control is away punts are dropped: the next queries bring the membership reports again.
    """

    def __init__(self, lane: int, endpoint: str) -> None:
        self._lane = lane
        self._kind = ffi.new("uint32_t *")
        self._buffer = ffi.new("uint8_t[]", lib.MP_PUNT_BYTES)
        self._endpoint = endpoint
        self._socket: zmq.Socket[bytes] | None = None

    def forward(self, native: object) -> None:
        if self._socket is None:
            self._socket = bus.punt_sender(self._endpoint)
        while length := lib.mp_punt_take(native, self._kind, self._buffer, lib.MP_PUNT_BYTES):
            packet = bytes(ffi.buffer(self._buffer, length))
            punt = Punt(lane=self._lane, kind=self._kind[0], packet=packet)
            if not bus.send(self._socket, encode_local(punt)):
                lib.mp_punt_lost(native, self._kind[0])
