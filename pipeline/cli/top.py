"""`pipeline top`: traffic, workers, links and groups of a running node, drawn each second, until q or Ctrl-C.

    control ──status, counters, workers, links, groups──▶ Sample ──two of them──▶ rates ──▶ tables.py ──▶ the terminal

A thread sends the requests and the terminal's loop draws, so keys work while control is slow to reply.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from pipeline.cli.console import style
from pipeline.cli.tables import status_line, table_of
from pipeline.client import Client, not_running, running_pid
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from textual.app import App

INTERVAL_S = 1.0
GROUPS_MAX = 500
"""With more groups only their number is shown: listing them would keep control busy, and no one reads them all."""

_STEPS = (
    ("programs → TUN", "tun_rx_packets", "tun_rx_bytes"),
    ("→ overlay", "overlay_tx_datagrams", "overlay_tx_bytes"),
    ("← overlay", "overlay_rx_datagrams", "overlay_rx_bytes"),
    ("programs ← TUN", "tun_tx_packets", "tun_tx_bytes"),
)
"""Steps of a packet's path, each with its counters of packets and bytes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Replies of control at one moment."""

    taken_s: float
    status: Mapping[str, Any]
    counters: Mapping[str, Any]
    workers: Sequence[Mapping[str, Any]]
    links: Sequence[Mapping[str, Any]]
    groups: Sequence[Mapping[str, Any]] | None
    """None if there are more than GROUPS_MAX."""


def watch(name: str) -> None:
    """Draw until the user ends it; NotRunningError when the instance ends."""
    if running_pid(name) is None:
        raise not_running(name)
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise PipelineError("top needs a terminal that can draw; elsewhere use `pipeline show counters --json`")
    try:
        screen = _screen(name)
    except ImportError:
        raise PipelineError("top needs the package textual: pip install 'mcast-pipeline[tui]'") from None
    failure = screen.run()
    if failure is not None:
        raise failure


def _screen(name: str) -> App[PipelineError]:
    from textual.app import App, ComposeResult
    from textual.containers import ScrollableContainer
    from textual.widgets import Static

    class Screen(App[PipelineError]):
        """One picture, which scrolls in both directions where the terminal is smaller."""

        BINDINGS = [("q", "quit", "end"), ("ctrl+c", "quit", "end")]  # noqa: RUF012 (textual's own form)
        CSS = "Static { width: auto; min-width: 100%; }"
        ENABLE_COMMAND_PALETTE = False
        ended = threading.Event()

        def compose(self) -> ComposeResult:
            with ScrollableContainer():
                yield Static("waiting for the first samples …")

        def on_mount(self) -> None:
            self.run_worker(self.poll, thread=True)

        def on_unmount(self) -> None:
            self.ended.set()

        def poll(self) -> None:
            client = Client(name)
            last: Sample | None = None
            try:
                while not self.ended.is_set():
                    now = sample(client)
                    if last is not None:
                        self.call_from_thread(self.query_one(Static).update, picture(last, now))
                    self.ended.wait(INTERVAL_S if last is not None else INTERVAL_S / 4)
                    last = now
            except PipelineError as error:
                if not self.ended.is_set():
                    self.call_from_thread(self.exit, error)
            finally:
                client.close()

    return Screen()


def sample(client: Client) -> Sample:
    """Request everything that the picture shows."""
    status = client.request("status")
    counters, workers, links = (client.request("show", noun) for noun in ("counters", "workers", "links"))
    groups = client.request("show", "groups") if status["groups_local"] <= GROUPS_MAX else None
    return Sample(time.monotonic(), status, counters, workers, links, groups)


def picture(before: Sample, now: Sample) -> RenderableType:
    """Return the rates between two samples, and the state at the second one."""
    parts: list[RenderableType] = [status_line(now.status), "", table_of("traffic", traffic(before, now))]
    if lost := drops(before, now):
        parts.append(
            Text("dropped: " + ", ".join(f"{reason} {count:,.0f}/s" for reason, count in lost), style=style("red"))
        )
    parts += ["", table_of("worker rates", workers(before, now))]
    if now.links:
        parts += ["", table_of("link rates", links(before, now))]
    if now.groups is None:
        parts += ["", f"{now.status['groups_local']:,} groups: `pipeline show groups` lists them"]
    elif now.groups:
        parts += ["", table_of("groups", now.groups)]
    return Group(*parts)


def traffic(before: Sample, now: Sample) -> list[dict[str, Any]]:
    """Return a row for each step of a packet's path: packets/s and Mbit/s."""
    seconds = _seconds(before, now)

    def change(counter: str) -> float:
        changed: int = now.counters.get(counter, 0) - before.counters.get(counter, 0)
        return max(0, changed) / seconds

    return [
        {"step": step, "packets_per_s": change(packets), "mbit_per_s": change(size) * 8 / 1e6}
        for step, packets, size in _STEPS
    ]


def drops(before: Sample, now: Sample) -> list[tuple[str, float]]:
    """Return the drop reasons that counted packets between the samples, with packets/s."""
    old, new, seconds = before.counters.get("drops", {}), now.counters.get("drops", {}), _seconds(before, now)
    rates = ((reason, (count - old.get(reason, 0)) / seconds) for reason, count in new.items())
    return [(reason, rate) for reason, rate in rates if rate > 0]


def workers(before: Sample, now: Sample) -> list[dict[str, Any]]:
    """Return the rows of `show workers` with packets/s; a restarted worker begins at zero."""
    old, seconds = {_key_of(row): row["packets"] or 0 for row in before.workers}, _seconds(before, now)
    return [
        row | {"packets_per_s": max(0, (row["packets"] or 0) - old.get(_key_of(row), 0)) / seconds}
        for row in map(dict, now.workers)
    ]


def _key_of(worker: Mapping[str, Any]) -> tuple[Any, ...]:
    return worker["role"], worker["lane"], worker["pid"]


def links(before: Sample, now: Sample) -> list[dict[str, Any]]:
    """Return the rows of `show links` with Mbit/s in both directions."""
    old, seconds = {row["peer"]: row for row in before.links}, _seconds(before, now)

    def mbit(row: Mapping[str, Any], key: str) -> float:
        changed: int = (row[key] or 0) - (old.get(row["peer"], row)[key] or 0)
        return max(0, changed) * 8 / 1e6 / seconds

    return [
        row | {"tx_mbit_per_s": mbit(row, "tx_bytes"), "rx_mbit_per_s": mbit(row, "rx_bytes")}
        for row in map(dict, now.links)
    ]


def _seconds(before: Sample, now: Sample) -> float:
    return max(now.taken_s - before.taken_s, 1e-3)
