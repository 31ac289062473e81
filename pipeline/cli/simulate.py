"""`pipeline simulate`: an engine on thousands of virtual nodes, with its figures as a table or as JSON.

The simulator reads no files and no clock: this module does both for it, and draws the progress bar.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import engines
from pipeline.engines.api import EngineContext
from pipeline.errors import ConfigError, UsageError
from pipeline.sim import churn, experiment, topology

TOPOLOGIES = ("plane", "transit-stub", "power-law", "matrix")
GC_THRESHOLDS = (200_000, 20, 100)
"""Millions of objects live long.  With the default thresholds the search for cycles takes a tenth of the time."""
PROGRESS_FROM_S = 2.0
"""Time after which a run shows a progress bar, if stderr is a terminal."""


def scenario(
    *,
    engine: str,
    nodes: str,
    seed: str,
    duration: str,
    warmup: str,
    rate: str,
    packet_bytes: str,
    place: str | None,
    rtt_matrix: str | None,
    loss: str,
    bandwidth: str | None,
    mttf: str | None,
    mttr: str,
    trace: str | None,
    partition: str | None,
    options: tuple[str, ...],
) -> experiment.Scenario:
    """Return the scenario that the flags describe; an error's line names the flag."""
    count = whole("--nodes", nodes, 2, 100_000)
    duration_s = number("--duration", duration, 1, 1e6)
    warmup_s = number("--warmup", warmup, 0, 1e6) if warmup else duration_s / 4
    if warmup_s >= duration_s:
        raise UsageError(f"--warmup {warmup_s:g}: nothing is left of --duration {duration_s:g}")
    kind = place or ("matrix" if rtt_matrix else "plane")
    if kind not in TOPOLOGIES or (kind == "matrix" and rtt_matrix is None):
        raise UsageError(f"--topology {kind}: one of plane, transit-stub, power-law; or give --rtt-matrix FILE")
    if kind != "matrix" and rtt_matrix is not None:
        raise UsageError(f"--topology {kind}: leave it out: --rtt-matrix {rtt_matrix} gives the delays between nodes")
    return experiment.Scenario(
        engine=engine,
        options=_options(engine, options),
        nodes=count,
        seed=whole("--seed", seed, 0, 1 << 62),
        duration_s=duration_s,
        join_s=warmup_s / 2,
        warmup_s=warmup_s,
        rate_pps=number("--rate", rate, 0.01, 1e5),
        packet_bytes=whole("--packet-bytes", packet_bytes, 1, 65507),
        topology=kind,
        matrix=_read("--rtt-matrix", rtt_matrix, topology.read_matrix) if rtt_matrix else (),
        loss=number("--loss", loss, 0, 1),
        bandwidth_bps=number("--bandwidth", bandwidth, 0.01, 1e6) * 1e6 if bandwidth else None,
        mttf_s=number("--mttf", mttf, 0.1, 1e9) if mttf else None,
        mttr_s=number("--mttr", mttr, 0.1, 1e9),
        trace=_read("--trace", trace, lambda text: churn.read(text, count)) if trace else None,
        partition=_partition(partition, duration_s) if partition else None,
    )


def number(flag: str, text: str, least: float, most: float) -> float:
    """Return a flag's value, a number within bounds."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise UsageError(f"{flag} {text}: expected a number from {least:g} to {most:g}")
    return value


def whole(flag: str, text: str, least: int, most: int) -> int:
    """Return a flag's value, a whole number within bounds."""
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not least <= value <= most:
        raise UsageError(f"{flag} {text}: expected a whole number from {least} to {most}")
    return value


def _options(engine: str, texts: tuple[str, ...]) -> dict[str, object]:
    """Return the engine's options after the engine itself has checked them."""
    found: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option {text}: expected NAME=VALUE")
        if name == "rendezvous":
            raise UsageError(f"--option {text}: in a simulation it is node n0, which is also the source")
        found[name] = value
    try:
        make = engines.load(engine)
    except ConfigError as error:
        raise UsageError(f"--overlay {engine}: {error}") from error
    try:
        make(EngineContext(node_id=1, random=lambda: 0.0, options=found), 0.0)
    except ConfigError as error:
        raise UsageError(f"--option {' --option '.join(texts)}: {error}") from error
    return found


def _partition(text: str, duration_s: float) -> experiment.Partition:
    words = text.split(",")
    if len(words) != 3:
        raise UsageError(f"--partition {text}: expected BEGIN,END,SHARE")
    begin, end = (number("--partition", word, 0, duration_s) for word in words[:2])
    if begin >= end:
        raise UsageError(f"--partition {text}: expected it to begin before it ends")
    return experiment.Partition(begin, end, number("--partition", words[2], 0, 1))


def _read(flag: str, path: str, parse: Any) -> Any:
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{flag} {path}: not a text file: expected UTF-8") from error
    except ValueError as error:
        raise ConfigError(f"{flag} {path}: {error}") from error


def run(parameters: experiment.Scenario) -> dict[str, Any]:
    """Run a scenario, with a progress bar on stderr if it takes long.  Return parameters and figures."""
    from rich.progress import Progress, TextColumn, TimeRemainingColumn

    from pipeline.cli.console import make_console

    gc.set_threshold(*GC_THRESHOLDS)
    console = make_console(stderr=True)
    began = time.monotonic()
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn(), TextColumn("{task.fields[virtual]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(
            f"{parameters.engine}, {parameters.nodes} nodes", total=parameters.duration_s, virtual="", visible=False
        )

        def show(done: float, total: float) -> None:
            is_long = time.monotonic() - began > PROGRESS_FROM_S
            bar.update(task, completed=done, visible=is_long, virtual=f"{done:.0f} of {total:.0f} virtual s")

        figures = experiment.run(parameters, show)
    return {
        "engine": parameters.engine,
        "nodes": parameters.nodes,
        "seed": parameters.seed,
        "duration_s": parameters.duration_s,
        "topology": parameters.topology,
        "wall_s": round(time.monotonic() - began, 2),
        **figures,
    }


_LABELS = {
    "delivery_ratio": "delivery ratio",
    "duplicates_per_packet": "duplicates per sequence number",
    "resent_per_packet": "repairs per sequence number",
    "latency_ms": "latency, ms",
    "stretch": "stretch",
    "link_stress": "link stress",
    "out_degree": "out-degree (copies sent per packet)",
    "forwarding_nothing": "nodes that forward nothing",
    "control_bytes_per_node_s": "control, bytes/s per node",
    "control_messages_per_node_s": "control, messages/s per node",
    "join_s": "join time, s",
    "repair_s": "time to repair, s",
}


def write(figures: Mapping[str, Any]) -> None:
    """Write the figures to stdout as a table."""
    head = "{engine}, {nodes} nodes, seed {seed}, {duration_s:g} virtual s on {topology}, {packets} packets"
    sys.stdout.write(head.format(**figures) + f", {figures['wall_s']:g} s\n")
    for key, label in _LABELS.items():
        sys.stdout.write(f"  {label:<36} {_cell(figures[key])}\n")


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        if value.get("count") == 0:
            return "-"
        return "  ".join(f"{name} {_cell(part)}" for name, part in value.items() if part is not None) or "-"
    return "-" if value is None else f"{value:.6g}"
