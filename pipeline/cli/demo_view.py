"""Output of the demonstration: a live table on a terminal, a line a second on a pipe, a summary or one JSON object.

Its input is plain rows; it knows neither hosts nor streams.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Self, TypeAlias

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import make_console

Row: TypeAlias = dict[str, Any]

EVENTS_SHOWN = 6
LINE_INTERVAL_S = 1.0


class Screen:
    """Display of samples and events while the demonstration runs; a context manager."""

    def __init__(self, *, silent: bool, seconds: float) -> None:
        self._console = make_console()
        self._silent = silent
        self._seconds = seconds
        self._events: list[str] = []
        self._next_line_s = 0.0
        self._live: Live | None = None
        if not silent and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def event(self, elapsed_s: float, text: str) -> None:
        """Show an event with its time."""
        line = f"{elapsed_s:5.1f} s  {text}"
        self._events = [*self._events, line][-EVENTS_SHOWN:]
        if not self._silent and not self._live:
            _write(line)

    def update(self, elapsed_s: float, nodes: list[Row]) -> None:
        """Show a sample of the nodes."""
        if self._live:
            self._live.update(self._tables(elapsed_s, nodes), refresh=True)
        elif not self._silent and elapsed_s >= self._next_line_s:
            self._next_line_s += LINE_INTERVAL_S
            _write(f"{elapsed_s:5.1f} s  " + " | ".join(_line(node) for node in nodes))

    def _tables(self, elapsed_s: float, nodes: list[Row]) -> Group:
        title = Text(
            f"mcast-pipeline: MPEG-TS over a network without multicast, {elapsed_s:.0f} of {self._seconds:.0f} s"
        )
        return Group(title, _streams(nodes), _stages(nodes), *[Text(line, style="dim") for line in self._events])


def _streams(nodes: list[Row]) -> Table:
    table = Table(title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("host")
    for column in ("Mbit/s", "errors", "jitter ms", "link loss %", "RTT ms", "CPU %"):
        table.add_column(column, justify="right")
    for node in nodes:
        stream = ["", ""]
        if "watching" in node:
            stream = [str(node["continuity_errors"]), f"{node['jitter_ms']:.2f}"]
        has_left = not node.get("watching", True)
        name = node["name"] + (" (left)" if has_left else "")
        link = [f"{node['loss'] * 100:.2f}", f"{node['rtt_ms']:.2f}", f"{node['cpu_percent']:.0f}"]
        table.add_row(name, f"{node['mbit']:.2f}", *stream, *link, style="dim" if has_left else None)
    return table


def _stages(nodes: list[Row]) -> Table:
    """Return the table of stages in the order of a packet's path: packets a second and share of a core."""
    stages = list(dict.fromkeys(stage["stage"] for node in nodes for stage in node["stages"]))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("packets/s (CPU %)")
    for stage in stages:
        table.add_column(stage.removesuffix("/0"), justify="right")
    for node in nodes:
        found = {stage["stage"]: stage for stage in node["stages"]}
        cells = [
            f"{found[s]['packets_per_s']:.0f} ({found[s]['cpu_percent']:.0f})" if s in found else "" for s in stages
        ]
        table.add_row(node["name"], *cells)
    return table


def _line(node: Row) -> str:
    text = f"{node['name']} {node['mbit']:.2f} Mbit/s, CPU {node['cpu_percent']:.0f} %"
    if "watching" not in node:
        return text
    state = "" if node["watching"] else " (left)"
    return f"{text}, {node['continuity_errors']} errors, jitter {node['jitter_ms']:.2f} ms{state}"


def summary(report: Row, *, as_json: bool) -> None:
    """Write the summary: what each viewer received, and whether it was all."""
    if as_json:
        _write(json.dumps({"schema": 1, "demo": report}))
        return
    for viewer in report["viewers"]:
        joins = ", ".join("never" if ms is None else f"{ms} ms" for ms in viewer["first_data_ms"])
        _write(
            f"{viewer['name']}: {viewer['packets']} TS packets at {viewer['mbit']:.2f} Mbit/s, "
            f"{viewer['continuity_errors']} continuity errors, jitter {viewer['jitter_ms']:.2f} ms, "
            f"first data {joins} after ffmpeg's start"
        )
    for node in report["nodes"]:
        _write(f"{node['name']}: {node['pss_mb']:.0f} MB, {node['cpu_s']:.1f} s of CPU")
    native = report["native_multicast_dropped"]
    _write(f"the underlay carried no multicast: its bridge dropped {native} native multicast packets")
    gone = "everything is removed" if report["removed"] else "NOT everything is removed"
    verdict = "all of it arrived" if report["ok"] else "FAILED: some of it is missing"
    _write(f"{verdict}; {gone}; {report['total_s']:.0f} s in all")


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
