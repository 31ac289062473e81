"""Supervisor: opens all descriptors, starts control and the workers, restarts those that end, and removes everything.

It is a plain loop over descriptors, without threads, asyncio or ZeroMQ, so that it can fork at any time: children share
its imported modules and start in milliseconds.  It handles no packet and knows no peer.

    launch   lock → open descriptors and shared memory → fork → interface up → wait for READY → watch
    watch    a child's pidfd is readable: fork it again;  SIGTERM or SIGINT: stop
    stop     SIGTERM to control, which sends Goodbye to its peers, and to workers → SIGKILL the rest → remove all

If the supervisor is killed, the kernel kills its children (PR_SET_PDEATHSIG), and the interface ends with its last
descriptor.  The next launch of the name removes the region and the directory.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType

import structlog

from pipeline import engines, limits, logs
from pipeline.address import derive_addresses, show
from pipeline.config import Config
from pipeline.config_checks import CHECKS
from pipeline.control import process as control
from pipeline.control.resources import ControlResources, Service
from pipeline.errors import PipelineError
from pipeline.io import checkpoint, interface, keystore, netlink, notify, privileges, process, rundir, sockets, tun
from pipeline.shm.policy import Policy
from pipeline.shm.region import Geometry, ProcessState, Region
from pipeline.shm.stage import Stage
from pipeline.workers import base, graph

STOP_TIMEOUT_S = 3.0
"""Time for all children to end after SIGTERM.  Control's Goodbye takes milliseconds; a child that hangs is killed."""
RESTART_PAUSES_S = (0.0, 0.0, 0.05, 0.2, 0.5)
"""Pauses before the restarts of a streak, so that a child that always ends at once does not keep a core busy."""
STEADY_S = 5.0
"""Run time after which a restart begins a new streak."""
FAILURES_LOGGED = 5
"""Failures of a streak that are logged.  A child's limits of the log end with it, so the supervisor counts them."""
FAILURE_CODE = 70
"""Exit code (EX_SOFTWARE) of a child after an error in the program: it is restarted.  Any other code but 0 ends the
instance, because a restart would not help."""
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
BUSY_POLL_US = 50
BACKLOG = 1024
"""Connections that wait while control is restarted: one from each node."""
MOVE_BYTES_MAX = 4096
"""Longest request to move addresses; two addresses have some 70 bytes as text."""
HISTORY_FACTOR = 4
"""Factor of the length of rings if the engine repairs: three quarters are then history (mp_repair_buffer.h)."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Child:
    """Child process, which is restarted when it ends."""

    role: str
    lane: int
    index: int  # in the region's process table
    main: Callable[[], None]
    keep: frozenset[int]
    cpu: int | None = None
    pid: int = 0
    pidfd: int = -1
    started: float = 0.0
    restart_streak: int = 0  # restarts in quick succession
    due: float | None = None  # when to start it again


@dataclass(slots=True)
class _Resources:
    """Descriptors and shared memory of the instance."""

    region: Region
    queues: list[int]
    interface: interface.Interface
    data: list[socket.socket]
    control_socket: socket.socket
    bells: list[tuple[int, ...]]
    checkpoint: int
    ready_bell: int
    moves: tuple[socket.socket, socket.socket]
    """Control sends requests for other addresses to the second; this process, which has the right, reads the first."""


def launch(config: Config, service: Service | None = None) -> int:
    """Run the instance in the foreground until SIGTERM or SIGINT, and return the exit code.

    PipelineError if it cannot start.  `service` is a server that runs in control beside its own work: the metrics.
    """
    logs.configure(config.log)
    privileges.harden()
    store = keystore.create()
    if code := keystore.fill(store, config):
        return code
    control.check_engine(config.overlay.engine)
    # From here on a signal is pending until the loop handles it, because there is something to remove.
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    directory = rundir.RuntimeDirectory(config.node.name)
    try:
        Region.unlink_stale(config.node.name)
        return _Supervisor(config, directory, store, service).run()
    finally:
        Region.unlink_stale(config.node.name)
        directory.remove()


def node_addresses(config: Config) -> tuple[str, ...]:
    """Return the interface's addresses: the configured ones, or those derived from the name."""
    if config.tun.addresses:
        return config.tun.addresses
    v4, v6 = derive_addresses(config.node.name, 0)
    return f"{show(v4)}/16", f"{show(v6)}/64"


class _Supervisor:
    def __init__(self, config: Config, directory: rundir.RuntimeDirectory, store: int, service: Service | None) -> None:
        self._config = config
        self._directory = directory
        self._service = service
        self._store = store
        self._store_page = keystore.lock(store)
        self._signals: list[int] = []
        self._exit_code = 0
        self._ready = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._mtu = self._choose_mtu()
        self._resources = self._open()
        self._children = self._plan()
        self._poll = select.poll()

    # ---------------------------------------------------------------- opening

    def _choose_mtu(self) -> int:
        config = self._config
        if config.tun.mtu == "auto":
            return netlink.underlay_mtu(config.node.listen, config.node.peers)
        return config.tun.mtu

    def _open(self) -> _Resources:
        config, lanes = self._config, self._config.lanes
        control_socket = sockets.open_listener("--listen", config.node.listen, backlog=BACKLOG)
        busy = config.workers.idle == "busy"
        data = sockets.open_data_sockets(config.node.listen, lanes, busy_poll_us=BUSY_POLL_US if busy else 0)
        queues = tun.open_queues(config.tun.interface, lanes)
        history = HISTORY_FACTOR if engines.load(config.overlay.engine).repairs else 1
        region = Region.create(
            config.node.name,
            Geometry.of(
                lanes=lanes,
                mtu=self._mtu,
                host_slots=config.rings.host_slots * history,
                overlay_slots=config.rings.overlay_slots * history,
            ),
        )
        return _Resources(
            region=region,
            queues=queues,
            interface=interface.Interface(config.tun, queues, mtu=self._mtu, addresses=node_addresses(config)),
            data=data,
            control_socket=control_socket,
            bells=[tuple(os.eventfd(0, os.EFD_NONBLOCK) for _ in Stage) for _ in range(lanes)],
            checkpoint=checkpoint.create(),
            ready_bell=os.eventfd(0, os.EFD_NONBLOCK),
            moves=socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK),
        )

    def _plan(self) -> list[_Child]:
        config, res = self._config, self._resources
        super_packets = tun.takes_super_packets(res.queues[0])
        punts = rundir.punt_endpoint(config.node.name)
        affinity = config.workers.affinity
        policy = Policy(config.groups, config.security)
        children = []
        for number, worker in enumerate(graph.workers(config.workers.count)):
            lane = base.LaneDescriptors(res.queues[worker.lane], res.data[worker.lane].fileno(), res.bells[worker.lane])

            def main(worker: graph.Worker = worker, lane: base.LaneDescriptors = lane) -> None:
                base.run(
                    worker,
                    res.region,
                    lane,
                    idle=config.workers.idle,
                    moderation_us=config.workers.moderation_us,
                    super_packets=super_packets,
                    punt_endpoint=punts,
                    ready_bell=res.ready_bell,
                    policy=policy,
                )

            cpu = affinity[number % len(affinity)] if affinity else None
            child = _Child(worker.role, worker.lane, worker.process, main, lane.needed_by(worker), cpu)
            children.append(child)
            res.region.set_process_stages(worker.process, graph.mask(worker.stages))
        resources = ControlResources(
            config=config,
            keystore=self._store,
            addresses=node_addresses(config),
            mtu=self._mtu,
            region=res.region,
            queue=res.queues[0],
            listener=res.control_socket.fileno(),
            checkpoint=res.checkpoint,
            ingress_bells=tuple(bells[Stage.OVERLAY_INGRESS] for bells in res.bells),
            egress_bells=tuple(bells[Stage.OVERLAY_EGRESS] for bells in res.bells),
            ready_bell=res.ready_bell,
            moves=res.moves[1],
            started=time.monotonic(),
            service=self._service,
        )
        kept = {resources.keystore, resources.queue, resources.listener, resources.checkpoint}
        kept |= {resources.moves.fileno(), *resources.ingress_bells, *resources.egress_bells, *self._service_fds()}
        children.insert(0, _Child("control", 0, 0, lambda: control.run(resources), frozenset(kept)))
        return children

    def _service_fds(self) -> set[int]:
        return set() if self._service is None else {self._service.fileno()}

    # ---------------------------------------------------------------- running

    def run(self) -> int:
        """Start all children, watch them, and stop them; return the exit code."""
        for number in (*END_SIGNALS, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
        self._poll.register(self._wake_read, select.POLLIN)
        self._poll.register(self._resources.ready_bell, select.POLLIN)
        self._poll.register(self._resources.moves[0].fileno(), select.POLLIN)
        self._poll.register(self._resources.interface.fileno(), select.POLLIN)
        gc.freeze()  # children share the modules' pages
        try:
            workers = self._children[1:]
            for child in workers:
                self._start(child)
            self._resources.interface.configure()
            has_locked_keys = self._resources.region.lock_keys()
            if not (privileges.lock_memory() and has_locked_keys):
                log.warning("keys may be swapped to disk", reason="no right to lock all memory (LimitMEMLOCK=infinity)")
            privileges.keep_only([privileges.CAP_NET_ADMIN])  # to move addresses
            self._start(self._children[0])  # control, last because it sends queries on the interface
            self._watch()
        finally:
            self._stop()
        return self._exit_code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _start(self, child: _Child) -> None:
        res = self._resources
        res.region.set_process_state(child.index, ProcessState.STARTING)
        parent = os.getpid()
        child.started, child.due = time.monotonic(), None
        # Blocked until the child has handlers of its own: with those of this process it would not end.
        signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        child.pid = os.fork()
        if child.pid == 0:
            self._run_child(child, parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
        child.pidfd = os.pidfd_open(child.pid)
        res.region.set_process_pid(child.index, child.pid)
        self._poll.register(child.pidfd, select.POLLIN)

    def _run_child(self, child: _Child, parent: int) -> None:
        """Run the child after the fork; never return."""
        code = FAILURE_CODE
        try:
            process.become_child(parent, f"mp-{child.role}-{child.lane}")
            logs.configure(self._config.log)
            if child.cpu is not None and not process.pin(child.cpu):
                log.warning("CPU is absent, worker runs on any CPU", worker=child.role, lane=child.lane, cpu=child.cpu)
            self._close_all_but(child.keep)
            privileges.keep_only()
            privileges.lock_memory()
            child.main()
            code = 0
        except PipelineError as error:
            logs.print_error(str(error))
            code = error.exit_code
        except Exception as error:  # noqa: BLE001  boundary of the process: one log line, then a restart
            if child.restart_streak < FAILURES_LOGGED:
                text = f"{type(error).__name__}: {error}"
                log.warning("process failed", worker=child.role, lane=child.lane, error=text)
            if os.environ.get("MCAST_PIPELINE_DEBUG"):
                sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _close_all_but(self, keep: Iterable[int]) -> None:
        res = self._resources
        mine = {self._wake_read, self._wake_write, res.control_socket.fileno(), *res.queues}
        mine |= {self._store, res.checkpoint, res.interface.fileno()}
        mine |= {sock.fileno() for sock in (*res.data, *res.moves)} | {bell for bells in res.bells for bell in bells}
        mine |= {other.pidfd for other in self._children if other.pidfd >= 0} | self._service_fds()
        for fd in mine - set(keep):
            os.close(fd)

    # ---------------------------------------------------------------- watching

    def _watch(self) -> None:
        while not any(number in END_SIGNALS for number in self._signals):
            self._drain()
            for child in self._children:
                if child.pidfd >= 0 and self._has_ended(child):
                    self._reap(child)
                    if self._exit_code:
                        return
                if child.due is not None and child.due <= time.monotonic():
                    self._directory.restore()
                    self._start(child)
            self._announce_ready()
            self._move_addresses()
            self._resources.interface.repair()
            logs.write_summaries()
            self._poll.poll(self._poll_timeout_ms())

    def _drain(self) -> None:
        """Empty the descriptors that only wake this loop."""
        for fd in (self._wake_read, self._resources.ready_bell):
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 512)

    def _move_addresses(self) -> None:
        """Give the interface the addresses of control's last request."""
        request = None
        with contextlib.suppress(BlockingIOError):
            while text := self._resources.moves[0].recv(MOVE_BYTES_MAX):
                request = text
        if request is None:
            return
        try:
            self._resources.interface.move(_checked_addresses(tuple(request.decode("ascii").split())))
        except (ValueError, PipelineError) as error:
            log.warning("addresses not moved", reason=str(error))

    def _poll_timeout_ms(self) -> float | None:
        due = [at for at in (*(child.due for child in self._children), logs.next_summary_at()) if at is not None]
        return max(0.0, min(due) - time.monotonic()) * 1000 + 1 if due else None

    @staticmethod
    def _has_ended(child: _Child) -> bool:
        poll = select.poll()
        poll.register(child.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _reap(self, child: _Child) -> None:
        """Reap a child that has ended, and schedule its restart; a code that no restart helps ends the instance."""
        _, status = os.waitpid(child.pid, 0)
        self._poll.unregister(child.pidfd)
        os.close(child.pidfd)
        child.pidfd = -1
        code = os.waitstatus_to_exitcode(status)
        if code > 0 and code != FAILURE_CODE:
            self._exit_code = code
            return
        is_steady = time.monotonic() - child.started > STEADY_S
        child.restart_streak = 0 if is_steady else child.restart_streak + 1
        pause = RESTART_PAUSES_S[min(child.restart_streak, len(RESTART_PAUSES_S) - 1)]
        child.due = time.monotonic() + pause
        self._resources.region.count_restart(child.index)
        log.warning("restarting", worker=child.role, lane=child.lane, reason=_why_ended(code), pause_s=pause)

    def _announce_ready(self) -> None:
        region = self._resources.region
        if self._ready or any(region.process_state(c.index) is not ProcessState.READY for c in self._children):
            return
        self._ready = True
        config = self._config
        notify.notify("READY=1")
        log.info(
            "ready",
            name=config.node.name,
            interface=config.tun.interface,
            listen=config.node.listen,
            workers=config.workers.count,
            mtu=self._mtu,
        )

    # ---------------------------------------------------------------- stopping

    def _stop(self) -> None:
        """End the children, with SIGTERM first, and remove everything."""
        notify.notify("STOPPING=1")
        running = [child for child in self._children if child.pidfd >= 0]
        for child in running:
            signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in running:
            poll = select.poll()
            poll.register(child.pidfd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                log.warning("killed, as it did not end", worker=child.role, lane=child.lane)
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            os.close(child.pidfd)
            child.pidfd = -1
        res = self._resources
        res.region.wipe_keys()
        keystore.wipe(self._store)
        self._store_page.close()
        res.region.close()
        for fd in [*res.queues, *(bell for bells in res.bells for bell in bells), res.checkpoint, res.ready_bell]:
            os.close(fd)
        for sock in [*res.data, res.control_socket, *res.moves]:
            sock.close()
        res.interface.close()
        logs.write_summaries(is_end=True)
        if self._ready:
            log.info("stopped", name=self._config.node.name)


def _checked_addresses(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses if the configuration would accept them; ValueError if not."""
    found: tuple[str, ...] = CHECKS["tun.addresses"](texts)
    return found


def _why_ended(code: int) -> str:
    if code == -signal.SIGSYS:
        return "system call forbidden by its filter"
    return f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"code {code}"


assert limits.LANES_MAX * graph.STAGES == 64
