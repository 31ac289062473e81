"""The control process: drives the sans-IO cores and is the only writer of the forwarding table.

    punts from workers ──▶ MembershipRouter ──joins, leaves──▶ OverlayNode ──▶ peers' control processes
                                  │ queries                         │ routes, records
                                  ▼                                 ▼
                            lane 0's TUN queue          ForwardingTable ──▶ shared memory ──▶ stages

Everything happens in one asyncio loop: an input goes into a core, then `_drain` carries out all that the cores have
to say.  It knows no protocol itself, and what is looked at without an input stands in periodic.py.  Its soft state is
saved in the checkpoint, from which a successor goes on as if nothing had happened; while there is none the stages
forward by the table as it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog
import zmq

from pipeline import engines, limits
from pipeline.address import Address, is_multicast, link_local, parse_prefix, show_prefix
from pipeline.config import Config
from pipeline.control import show
from pipeline.control.network_key import NetworkKeys
from pipeline.control.periodic import PeriodicTasks
from pipeline.control.publish import Publisher
from pipeline.drop_reasons import MessageRefusal
from pipeline.endpoint import unreachable_peers
from pipeline.engines.api import Resend
from pipeline.errors import PipelineError, WireError
from pipeline.forwarding.route import RouteChanged
from pipeline.forwarding.sources import LocalSources
from pipeline.forwarding.table import ForwardingTable
from pipeline.io import bus, rundir, seccomp
from pipeline.io.checkpoint import Checkpoint
from pipeline.io.peers import MessageRates, PeerSockets
from pipeline.keys.sender import SenderKeyRotation
from pipeline.membership.log_alarms import LogAlarms
from pipeline.membership.querier_address import querier_addresses
from pipeline.membership.router import MembershipRouter
from pipeline.membership.trace import TraceBuffer
from pipeline.messages import Punt, Reply, Request, decode_local, encode_local
from pipeline.overlay import events
from pipeline.overlay.node import NodeConfig, OverlayNode
from pipeline.shm import counters, repair
from pipeline.shm.policy import GroupList
from pipeline.shm.punt import PuntKind
from pipeline.shm.region import ProcessState, Region
from pipeline.wire import ip

VNET_HEADER = bytes(10)
"""Before each packet on the TUN: no offload asked for."""
CHECKPOINT_DELAY_S = 0.2
"""Changes are saved together."""
CHECKPOINT_SHARE = 20
"""Saving waits that many times as long as it took last, so that it costs a twentieth of a core at the most."""
SOCKETS_MAX = 5 * limits.NODES_MAX
"""A DEALER for each of 2,048 endpoints and two keys at the most (io/peers.py), and a few: ZeroMQ's own 1,023 end when a
member has invented as many nodes."""
RAISED_S = 1.0
"""A core that raises is our bug; it is asked again after so long, as its successor would find the same."""
CUT_OFF_MAX = 1024
"""Connections whose messages are not looked at any more; beyond it the oldest are forgotten."""

log = structlog.get_logger()


class Service(Protocol):
    """Something that is served beside control's own work, in its event loop: the metrics."""

    def fileno(self) -> int:
        """Its listening descriptor, opened before the fork."""

    async def attach(self, control: _Control) -> None:
        """Serve from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlResources:
    """What the supervisor hands to control."""

    config: Config
    keystore: int
    """The network keys; without one it is --insecure."""
    addresses: tuple[str, ...]
    mtu: int
    region: Region
    queue: int
    """Lane 0's TUN queue: control only writes to it."""
    listener: int
    checkpoint: int
    ingress_bells: tuple[int, ...]
    egress_bells: tuple[int, ...]
    ready_bell: int
    moves: socket.socket
    """To the supervisor, which has the right to change the interface's addresses."""
    started: float
    """When the instance was launched, on the monotonic clock."""
    service: Service | None = None

    @property
    def is_sealed(self) -> bool:
        """Whether the instance has a network key."""
        return not self.config.node.insecure


class _State(msgspec.Struct, frozen=True):
    """The checkpoint."""

    membership: bytes
    overlay: bytes
    addresses: tuple[str, ...]


def check_engine(name: str) -> None:
    """ConfigError if there is no overlay engine of that name."""
    engines.load(name)


def run(resources: ControlResources) -> None:
    """The life of the control process, from fork to SIGTERM."""
    if not seccomp.install_for_control():
        log.warning("no filter of system calls for this machine", worker="control")
    asyncio.run(_Control(resources).main())


class _Control:
    def __init__(self, resources: ControlResources) -> None:
        self.resources = resources
        self._loop: asyncio.AbstractEventLoop
        self._stopping = asyncio.Event()
        self._end: PipelineError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        self._save_took_s = 0.0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
        self._cut_off: dict[bytes, None] = {}
        self._flood = MessageRates()
        self.refusals: dict[str, int] = dict.fromkeys(map(str, MessageRefusal), 0)
        """Messages of peers that were refused, by reason."""
        self._told: set[str] = set()
        now = time.monotonic()
        self._checkpoint = Checkpoint(resources.checkpoint)
        self.addresses = resources.addresses
        self.node = self._new_node(now)
        self.membership = self._new_membership(now)
        self.table = ForwardingTable()
        self.publisher = Publisher(
            resources.region,
            self.node,
            ingress_bells=resources.ingress_bells,
            egress_bells=resources.egress_bells,
        )
        self.sources = LocalSources()
        self._rotation = self._new_rotation(now)
        self._receives = GroupList(resources.config.groups)
        self._restore(now)
        self.trace = TraceBuffer(self.membership)
        self._watch = LogAlarms()

    # ---------------------------------------------------------------- birth

    def _new_node(self, now: float) -> OverlayNode:
        config = self.resources.config
        return OverlayNode(
            NodeConfig(
                name=config.node.name,
                endpoint=config.node.listen,
                incarnation=time.time_ns() // 1_000_000,
                sender_key=os.urandom(32) if self.resources.is_sealed else b"",
                key_epoch=os.urandom(1)[0],
                lanes=config.lanes,
                engine=config.overlay.engine,
                engine_options=config.overlay.options.get(config.overlay.engine, {}),
                peers=config.node.peers,
                addresses=tuple(parse_prefix(text) for text in config.tun.addresses),
            ),
            random=random.random,
            now=now,
        )

    def _new_membership(self, now: float) -> MembershipRouter:
        config = self.resources.config.membership
        v4, v6 = querier_addresses(config.querier_address, self.resources.addresses)
        return MembershipRouter(config, querier_v4=v4, querier_v6=v6, mtu=self.resources.mtu, now=now)

    def _restore(self, now: float) -> None:
        """Goes on from a predecessor's checkpoint, if there is one; the table's entries are kept for a while anyway."""
        self.table.adopt(self.publisher.existing_entries())
        data = self._checkpoint.load()
        if data is None:
            return
        try:
            state = msgspec.msgpack.decode(data, type=_State)
            self.node.restore(state.overlay, now)
            self.membership.restore(state.membership, now)
            self.addresses = state.addresses
        except (msgspec.DecodeError, ValueError) as error:  # a WireError is a ValueError
            log.warning("starting afresh", reason=str(error))
            self.node, self.membership = self._new_node(now), self._new_membership(now)
            self.publisher.node = self.node

    def _new_rotation(self, now: float) -> SenderKeyRotation:
        security = self.resources.config.security
        return SenderKeyRotation(
            interval_s=security.rotate_interval_s,
            packets=security.rotate_packets,
            random=random.random,
            draw=lambda: os.urandom(32),
            now=now,
        )

    def _new_looks(self) -> PeriodicTasks:
        return PeriodicTasks(
            loop=self._loop,
            region=self.resources.region,
            node=self.node,
            table=self.table,
            publisher=self.publisher,
            sources=self.sources,
            rotation=self._rotation,
            network_keys=self._network_keys,
            drain=self._drain,
            save=self._save,
        )

    # ---------------------------------------------------------------- life

    async def main(self) -> None:
        """Until SIGTERM."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        self._loop.set_exception_handler(_tell_failure)
        name = self.resources.config.node.name
        self._peers = PeerSockets(
            self._context,
            listener=self.resources.listener,
            listen=self.resources.config.node.listen,
            take=self._take_messages,
            refuse=self._take_failures,
        )
        self._network_keys = NetworkKeys(
            sockets=self._peers,
            store=self.resources.keystore,
            node=self.node,
            rotation=self._rotation,
            grace_s=self.resources.config.security.key_grace_s,
        )
        self._network_keys.start(time.monotonic())
        punts = bus.punt_receiver(self._context, rundir.punt_endpoint(name))
        self._requests = bus.request_receiver(self._context, rundir.control_endpoint(name))
        bus.attach(self._loop, punts, self._take_punts)
        self._look_for_requests = bus.attach(self._loop, self._requests, self._take_requests)
        node = self.resources.config.node
        for peer in unreachable_peers(node.listen, node.peers):
            log.warning("peer cannot be reached: listen on [::] for both families", peer=peer, listen=node.listen)
        now = time.monotonic()
        self.publisher.publish_sender(self.node.record)
        self.node.start(now)
        self.membership.start(now)
        self._new_looks().start()
        self._drain(now)
        if self.resources.service is not None:
            await self.resources.service.attach(self)
        self.resources.region.set_process_state(0, ProcessState.READY)
        os.eventfd_write(self.resources.ready_bell, 1)
        await self._stopping.wait()
        self._say_goodbye()
        if self._end is not None:
            raise self._end

    def _say_goodbye(self) -> None:
        """Tells all peers, and gives ZeroMQ a moment to send it."""
        self.node.stop(time.monotonic())
        while (message := self.node.poll_transmit()) is not None:
            self._send(*message)
        self._peers.close(linger_ms=300)
        self._context.destroy(linger=300)

    # ---------------------------------------------------------------- inputs

    def _take_messages(self, number: int, batch: list[list[zmq.Frame]]) -> None:
        """Messages that came by the network key of that number."""
        now = time.monotonic()
        for identity, *parts in batch:
            if identity.bytes in self._cut_off:
                continue
            hint = str(parts[-1].get("Peer-Address")) if parts else ""
            if not self._flood.allows(identity.bytes, now):
                self._count_refusal(MessageRefusal.MESSAGE_RATE)
                self._tell_once("peer sends too many messages", peer=hint)
                continue
            if len(parts) == 1:
                reason = self.node.handle_message(hint, parts[0].bytes, now, network_key=number)
            else:
                reason = MessageRefusal.PARTS
            if reason is not None:
                self._count_refusal(reason)
                self._cut(identity.bytes, hint, reason)
        self._network_keys.note(number, now)
        self._drain(now)

    def _count_refusal(self, reason: str) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def _cut(self, identity: bytes, peer: str, reason: str) -> None:
        while len(self._cut_off) >= CUT_OFF_MAX:
            del self._cut_off[next(iter(self._cut_off))]
        self._cut_off[identity] = None
        self._tell_once("peer cut off", peer=peer, reason=reason)

    def _take_failures(self, batch: list[list[zmq.Frame]]) -> None:
        for parts in batch:
            self._tell_once("control connection refused", reason=bus.read_failure(parts))

    def _take_punts(self, batch: list[list[zmq.Frame]]) -> None:
        now = time.monotonic()
        for parts in batch:
            with contextlib.suppress(WireError):
                punt = decode_local(parts[-1].bytes)
                if isinstance(punt, Punt):
                    self._take_punt(punt, now)
        self._drain(now)
        self._watch_membership(now)

    def _take_punt(self, punt: Punt, now: float) -> None:
        match punt.kind:
            case PuntKind.MEMBERSHIP:
                self.membership.handle_packet(punt.packet, now)
            case PuntKind.SOURCE:
                group = ip.destination(punt.packet)
                if group is not None and is_multicast(group) and self.sources.add(group):
                    self.node.register_source(group, now)
            case PuntKind.ENDPOINT:
                self.publisher.endpoint_moved(punt.packet)
            case PuntKind.GAP:
                self._take_gap(repair.read_gap(punt.packet), now)

    def _take_gap(self, gap: repair.Gap, now: float) -> None:
        group = self.table.group_of(gap.stream)
        via = self.publisher.node_of(gap.via) if gap.via is not None else None
        if group is not None:
            self.node.handle_gap(group, gap.origin, gap.numbers, now, via=via)

    def _watch_membership(self, now: float) -> None:
        """Says in the log what an operator should know, once."""
        if not self._watch.is_due(now):
            return
        counts = self.membership.counters | {"report_limit": counters.value(self.resources.region, "report_limit")}
        for notice in self._watch.tick(counts, self.membership.roles(), now):
            log.warning(notice.text, reason=notice.reason, count=notice.count)

    def _take_requests(self, batch: list[list[zmq.Frame]]) -> None:
        for *route, body in batch:
            try:
                request = decode_local(body.bytes)
                reply = self._answer(request) if isinstance(request, Request) else Reply(ok=False, error="no request")
            except WireError as error:
                reply = Reply(ok=False, error=str(error))
            with contextlib.suppress(zmq.ZMQError):
                self._requests.send_multipart([*(part.bytes for part in route), encode_local(reply)], zmq.DONTWAIT)
        self._look_for_requests()

    def _answer(self, request: Request) -> Reply:
        if request.verb == "reload":
            error = self._network_keys.reload(request.arguments, time.monotonic())
            self._drain(time.monotonic())
            return Reply(ok=not error, error=error)
        if request.verb == "trace":
            return Reply(ok=True, value=show.trace(self, request.arguments))
        view = show.VIEWS.get(request.noun if request.verb == "show" else request.verb)
        if view is None:
            return Reply(ok=False, error=f"{request.verb} {request.noun}: nothing known of that")
        return Reply(ok=True, value=view(self))

    # ---------------------------------------------------------------- what the cores want done

    def _drain(self, now: float) -> None:
        """Carries out everything the cores have to say, in the order that their laws ask for."""
        changed = False
        while (change := self.membership.poll_event()) is not None:
            changed = True
            is_wanted = change.source_filter is not None and self._receives.allows(change.group)
            self.table.set_local(change.group, is_wanted)
            if change.source_filter is None or not is_wanted:
                self.node.leave(change.group, now)
            else:
                self.node.join(change.group, change.source_filter, now)
        while (event := self.node.poll_event()) is not None:
            changed |= not isinstance(event, Resend)
            self._take_event(event)
        while (entry := self.table.poll_change()) is not None:
            self.publisher.publish_entry(entry)
        self.publisher.flush()
        while (message := self.node.poll_transmit()) is not None:
            self._send(*message)
        while (packet := self.membership.poll_transmit()) is not None:
            self._write_tun(packet)
        if changed:
            self._save_soon()
        self._set_timer(now)

    def _take_event(self, event: events.NodeEvent) -> None:
        match event:
            case RouteChanged():
                self.table.set_route(event)
            case Resend(group=group):
                self.publisher.publish_resend(event, self.table.stream_of(group))
            case events.RecordChanged(record=record, link=link):
                self.table.set_link(record.node_id, link)
                left = self.publisher.endpoint_of(link)
                self.publisher.publish_record(record, link)
                if left not in (None, record.endpoint):
                    self._peers.close_sender(left)
            case events.RecordGone(record=record, link=link):
                self.table.remove_link(record.node_id)
                self.publisher.remove_record(record, link)
                self._peers.close_sender(record.endpoint)
            case events.PeerChanged(record=record, link=link, is_up=up, why=why):
                self.table.set_up(record.node_id, up=up)
                self.publisher.publish_link(record, link, up=up)
                log.info("link up" if up else "link down", peer=record.name, endpoint=record.endpoint, reason=why)
            case events.AddressOwnersChanged(owners=hosts):
                local = {link_local(address): node for address, node in hosts.items() if len(address) == 16}
                self.table.set_address_owners({**local, **hosts}, own=self.node.record.node_id)
            case events.AddressMoved(addresses=moved):
                self.publisher.publish_own_addresses(self.node.record)
                self._move_addresses(moved)
            case events.NodeIdMoved():
                self.publisher.publish_sender(self.node.record)
            case events.Notice(kind=events.NoticeKind.NAME_TAKEN, text=text):
                self._end = PipelineError(f"{text}: choose another --name")
                self._stopping.set()
            case events.Notice(kind=kind, text=text):
                log.warning(text, reason=kind.value)

    def _move_addresses(self, moved: tuple[tuple[Address, int], ...]) -> None:
        new = tuple(show_prefix(address, prefix) for address, prefix in moved)
        log.warning("overlay addresses moved, as another node has them", old=self.addresses, new=new)
        with contextlib.suppress(BlockingIOError):
            self.resources.moves.send(" ".join(new).encode())
        self.addresses = new

    def _send(self, endpoint: str, data: bytes) -> None:
        try:
            self._peers.send(endpoint, data)
        except zmq.ZMQError as error:
            self._tell_once("no connection to a peer", endpoint=endpoint, reason=str(error))

    def _write_tun(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # interface down, or its queue full: the next query repairs it
            os.write(self.resources.queue, VNET_HEADER + packet)

    def _tell_once(self, text: str, **fields: str) -> None:
        line = f"{text} {sorted(fields.items())}"
        if line not in self._told and len(self._told) < CUT_OFF_MAX:
            self._told.add(line)
            log.warning(text, **fields)

    # ---------------------------------------------------------------- time

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = [t for t in (self.membership.poll_timeout(), self.node.poll_timeout()) if t is not None]
        delay = max(0.0, min(due) - now) if due else 60.0
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        now = time.monotonic()
        self._timer = self._loop.call_later(RAISED_S, self._on_timer)  # replaced below if nothing raises
        self.membership.handle_timeout(now)
        self.node.handle_timeout(now)
        self._drain(now)
        self._watch_membership(now)

    def _save_soon(self) -> None:
        if self._save_timer is None:
            delay = max(CHECKPOINT_DELAY_S, CHECKPOINT_SHARE * self._save_took_s)
            self._save_timer = self._loop.call_later(delay, self._save)

    def _save(self) -> None:
        self._save_timer = None
        now = time.monotonic()
        state = _State(self.membership.snapshot(now), self.node.snapshot(now), self.addresses)
        self._checkpoint.save(msgspec.msgpack.encode(state))
        self._save_took_s = time.monotonic() - now


def _tell_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An input that made a core raise is our bug: one line, and the next input has its turn."""
    error = context.get("exception")
    log.error(context["message"], reason=f"{type(error).__name__}: {error}" if error else "")
