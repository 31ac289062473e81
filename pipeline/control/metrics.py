"""Prometheus metrics: a small HTTP server in control's event loop, with `--metrics ADDR:PORT`.

    launch   opens the listening socket before any fork, so that a port in use is an error of the command line
    control  attaches it to the event loop; each scrape reads values of `show` and writes them as text

It counts nothing itself, and it is imported only when metrics are configured.  It does not know shared memory, and of
HTTP only the request line and the field Host.

A web page whose name resolves to 127.0.0.1 can make a browser of this host send it requests and read the responses (DNS
rebinding).  Its requests have the page's name in Host, so a connection to a loopback address gets a response only for
an IP address, `localhost` or the name of the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from pipeline.control.health import Fault
from pipeline.control.nouns import Noun
from pipeline.endpoint import split_endpoint
from pipeline.io import sockets
from pipeline.shm import counters

PREFIX = "mcast"
REQUEST_BYTES_MAX = 8192
"""Usual limit of HTTP servers; the request of a scraper has some 300 bytes."""
REQUEST_TIMEOUT_S = 5.0
"""Time for a whole request, until the last byte of the response has left."""
BACKLOG = 16
CONNECTIONS_MAX = 32
"""Connections at once; several scrapers need few.  A further one takes the place of the oldest, so a scrape, which
takes milliseconds, is not kept out by connections that stay silent."""
PORT = 80
"""Port of a Host without one; the value is not used."""
GROUPS_MAX = 1000
"""Groups with time series of their own.  All 65,536 would be too many for a server of metrics; sums have all."""

_LINK_COUNTERS = ("tx_bytes", "rx_bytes", "tx_datagrams", "rx_datagrams", "tx_errors")


class Endpoint:
    """Server of the metrics: opened by the launching process, served by control, also after control's restart."""

    def __init__(self, listen: str, *, name: str) -> None:
        """Listen on "ADDR:PORT" for the node of that name; PipelineError if that is not possible."""
        self._socket = sockets.open_listener("--metrics", listen, backlog=BACKLOG)
        self._names = frozenset({"localhost", name.lower()})
        self._open: dict[asyncio.StreamWriter, None] = {}
        """Open connections, the oldest first; those with a request after those without."""

    def fileno(self) -> int:
        """Return the listening descriptor, which workers close."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the listening socket."""
        self._socket.close()

    async def attach(self, view: Callable[[str], Any]) -> None:
        """Serve from now on, in the running event loop; `view` returns the value of "status" or of a noun."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector(view))

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while len(self._open) >= CONNECTIONS_MAX:
                self._abort(next(iter(self._open)))
            self._open[writer] = None
            try:
                await self._answer(registry, reader, writer)
            finally:
                self._abort(writer)

        await asyncio.start_server(answer, sock=self._socket.dup(), limit=REQUEST_BYTES_MAX)

    async def _answer(
        self, registry: CollectorRegistry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        is_loopback = _is_loopback(writer.get_extra_info("sockname"))
        with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                self._open[writer] = self._open.pop(writer)  # silent ones give way first
                writer.write(respond(registry, head, names=self._names if is_loopback else None))
                writer.close()
                await writer.wait_closed()

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        """End a connection; without effect if it has ended."""
        self._open.pop(writer, None)
        writer.transport.abort()


def _is_loopback(sockname: tuple[Any, ...] | None) -> bool:
    """Return whether the local address of a connection is one of the loopback interface."""
    address = ipaddress.ip_address(sockname[0] if sockname else "::")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _is_host_allowed(head: bytes, names: frozenset[str]) -> bool:
    """Return whether every Host of a request is an IP address or one of the names, with or without a port."""
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    hosts = [value.strip().decode("latin-1").lower() for name, _, value in fields if name.strip().lower() == b"host"]
    return all(_is_address(host) or host.partition(":")[0] in names for host in hosts)


def _is_address(host: str) -> bool:
    try:
        split_endpoint(host, default_port=PORT)
    except ValueError:
        return False
    return True


def respond(registry: CollectorRegistry, head: bytes, *, names: frozenset[str] | None = None) -> bytes:
    """Return the HTTP response to the head of a request; with `names` Host must be one of them or an IP address."""
    if names is not None and not _is_host_allowed(head, names):
        return _response("403 Forbidden", "text/plain", b"Host is not a name of this node\n", with_body=True)
    words = head.partition(b"\r\n")[0].split(b" ")
    path = words[1].partition(b"?")[0] if len(words) == 3 else b""
    if words[0] not in (b"GET", b"HEAD") or path not in (b"/metrics", b"/"):
        return _response("404 Not Found", "text/plain", b"metrics are at /metrics\n", with_body=True)
    return _response("200 OK", CONTENT_TYPE_LATEST, generate_latest(registry), with_body=words[0] == b"GET")


def _response(status: str, content_type: str, body: bytes, *, with_body: bool) -> bytes:
    length = f"Content-Length: {len(body)}"
    fields = (f"HTTP/1.1 {status}", f"Content-Type: {content_type}", length, "Connection: close")
    return "\r\n".join([*fields, "", ""]).encode() + (body if with_body else b"")


# ---------------------------------------------------------------- values


class Collector:
    """Collector of Prometheus: makes metrics of the values of `show` at each scrape."""

    def __init__(self, view: Callable[[str], Any]) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._node()
        yield from self._counters()
        yield from self._workers()
        yield from self._links()
        yield from self._groups()

    def _node(self) -> Iterator[Metric]:
        status = self._view("status")
        info = {key: str(status[key]) for key in ("name", "version", "interface", "overlay", "node_id")}
        yield InfoMetricFamily(f"{PREFIX}_node", "The node and its version.", value=info)
        yield GaugeMetricFamily(f"{PREFIX}_ready", "1 once all processes are ready.", value=int(status["ready"]))
        degraded = GaugeMetricFamily(f"{PREFIX}_degraded", "1 while the fault lasts.", labels=["reason"])
        for fault in Fault:
            degraded.add_metric([fault.value], int(fault in status["degraded"]))
        yield degraded
        yield GaugeMetricFamily(f"{PREFIX}_uptime_seconds", "Seconds since the launch.", value=status["uptime_s"])

    def _counters(self) -> Iterator[Metric]:
        found = self._view(Noun.COUNTERS)
        for name in counters.EVENTS:
            yield CounterMetricFamily(f"{PREFIX}_{name}", f"{_sentence(counters.text(name))}.", value=found[name])
        drops = CounterMetricFamily(f"{PREFIX}_drops", "Packets and datagrams dropped, by reason.", labels=["reason"])
        for reason, count in found["drops"].items():
            drops.add_metric([reason], count)
        yield drops
        family = CounterMetricFamily(
            f"{PREFIX}_membership", "Packets, messages and drops of the membership router, by event.", labels=["event"]
        )
        for event, count in found["membership"].items():
            family.add_metric([event], count)
        yield family
        refused = CounterMetricFamily(f"{PREFIX}_refused", "Messages of peers refused, by reason.", labels=["reason"])
        for reason, count in found["refused"].items():
            refused.add_metric([reason], count)
        yield refused
        yield GaugeMetricFamily(f"{PREFIX}_sources", "Groups that local programs send to.", value=found["sources"])

    def _workers(self) -> Iterator[Metric]:
        rows = self._view(Noun.WORKERS)
        labels = ["role", "lane"]
        up = GaugeMetricFamily(f"{PREFIX}_worker_up", "1 if the process is ready.", labels=labels)
        restarts = CounterMetricFamily(f"{PREFIX}_worker_restarts", "Restarts of the process.", labels=labels)
        packets = CounterMetricFamily(f"{PREFIX}_worker_packets", "Packets its stages have moved.", labels=labels)
        for row in rows:
            key = [row["role"], str(row["lane"])]
            up.add_metric(key, int(row["state"] == "ready"))
            restarts.add_metric(key, row["restarts"])
            packets.add_metric(key, row["packets"])
        yield from (up, restarts, packets)

    def _links(self) -> Iterator[Metric]:
        rows = [row for row in self._view(Noun.LINKS) if row["peer"]]
        for name, text, value in (
            ("link_up", "1 if packets may be sent to the peer.", lambda row: int(row["state"] == "up")),
            ("link_rtt_seconds", "Smoothed round-trip time.", lambda row: row["rtt_ms"] / 1e3),
            ("link_loss_ratio", "Smoothed share of probes without an answer.", lambda row: row["loss"]),
        ):
            gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["peer"])
            for row in rows:
                gauge.add_metric([row["peer"]], value(row))
            yield gauge
        for name in _LINK_COUNTERS:
            text = f"{name.replace('_', ' ')} of the link."
            family = CounterMetricFamily(f"{PREFIX}_link_{name}", _sentence(text), labels=["peer"])
            for row in rows:
                family.add_metric([row["peer"]], row[name])
            yield family

    def _groups(self) -> Iterator[Metric]:
        rows = self._view(Noun.GROUPS)
        total = GaugeMetricFamily(f"{PREFIX}_groups", "Groups by whether this host has members.", labels=["local"])
        for local in (True, False):
            total.add_metric([str(local).lower()], sum(row["local"] is local for row in rows))
        yield total
        members = GaugeMetricFamily(f"{PREFIX}_group_members", "Other nodes with members.", labels=["group"])
        for row in rows[:GROUPS_MAX]:
            members.add_metric([row["group"]], len(row["members"]))
        yield members


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
