"""Values of `pipeline show` and `pipeline status`: plain JSON values, made on demand from control's state.

This module changes nothing.  The names of the fields are a contract with the users of `--json`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import psutil

from pipeline import __version__
from pipeline.address import Address, show, show_prefix
from pipeline.control.admission import PeerAdmission
from pipeline.control.cores import Cores
from pipeline.control.health import Health
from pipeline.control.nouns import Noun
from pipeline.control.publish import Publisher
from pipeline.control.resources import ControlResources
from pipeline.drop_reasons import MembershipCounter, MessageRefusal
from pipeline.forwarding.route import FibKey, Kind
from pipeline.forwarding.sources import LocalSources
from pipeline.forwarding.table import ForwardingTable
from pipeline.io.dials import Dials
from pipeline.keys.identity import fingerprint
from pipeline.membership.trace import TraceBuffer
from pipeline.shm import counters, ring
from pipeline.shm.region import ProcessState
from pipeline.shm.stage import Stage
from pipeline.workers import graph

Row: TypeAlias = dict[str, Any]


class ControlState(Protocol):
    """State of the control process that this module reads."""

    resources: ControlResources
    cores: Cores
    table: ForwardingTable
    publisher: Publisher
    sources: LocalSources
    admission: PeerAdmission
    dials: Dials
    trace: TraceBuffer
    health: Health


View: TypeAlias = Callable[[ControlState], Any]
VIEWS: dict[str, View] = {}
"""Function that makes the value of a noun."""


def _view(noun: Noun) -> Callable[[View], View]:
    """Register the function that makes the value of a noun."""

    def register(function: View) -> View:
        VIEWS[noun] = function
        return function

    return register


def value(control: ControlState, name: str) -> Any:
    """Return the value of a noun, or of "status"; KeyError for any other name."""
    return status(control) if name == "status" else VIEWS[name](control)


# ---------------------------------------------------------------- nouns


def status(control: ControlState) -> Row:
    """Return one object about the instance as a whole."""
    config, region = control.resources.config, control.resources.region
    links = control.cores.node.links()
    indices = [0, *(worker.process for worker in graph.workers(config.workers.count))]
    faults = control.health.faults(time.monotonic())
    is_ready = all(region.process_state(index) is ProcessState.READY for index in indices)
    return {
        "name": config.node.name,
        "version": __version__,
        "ready": is_ready,
        "state": ("degraded" if faults else "ready") if is_ready else "starting",
        "degraded": faults,
        "pid": os.getppid(),
        "uptime_s": round(time.monotonic() - control.resources.started, 1),
        "interface": config.tun.interface,
        "mtu": control.resources.mtu,
        "addresses": list(control.cores.addresses),
        "listen": config.node.listen,
        "workers": config.workers.count,
        "overlay": config.overlay.engine,
        "sealed": control.resources.is_sealed,
        "key": os.path.abspath(control.resources.config.node.key) if control.resources.config.node.key else None,
        "key_epoch": control.cores.node.record.key_epoch,
        "node_id": f"{control.cores.node.record.node_id:08x}",
        "identity": fingerprint(control.cores.node.record.public_key),
        "authority": bool(control.resources.config.security.authority),
        "peers_up": sum(link.is_up for link in links),
        "peers_known": len(links),
        "groups_local": len(control.cores.membership.groups(time.monotonic())),
    }


@_view(Noun.LINKS)
def links(control: ControlState) -> list[Row]:
    """Return one row for each peer; `peer` is null for a configured peer that has not replied yet."""
    rows: list[Row] = []
    for link in control.cores.node.links():
        figures = control.publisher.link_figures(link.link)
        rows.append(
            {
                "peer": link.name or None,
                "endpoint": link.endpoint,
                "addresses": [show_prefix(*address) for address in link.addresses],
                "state": "up" if link.is_up else "down",
                "rtt_ms": round(figures.rtt_ns / 1e6, 3),
                "loss": round(figures.loss_ppm / 1e6, 6),
                "tx_bytes": figures.tx_bytes,
                "rx_bytes": figures.rx_bytes,
                "tx_datagrams": figures.tx_datagrams,
                "rx_datagrams": figures.rx_datagrams,
                "tx_errors": figures.tx_errors,
            }
        )
    return rows


@_view(Noun.GROUPS)
def groups(control: ControlState) -> list[Row]:
    """Return one row for each group with members here or elsewhere.

    Fields of the local querier are null for a group without local members.
    """
    node = control.cores.node
    rows: dict[Address, Row] = {}
    for view in control.cores.membership.groups(time.monotonic()):
        rows[view.group] = {
            "group": show(view.group),
            "filter_mode": view.filter_mode.value,
            "sources": sorted(map(show, view.sources)) if view.sources else [],
            "requested": sorted(map(show, view.requested)) if view.requested else [],
            "compatibility": view.compatibility,
            "expires_s": round(view.expires_s, 3),
            "members": node.members(view.group),
            "local": True,
        }
    local_count = len(rows)
    for group in node.groups() - rows.keys():
        members = node.members(group)
        if members:
            rows[group] = {
                "group": show(group),
                "filter_mode": None,
                "sources": [],
                "requested": [],
                "compatibility": None,
                "expires_s": None,
                "members": members,
                "local": False,
            }
    if len(rows) == local_count:
        return list(rows.values())  # sorted, as the router lists its groups in the order of addresses
    return [rows[group] for group in sorted(rows, key=lambda address: (len(address), address))]


@_view(Noun.ROUTES)
def routes(control: ControlState) -> list[Row]:
    """Return one row for each forwarding entry; `turn` is the stripe, or null for a stream without stripes."""
    name = control.cores.node.name_of
    return [
        {
            "side": entry.key.side.value,
            "kind": entry.key.kind.value,
            "group": show(entry.key.group),
            "source": show(entry.key.source) if entry.key.source else None,
            "origin": name(entry.key.origin) if entry.key.origin else None,
            "via": name(entry.key.via) if entry.key.via else None,
            "turn": entry.key.stripe if entry.key.stripe or entry.stripes > 1 else None,
            "next_hops": sorted(control.publisher.names_of(entry.links)),
            "local": entry.local,
            "stream": entry.stream,
            "why": entry.why,
        }
        for entry in sorted(control.table.entries(), key=lambda entry: _sort_key(entry.key))
    ]


def _sort_key(key: FibKey) -> tuple[Any, ...]:
    """Return the sort key of an entry: flooded ones first, then addresses, then groups, those of each together."""
    kind = (Kind.FLOOD, Kind.UNICAST, Kind.GROUP, Kind.SOURCE).index(key.kind)
    return kind, len(key.group), key.group, key.source or b"", key.side.value, key.origin or 0, key.via or 0, key.stripe


@_view(Noun.RINGS)
def rings(control: ControlState) -> list[Row]:
    """Return one row for each ring."""
    return ring.levels(control.resources.region)


_processes: dict[int, psutil.Process] = {}
"""Process of each index in the region's process table, with the CPU time at the last call of `_cpu_percent`."""


def _cpu_percent(index: int, pid: int) -> float:
    """Return the CPU share of a process since the last call, or since its start at the first call."""
    try:
        process = _processes.get(index)
        if process is not None and process.pid == pid:
            return round(process.cpu_percent(), 2)
        process = _processes[index] = psutil.Process(pid)
        process.cpu_percent()
        times, age_s = process.cpu_times(), time.time() - process.create_time()
        return round(100 * (times.user + times.system) / max(age_s, 0.01), 2)
    except psutil.Error:
        _processes.pop(index, None)
        return 0.0


_PACKET_COUNTERS = {
    Stage.TUN_INGRESS: "tun_rx_packets",
    Stage.CLASSIFY: "sealed",
    Stage.OVERLAY_EGRESS: "overlay_tx_datagrams",
    Stage.OVERLAY_INGRESS: "overlay_rx_datagrams",
}
"""Counter of the packets that a stage has handled."""


@_view(Noun.WORKERS)
def workers(control: ControlState) -> list[Row]:
    """Return one row for control and one for each worker process."""
    region = control.resources.region
    processes = [graph.Worker("control", 0, ()), *graph.workers(control.resources.config.workers.count)]
    rows = []
    for worker in processes:
        index = worker.process if worker.stages else 0
        pid = region.process_pid(index)
        rows.append(
            {
                "role": worker.role,
                "lane": worker.lane,
                "pid": pid,
                "state": region.process_state(index).name.lower(),
                "restarts": region.process_restarts(index),
                "cpu_percent": _cpu_percent(index, pid),
                "packets": _packets(control, worker),
                "stages": [stage.name.lower() for stage in worker.stages],
            }
        )
    return rows


def _packets(control: ControlState, worker: graph.Worker) -> int:
    """Return the packets that a worker's stages have handled; for control, membership reports."""
    if not worker.stages:
        return control.cores.membership.counters[MembershipCounter.REPORTS_RECEIVED]
    return sum(
        counters.value(control.resources.region, _PACKET_COUNTERS[stage], lane=worker.lane, stage=stage)
        for stage in worker.stages
    )


@_view(Noun.COUNTERS)
def counts(control: ControlState) -> Row:
    """Return all counters of the data plane, of membership, of refused messages and of the interface."""
    found: Row = counters.totals(control.resources.region)
    found["membership"] = dict(control.cores.membership.counters)
    found["refused"] = control.admission.refusals | {
        MessageRefusal.RECORD_ENDPOINT: control.cores.node.directory.refused_endpoints,
        MessageRefusal.DIAL: control.dials.refused,
        MessageRefusal.REPLAY: control.cores.node.receiver.replays,
    }
    found["sources"] = len(control.sources)
    interface = psutil.net_io_counters(pernic=True, nowrap=False).get(control.resources.config.tun.interface)
    found["drops"]["tun_queue"] = interface.dropout if interface else 0
    return found


@_view(Noun.GRAPH)
def graph_of(control: ControlState) -> Row:
    """Return the overlay as this node knows it, and the next hops of each group.

    A packet is never relayed back to the node it came from, so `to` leaves `via` out.  An entry by `via` is listed
    only if its next hops differ from those of the general entry by more than that.
    """
    peers = [link for link in control.cores.node.links() if link.name]
    rows = [row for row in routes(control) if row["kind"] == "group"]
    relays = [row for row in rows if row["side"] == "overlay"]
    plain = {_stream(row): set(row["next_hops"]) for row in relays if row["via"] is None}
    for row in relays:
        row["next_hops"] = [name for name in row["next_hops"] if name != row["via"]]
    own = control.resources.config.node.name
    return {
        "nodes": [own, *(link.name for link in peers)],
        "edges": [{"from": own, "to": link.name, "state": "up" if link.is_up else "down"} for link in peers],
        "trees": [
            {
                "group": row["group"],
                "source": row["source"],
                "turn": row["turn"],
                "from": own,
                "to": row["next_hops"],
                "why": row["why"],
            }
            for row in rows
            if row["side"] == "host"
        ],
        "relays": [
            {
                "group": row["group"],
                "source": row["source"],
                "origin": row["origin"],
                "via": row["via"],
                "turn": row["turn"],
                "at": own,
                "to": row["next_hops"],
                "why": row["why"],
            }
            for row in relays
            if (row["next_hops"] if row["via"] is None else _differs(row, plain))
        ],
    }


def _stream(row: Row) -> tuple[Any, ...]:
    return row["group"], row["source"], row["origin"], row["turn"]


def _differs(row: Row, plain: Mapping[tuple[Any, ...], set[str]]) -> bool:
    """Return whether an entry by `via` has other next hops than the entry for packets from any node."""
    return set(row["next_hops"]) != plain.get(_stream(row), set()) - {row["via"]}


def trace(control: ControlState, arguments: Mapping[str, str]) -> Row:
    """Return the membership events from number `after` on; without it none, and the number of the next one."""
    after = arguments.get("after", "")
    now = time.monotonic()
    part = control.trace.poll(int(after) if after.isdecimal() and len(after) < 20 else None, now)
    epoch_s = time.time() - now
    return {
        "events": [
            {
                "time_s": round(epoch_s + event.now, 6),
                "group": show(event.group) if event.group else None,
                "host": show(event.host) if event.host else None,
                "rule": event.rule,
            }
            for event in part.events
        ],
        "after": part.next_number,
        "lost": part.lost,
    }
