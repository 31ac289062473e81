"""The evaluation of Nemo (MMCN 2005) run again in the simulator, beside what the paper printed.

    python -m perf.alm_sim --paper [--seeds 3] [--nodes 512] [--share 1.0] [--json FILE] [--plot FILE]

The set-up is the paper's: Inet-like topologies of 3,072 routers with links of 1 … 4 ms and no bandwidth limit, joins
over 200 s, the first 300 s left out, churn from 600 s for 1,200 s with one trace for every protocol, 10 packets/s of
100 B, 40 minutes in all.  `--share` runs that share of every time (the churn is as high, but shorter).  Given are
means over the seeds and, from two seeds on, 95 % confidence intervals.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.sim.experiment import Scenario, run

HIGH, LOW = (300.0, 120.0), (3600.0, 600.0)
"""Mean time to failure and to repair, seconds."""
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t for that many seeds."""


@dataclass(frozen=True)
class Row:
    """One line of the paper's tables."""

    name: str
    churn: tuple[float, float]
    delivery: float
    duplicates: float
    options: dict[str, object] = field(default_factory=dict)


ROWS = (
    Row("high churn", HIGH, 0.998, 3.16),
    Row("low churn", LOW, 1.000, 0.34),
    Row("high churn, crew 1", HIGH, 0.992, 7.10, {"crew_size": 1}),
    Row("high churn, crew 2", HIGH, 0.997, 3.01, {"crew_size": 2}),
    Row("high churn, crew 4", HIGH, 0.998, 3.67, {"crew_size": 4}),
    Row("high churn, no repair", HIGH, math.nan, math.nan, {"repair": "none"}),
)


def simulate(row: Row, *, nodes: int, seed: int, share: float) -> dict[str, Any]:
    mttf_s, mttr_s = row.churn
    scenario = Scenario(
        engine="nemo",
        options=row.options,
        nodes=nodes,
        seed=seed,
        duration_s=2400 * share,
        join_s=200 * share,
        warmup_s=300 * share,
        churn_s=(600 * share, 1800 * share),
        mttf_s=mttf_s,
        mttr_s=mttr_s,
        topology="power-law",
    )
    return run(scenario)


def interval(values: list[float], digits: int) -> str:
    """"0.9981 ± 0.0004"."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = T_95.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", required=True, help="the paper's evaluation")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=512)
    parser.add_argument("--share", type=float, default=1.0, help="of the paper's 40 minutes")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--json", type=Path, help="all figures of all runs")
    parser.add_argument("--plot", type=Path, help="delivery and duplicates as a picture")
    given = parser.parse_args()
    print(f"{given.nodes} hosts, {2400 * given.share:.0f} virtual s, seeds 1 … {given.seeds}\n")
    head = ("", "delivery", "paper", "duplicates", "paper", "control B/s a node")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in ROWS:
        if given.only not in row.name:
            continue
        runs = found[row.name] = []
        for seed in range(1, given.seeds + 1):
            runs.append(simulate(row, nodes=given.nodes, seed=seed, share=given.share))
            print(f"{row.name}, seed {seed}: {runs[-1]['delivery_ratio']:.4f}", file=sys.stderr)
        cells = (
            row.name,
            interval([each["delivery_ratio"] for each in runs], 4),
            "–" if math.isnan(row.delivery) else f"{row.delivery:.3f}",
            interval([each["duplicates_per_packet"] for each in runs], 2),
            "–" if math.isnan(row.duplicates) else f"{row.duplicates:.2f}",
            interval([each["control_bytes_per_node_s"] for each in runs], 0),
        )
        print("| " + " | ".join(cells) + " |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    if given.plot:
        plot(found, given.plot)


def plot(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415 (only for pictures)

    paper = {row.name: row for row in ROWS}
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    parts = (("delivery_ratio", "delivery", "delivery ratio"), ("duplicates_per_packet", "duplicates", "duplicates"))
    for axis, (key, attribute, label) in zip(axes, parts, strict=True):
        places = range(len(found))
        ours = [statistics.fmean(each[key] for each in runs) for runs in found.values()]
        axis.barh([place - 0.2 for place in places], ours, 0.4, label="here")
        theirs = [getattr(paper[name], attribute) for name in found]
        axis.barh([place + 0.2 for place in places], theirs, 0.4, label="paper")
        axis.set_yticks(list(places), list(found))
        axis.set_xlabel(label)
        axis.legend()
    axes[0].set_xlim(left=0.9)
    figure.savefig(path)


if __name__ == "__main__":
    main()
