"""The control process: drives the sans-IO cores and is the only writer of the forwarding table.

    punts from workers ──▶ MembershipRouter ──joins, leaves──▶ OverlayNode ──▶ control processes of the peers
                                  │ queries                         │ routes, records
                                  ▼                                 ▼
                            lane 0's TUN queue          ForwardingTable ──▶ shared memory ──▶ stages

Everything happens in one asyncio loop: an input goes into a core, then `_drain` carries out all outputs of the cores.
This file knows no protocol.  Tasks that run without an input are in periodic.py, creation and checkpoint of the cores
in cores.py.  While control is away the stages forward by the table as it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import structlog
import zmq

from pipeline import engines, limits, logs
from pipeline.address import Address, is_multicast, show_prefix
from pipeline.control import show
from pipeline.control.admission import PeerAdmission
from pipeline.control.cores import Cores
from pipeline.control.delayed import Message
from pipeline.control.health import Fault, Health
from pipeline.control.inbox import Inbox
from pipeline.control.network_key import NetworkKeys
from pipeline.control.periodic import PeriodicTasks
from pipeline.control.publish import Publisher
from pipeline.control.resources import ControlResources
from pipeline.control.restore_detector import RestoreDetector
from pipeline.drop_reasons import MembershipCounter, MessageRefusal
from pipeline.endpoint import unreachable_peers
from pipeline.engines.api import Resend
from pipeline.errors import PipelineError, WireError
from pipeline.forwarding.route import RouteChanged
from pipeline.forwarding.sources import LocalSources
from pipeline.forwarding.table import ForwardingTable
from pipeline.io import bus, interface, rundir, seccomp
from pipeline.io.bus import Batch
from pipeline.io.dials import Dials
from pipeline.io.peers import PeerSockets
from pipeline.keys.sender import SenderKeyRotation
from pipeline.membership import log_alarms
from pipeline.membership.trace import TraceBuffer
from pipeline.messages import UNSIGNED_PROTOCOL, Punt, Reply, Request, decode_local, encode_local
from pipeline.overlay import events
from pipeline.shm import counters, repair
from pipeline.shm.links_keys import proving_link
from pipeline.shm.policy import GroupList
from pipeline.shm.punt import PuntKind
from pipeline.shm.region import ProcessState
from pipeline.wire import ip

VNET_HEADER = bytes(10)
"""Header of each packet on the TUN; zeros request no offload."""
SOCKETS_MAX = 5 * limits.NODES_MAX
"""A DEALER for each of 2,048 endpoints and of at most two keys (io/peers.py), and some more.  ZeroMQ's own limit of
1,023 is reached when a member invents that many nodes."""
GC_THRESHOLDS = (10_000, 20, 20)
"""The state of a group lives long.  With the default thresholds the search for cycles took 40 % of the time of `show
groups` for 65,536 groups, and 8 % of the time of a join."""
TIMER_RETRY_S = 1.0
"""Delay after a core raised in its timer, which is a bug in this program; a restart of control would not help."""
TIMER_MAX_S = 60.0
"""Longest delay of the timer when no core has anything due."""
LINGER_MS = 300
"""Time for ZeroMQ to send the last messages."""

log = structlog.get_logger()


def check_engine(name: str) -> None:
    """Raise ConfigError if there is no overlay engine of that name."""
    engines.load(name)


def run(resources: ControlResources) -> None:
    """Run the control process from the fork to SIGTERM."""
    if not seccomp.install_for_control():
        log.warning("no filter of system calls for this machine", worker="control")
    gc.set_threshold(*GC_THRESHOLDS)
    asyncio.run(_Control(resources).main())


class _Control:
    """Cores, sockets and timers of the control process; `show.ControlState` is what others may read of it."""

    def __init__(self, resources: ControlResources) -> None:
        now = time.monotonic()
        self.resources = resources
        self.cores = Cores.load(resources, now)
        self.node, self.membership = self.cores.node, self.cores.membership
        self._rules = self.cores.membership_rules
        self._restore_detector = RestoreDetector()
        self.table = ForwardingTable()
        self.dials = Dials(resources.config.node.peers, random=random.random, now=now)
        self.publisher = Publisher(
            resources.region,
            self.node,
            ingress_bells=resources.ingress_bells,
            egress_bells=resources.egress_bells,
            is_known_host=self.dials.is_known_host,
        )
        self.table.adopt(self.publisher.existing_entries())
        self.sources = LocalSources()
        self.trace = TraceBuffer(self.membership)
        self.admission = PeerAdmission(now)
        self._rotation = self._new_rotation(now)
        self._receive_list = GroupList(resources.config.groups)
        self._alarms = log_alarms.LogAlarms()
        self.health = self._new_health()
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._fatal_error: PipelineError | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)

    def _new_rotation(self, now: float) -> SenderKeyRotation:
        security = self.resources.config.security
        return SenderKeyRotation(
            interval_s=security.rotate_interval_s,
            packets=security.rotate_packets,
            random=random.random,
            draw=lambda: os.urandom(32),
            now=now,
        )

    def _new_health(self) -> Health:
        config = self.resources.config
        membership, flags = config.membership, interface.InterfaceFlags(config.tun.interface)
        membership_s = membership.robustness * membership.query_interval_s + 2 * membership.query_response_interval_s

        def limit_reached(counter: MembershipCounter) -> Callable[[float], str]:
            """Return a check that lasts until a member without room would have reported again."""
            text = log_alarms.STORMS[counter]
            return lambda now: text if self._alarms.has_grown_within(counter, membership_s, now) else ""

        return Health(
            {
                Fault.SHARED_MEMORY: lambda _: self.publisher.fault,
                Fault.GROUPS_LIMIT: limit_reached(MembershipCounter.GROUPS_LIMIT),
                Fault.SOURCES_LIMIT: limit_reached(MembershipCounter.SOURCES_LIMIT),
                Fault.CHECKPOINT: lambda _: self.cores.save_fault,
                Fault.INTERFACE: lambda _: flags.fault(),
            }
        )

    # ---------------------------------------------------------------- lifecycle

    async def main(self) -> None:
        """Start everything, wait for SIGTERM, and send Goodbye to the peers."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        self._loop.set_exception_handler(_log_exception)
        self._open_sockets()
        self._start_cores()
        if self.resources.service is not None:
            await self.resources.service.attach(lambda name: show.value(self, name))
        self._announce_ready()
        await self._stopping.wait()
        self._close()
        if self._fatal_error is not None:
            raise self._fatal_error

    def _open_sockets(self) -> None:
        config = self.resources.config
        inbox = Inbox(
            self.admission,
            handle=self._handle_message,
            carry_out=self._drain,
            timers=self._loop,
            clock=time.monotonic,
            cpu_time=time.thread_time,
        )
        self._peers = PeerSockets(
            self._context,
            listener=self.resources.listener,
            listen=config.node.listen,
            dials=self.dials,
            handle_messages=inbox.handle_batch,
            handle_failures=self._handle_failed_handshakes,
            pause_s=inbox.pause_s,
        )
        self._network_keys = NetworkKeys(
            sockets=self._peers,
            store=self.resources.keystore,
            node=self.node,
            rotation=self._rotation,
            grace_s=config.security.key_grace_s,
        )
        self._network_keys.start(time.monotonic())
        punts = bus.punt_receiver(self._context, rundir.punt_endpoint(config.node.name))
        bus.attach(self._loop, punts, self._handle_punts)
        self._requests = bus.request_receiver(self._context, rundir.control_endpoint(config.node.name))
        self._read_requests_again = bus.attach(self._loop, self._requests, self._handle_requests)

    def _start_cores(self) -> None:
        node = self.resources.config.node
        for peer in unreachable_peers(node.listen, node.peers):
            log.warning("peer cannot be reached: listen on [::] for both families", peer=peer, listen=node.listen)
        self._rules.log_warnings()
        now = time.monotonic()
        self.publisher.publish_sender(self.node.record)
        self.node.start(now)
        self.membership.start(now)
        self._new_periodic_tasks().start()
        self._drain(now)

    def _new_periodic_tasks(self) -> PeriodicTasks:
        return PeriodicTasks(
            loop=self._loop,
            region=self.resources.region,
            node=self.node,
            table=self.table,
            publisher=self.publisher,
            sources=self.sources,
            rotation=self._rotation,
            network_keys=self._network_keys,
            rules=self._rules,
            restore_detector=self._restore_detector,
            health=self.health,
            drain=self._drain,
            save=self.cores.save,
        )

    def _announce_ready(self) -> None:
        self.resources.region.set_process_state(0, ProcessState.READY)
        os.eventfd_write(self.resources.ready_bell, 1)

    def _close(self) -> None:
        """Send a Goodbye to all peers, and give ZeroMQ time to send it."""
        self.node.stop(time.monotonic())
        while (message := self.node.poll_transmit()) is not None:
            self._send(*message)
        self._restore_detector.close()
        self._peers.close(linger_ms=LINGER_MS)
        self._context.destroy(linger=LINGER_MS)
        logs.write_summaries(is_end=True)

    # ---------------------------------------------------------------- inputs: messages of peers

    def _handle_message(self, message: Message, now: float) -> str | None:
        """Handle a message; return the reason if it violates the protocol."""
        if len(message.parts) != 1:
            return MessageRefusal.PARTS
        sender, key_number = message.sender, message.key_number
        self.dials.host_connected(sender.address, now)
        speaks = bus.newest_protocol(sender.connection)
        data = message.parts[0].bytes
        reason = self.node.handle_message(sender.address, data, now, network_key=key_number, speaks=speaks)
        if self.node.proven_sender is not None:
            self.admission.identify(sender, self.node.proven_sender)
        self._network_keys.note_messages(key_number, now)
        return reason

    def _handle_failed_handshakes(self, batch: Batch) -> None:
        for parts in batch:
            log.warning("control connection refused", reason=bus.read_failure(parts))

    # ---------------------------------------------------------------- inputs: punts of the workers

    def _handle_punts(self, batch: Batch) -> None:
        now = time.monotonic()
        for parts in batch:
            try:
                punt = decode_local(parts[-1].bytes)
                if isinstance(punt, Punt):
                    self._handle_punt(punt, now)
            except WireError:
                continue  # malformed punt
        self._drain(now)
        self._log_alarms(now)

    def _handle_punt(self, punt: Punt, now: float) -> None:
        match punt.kind:
            case PuntKind.MEMBERSHIP:
                self.membership.handle_packet(punt.packet, now)
            case PuntKind.SOURCE:
                group = ip.destination(punt.packet)
                if group is not None and is_multicast(group) and self.sources.add(group):
                    self.node.register_source(group, now)
            case PuntKind.ENDPOINT:
                peer = self.publisher.take_answered_endpoint(punt.packet)
                if peer is not None:
                    self.node.handle_echo(peer, now)
            case PuntKind.CANDIDATE:
                self.publisher.take_candidate(punt.packet)
            case PuntKind.FORGERY:
                self._handle_forgery(proving_link(punt.packet), now)
            case PuntKind.GAP:
                self._handle_gap(repair.read_gap(punt.packet), now)

    def _handle_forgery(self, link: int, now: float) -> None:
        if self._rotation.renew_after_forgery(self.node.record, now):
            [peer] = self.publisher.names_of([link])
            log.warning("another node forges this node's datagrams: its sender key is renewed", peer=peer)

    def _handle_gap(self, gap: repair.Gap, now: float) -> None:
        group = self.table.group_of(gap.stream)
        via = self.publisher.node_of(gap.via) if gap.via is not None else None
        if group is not None:
            self.node.handle_gap(group, gap.origin, gap.numbers, now, via=via)

    def _log_alarms(self, now: float) -> None:
        """Log membership storms and changes of the querier."""
        if not self._alarms.is_due(now):
            return
        counts = self.membership.counters | {"report_limit": counters.value(self.resources.region, "report_limit")}
        for notice in self._alarms.tick(counts, self.membership.roles(), now):
            log.warning(notice.text, kind=notice.reason, reason=notice.reason, count=notice.count)

    # ---------------------------------------------------------------- inputs: requests of the command line

    def _handle_requests(self, batch: Batch) -> None:
        for *route, body in batch:
            try:
                request = decode_local(body.bytes)
                reply = self._reply_to(request) if isinstance(request, Request) else Reply(ok=False, error="no request")
            except WireError as error:
                reply = Reply(ok=False, error=str(error))
            with contextlib.suppress(zmq.ZMQError):
                self._requests.send_multipart([*(part.bytes for part in route), encode_local(reply)], zmq.DONTWAIT)
        self._read_requests_again()

    def _reply_to(self, request: Request) -> Reply:
        match request.verb:
            case "reload":
                now = time.monotonic()
                error = self._rules.reload(self.node, now)
                if not error and (self.resources.is_sealed or not self.resources.config.security.authority):
                    error = self._network_keys.reload(request.arguments, now)
                self._drain(now)
                return Reply(ok=not error, error=error)
            case "forget":
                error = self._rules.forget(request.arguments.get("name", ""), time.monotonic())
                return Reply(ok=not error, error=error)
            case "trace":
                return Reply(ok=True, value=show.trace(self, request.arguments))
            case "status":
                return Reply(ok=True, value=show.status(self))
            case "show" if request.noun in show.VIEWS:
                return Reply(ok=True, value=show.value(self, request.noun))
        return Reply(ok=False, error=f"{request.verb} {request.noun}: no such request")

    # ---------------------------------------------------------------- outputs of the cores

    def _drain(self, now: float) -> None:
        """Carry out all outputs of the cores: events before messages, as OverlayNode's law demands."""
        changed = False
        while (change := self.membership.poll_event()) is not None:
            changed = True
            is_wanted = change.source_filter is not None and self._receive_list.allows(change.group)
            self.table.set_local(change.group, is_wanted)
            if change.source_filter is None or not is_wanted:
                self.node.leave(change.group, now)
            else:
                self.node.join(change.group, change.source_filter, now)
        while (event := self.node.poll_event()) is not None:
            changed |= not isinstance(event, Resend)
            self._handle_event(event)
        while (entry := self.table.poll_change()) is not None:
            self.publisher.publish_entry(entry)
        self.publisher.flush()
        while (message := self.node.poll_transmit()) is not None:
            self._send(*message)
        while (packet := self.membership.poll_transmit()) is not None:
            self._write_tun(packet)
        if changed:
            self.cores.save_soon()
        self._set_timer(now)

    def _handle_event(self, event: events.NodeEvent) -> None:
        match event:
            case RouteChanged():
                self.table.set_route(event)
            case Resend(group=group):
                self.publisher.publish_repair_request(event, self.table.stream_of(group))
            case events.RecordChanged() | events.RecordGone() | events.ProbingChanged() | events.PeerChanged():
                self._handle_peer_event(event)
            case events.AddressOwnersChanged(owners=owners):
                self.table.set_address_owners(owners, own=self.node.record.node_id)
            case events.AddressMoved(addresses=moved):
                self.publisher.publish_own_addresses(self.node.record)
                self._move_addresses(moved)
            case events.NodeIdMoved():
                self.publisher.publish_sender(self.node.record)
            case events.RevocationsChanged(revocation_list=revocation_list, excluded=excluded):
                self._rules.keep_revocations(revocation_list)
                self._network_keys.exclude(time.monotonic())
                log.info("the authority's revocation list has changed", excluded=list(excluded))
            case events.Notice(kind=kind, peer=peer, text=text):
                if kind in (events.NoticeKind.NAME_TAKEN, events.NoticeKind.EXCLUDED):
                    self._fatal_error = PipelineError(text)
                    self._stopping.set()
                else:
                    log.warning(text, kind=kind.value, peer=peer, reason=kind.value)

    def _handle_peer_event(
        self, event: events.RecordChanged | events.RecordGone | events.ProbingChanged | events.PeerChanged
    ) -> None:
        record, link = event.record, event.link
        match event:
            case events.RecordChanged(reporter=reporter):
                self.dials.record_received(record.endpoint, reporter)
                self.table.set_link(record.node_id, link)
                old_endpoint = self.publisher.endpoint_of(link)
                self.publisher.publish_record(record, link, probe_keys=event.probe_keys)
                if old_endpoint is not None and not self.publisher.has_endpoint(old_endpoint):
                    self._peers.close_sender(old_endpoint)
            case events.RecordGone():
                self.table.remove_link(record.node_id)
                self.publisher.remove_record(record, link)
                if not self.publisher.has_endpoint(record.endpoint):  # a node that was upgraded has another id there
                    self._peers.close_sender(record.endpoint)
            case events.ProbingChanged(is_probed=is_probed):
                self.publisher.publish_link(record, link, is_probed=is_probed)
            case events.PeerChanged(is_up=up, why=why):
                self.table.set_up(record.node_id, up=up)
                if not up and not record.is_signed:
                    # its mark is in use until the peer notices its end
                    self._peers.close_sender(record.endpoint, UNSIGNED_PROTOCOL)
                log.info("link up" if up else "link down", peer=record.name, endpoint=record.endpoint, reason=why)

    def _move_addresses(self, moved: tuple[tuple[Address, int], ...]) -> None:
        new = tuple(show_prefix(address, prefix) for address, prefix in moved)
        log.warning("overlay addresses moved, as another node has them", old=self.cores.addresses, new=new)
        with contextlib.suppress(BlockingIOError):
            self.resources.moves.send(" ".join(new).encode())
        self.cores.addresses = new

    def _send(self, endpoint: str, data: bytes) -> None:
        try:
            self._peers.send(endpoint, data)
        except zmq.ZMQError as error:
            log.warning("no connection to a peer", endpoint=endpoint, reason=str(error))

    def _write_tun(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # interface down, or its queue full: the next query makes up for it
            os.write(self.resources.queue, VNET_HEADER + packet)

    # ---------------------------------------------------------------- time

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = [t for t in (self.membership.poll_timeout(), self.node.poll_timeout()) if t is not None]
        delay_s = max(0.0, min(due) - now) if due else TIMER_MAX_S
        self._timer = self._loop.call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        now = time.monotonic()
        self._timer = self._loop.call_later(TIMER_RETRY_S, self._on_timer)  # replaced below if nothing raises
        self.membership.handle_timeout(now)
        self.node.handle_timeout(now)
        self._drain(now)
        self._log_alarms(now)


def _log_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log in one line that a core raised, which is a bug in this program; the loop goes on with the next input."""
    error = context.get("exception")
    name = type(error).__name__
    log.error(context["message"], kind=f"exception {name}", reason=f"{name}: {error}" if error else "")
