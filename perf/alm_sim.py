"""The evaluation of Nemo (MMCN 2005), repeated in the simulator and compared with the paper's figures.

    python -m perf.alm_sim --paper [--sizes] [--seeds 3] [--share 1.0] [--only WORDS] [--json FILE] [--plot FILE]

The set-up is the paper's.  The topology is Inet-like: 3,072 routers, links of 1 … 4 ms, no bandwidth limit.  Hosts join
within 200 s, and the first 300 s are not measured.  Churn lasts from 600 s to 1,800 s, with the same trace in all
rows that share a seed and a rate of churn.  The source sends 10 packets/s of 100 bytes for 40 minutes.  `--sizes` runs
128 … 4,096 hosts under high churn on 8,192 routers.  `--share` scales all times but the mean times to failure and
repair: churn is as high, but shorter.

The table has the mean over the seeds and, with two seeds or more, the 95 % confidence interval.  Control is in bytes
per second and node; cost is the CPU time of one run in seconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.cli.simulate import GC_THRESHOLDS
from pipeline.sim.experiment import Scenario, run

HIGH, LOW = (300.0, 120.0), (3600.0, 600.0)
"""Mean time to failure and mean time to repair, in seconds."""
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t for a 95 % interval, by number of seeds."""


@dataclass(frozen=True)
class Row:
    """One row of the paper's tables: set-up and figures."""

    name: str
    churn: tuple[float, float]
    delivery: float
    duplicates: float
    options: dict[str, object] = field(default_factory=dict)
    nodes: int = 512
    routers: int = 3072
    control: float = math.nan
    """Bytes per second and node."""


ROWS = (
    Row("high churn", HIGH, 0.998, 3.16),
    Row("low churn", LOW, 1.000, 0.34),
    Row("high churn, crew 1", HIGH, 0.992, 7.10, {"crew_size": 1}),
    Row("high churn, crew 2", HIGH, 0.997, 3.01, {"crew_size": 2}),
    Row("high churn, crew 4", HIGH, 0.998, 3.67, {"crew_size": 4}),
    Row("high churn, no repair", HIGH, math.nan, math.nan, {"repair": "none"}),
)
SIZES = tuple(
    Row(f"{nodes} hosts", HIGH, 0.999, duplicates, nodes=nodes, routers=8192, control=megabytes * 1e6 / nodes)
    for nodes, duplicates, megabytes in ((128, 0.43, 0.12), (512, 1.30, 0.52), (1024, 2.78, 1.03), (4096, 10.95, 4.24))
)


def simulate(row: Row, *, seed: int, share: float) -> dict[str, Any]:
    """Run the set-up of a row, and return its figures and CPU time."""
    mttf_s, mttr_s = row.churn
    scenario = Scenario(
        engine="nemo",
        options=row.options,
        nodes=row.nodes,
        routers=row.routers,
        seed=seed,
        duration_s=2400 * share,
        join_s=200 * share,
        warmup_s=300 * share,
        churn_s=(600 * share, 1800 * share),
        mttf_s=mttf_s,
        mttr_s=mttr_s,
        topology="power-law",
    )
    began = time.process_time()
    return {**run(scenario), "cpu_s": time.process_time() - began}


def interval(values: list[float], digits: int) -> str:
    """Return mean and 95 % confidence interval as text: 0.9981 ± 0.0004."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = T_95.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def published(value: float, digits: int) -> str:
    """Return a figure of the paper as text; a dash if it has none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", required=True, help="run the paper's evaluation")
    parser.add_argument(
        "--sizes",
        action="store_true",
        help="128 … 4,096 hosts, instead of several rates of churn and crew sizes with 512",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="share of the paper's 40 minutes to run")
    parser.add_argument("--only", default="", help="run only rows with this in their name")
    parser.add_argument("--json", type=Path, help="write all figures of all runs")
    parser.add_argument("--plot", type=Path, help="draw delivery and duplicates")
    options = parser.parse_args()
    rows = [row for row in (SIZES if options.sizes else ROWS) if options.only in row.name]
    if not rows:
        parser.error(f"--only {options.only}: no row's name contains it")
    gc.set_threshold(*GC_THRESHOLDS)
    print(f"{2400 * options.share:.0f} virtual s, seeds 1 … {options.seeds}\n")
    head = ("", "delivery", "paper", "duplicates", "paper", "control", "paper", "cost")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        runs = found[row.name] = []
        for seed in range(1, options.seeds + 1):
            runs.append(simulate(row, seed=seed, share=options.share))
            delivery, duplicates = runs[-1]["delivery_ratio"], runs[-1]["duplicates_per_packet"]
            print(f"{row.name}, seed {seed}: {delivery:.4f} / {duplicates:.2f}", file=sys.stderr, flush=True)
        cells = (
            row.name,
            interval([each["delivery_ratio"] for each in runs], 4),
            published(row.delivery, 3),
            interval([each["duplicates_per_packet"] for each in runs], 2),
            published(row.duplicates, 2),
            interval([each["control_bytes_per_node_s"] for each in runs], 0),
            published(row.control, 0),
            interval([each["cpu_s"] for each in runs[:1]], 0),
        )
        print("| " + " | ".join(cells) + " |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if options.plot:
        plot(found, options.plot)


def plot(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw delivery and duplicates of the runs beside the paper's."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 (only for pictures)

    rows = {row.name: row for row in (*ROWS, *SIZES)}
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    parts = (("delivery_ratio", "delivery", "delivery ratio"), ("duplicates_per_packet", "duplicates", "duplicates"))
    for axis, (key, attribute, label) in zip(axes, parts, strict=True):
        places = range(len(found))
        ours = [statistics.fmean(each[key] for each in runs) for runs in found.values()]
        axis.barh([place - 0.2 for place in places], ours, 0.4, label="here")
        theirs = [getattr(rows[name], attribute) for name in found]
        axis.barh([place + 0.2 for place in places], theirs, 0.4, label="paper")
        axis.set_yticks(list(places), list(found))
        axis.set_xlabel(label)
        axis.legend()
    least = min(each["delivery_ratio"] for runs in found.values() for each in runs)
    axes[0].set_xlim(min(0.9, least), 1)
    figure.savefig(path)


if __name__ == "__main__":
    main()
