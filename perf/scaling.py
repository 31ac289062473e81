"""Highest rate and CPU of this project by workers, receivers, groups, packet size, mix of sizes and flows.

Method: each sweep varies one parameter of a stream of 1316 bytes, in one flow to one group, with 3 receivers and 4
workers. At each point the highest rate with at most 0.1 % loss at every receiver is searched, as in versus.py. Each
sweep measures the unchanged point again, so the figures of a ratio are from the same minutes.

    python perf/scaling.py [--quick] [--sweeps workers,receivers,groups,sizes,mixed,flows] [--seconds 1] [--json]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from perf.contenders import Pipeline
from perf.measure import Load, Trial, background_share, highest_rate, settled
from perf.report import Goal, Plot, Result, arguments, goal_table, log_progress, median, ratio_of_rounds, run, table
from pipeline.errors import PipelineError

SIZE = 1316
MIX = (64, 1316, 576, 1316, 200, 1316, 64)
"""Sizes in turn, like audio, video and control of one program; no two neighbours are equal."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep; `label` is the value that the sweep varies."""

    sweep: str
    label: str
    workers: int = 4
    receivers: int = 3
    load: Load = field(default_factory=Load)


def sweeps(*, quick: bool) -> dict[str, list[Point]]:
    """Return all points by sweep; with --quick without those in the middle."""

    def some(values: Iterable[int], few: Iterable[int]) -> list[int]:
        return list(few if quick else values)

    return {
        "workers": [Point("workers", str(n), workers=n) for n in (1, 2, 4, 8)],
        "receivers": [Point("receivers", str(n), receivers=n) for n in some((1, 2, 3, 5, 7, 12), (1, 3, 7))],
        "groups": [Point("groups", str(n), load=Load(groups=n)) for n in some((1, 4, 16, 64, 256, 1000), (1, 64))],
        "sizes": [
            Point("sizes", str(n), load=Load(size=n))
            for n in some((64, 128, 256, 512, 1024, 1316, 1400), (64, 512, 1400))
        ],
        "mixed": [Point("mixed", "1316 only"), Point("mixed", "mixed", load=Load(size=MIX))],
        "flows": [Point("flows", str(n), load=Load(flows=n)) for n in some((1, 4, 16, 64, 256), (1, 64))],
    }


Found = dict[Point, list[Trial | None]]
"""Trials of each point, one for each round; None where there is no figure."""


def measure(points: list[Point], seconds: float, rounds: int) -> tuple[Found, dict[str, str]]:
    """Measure every point, round after round; successive points with the same network share it."""
    found: Found = {point: [] for point in points}
    failures: dict[str, str] = {}
    for number in range(rounds):
        for (workers, receivers), group in groupby(points, key=lambda point: (point.workers, point.receivers)):
            batch = list(group)
            try:
                with Pipeline(receivers + 1, workers=workers) as network:
                    for point in batch:
                        trial = measure_point(network, point, seconds, found[point], failures)
                        found[point].append(trial)
                        rate = f"{trial.delivered_pps / 1000:.1f} kpps" if trial else "no rate"
                        log_progress(f"round {number + 1} of {rounds}: {point.sweep} {point.label}: {rate}")
            except PipelineError as error:
                failures[f"{workers} workers, {receivers} receivers"] = str(error)
                log_progress(str(error))
            for point in batch:
                found[point] += [None] * (number + 1 - len(found[point]))
    return found, failures


def measure_point(
    network: Pipeline, point: Point, seconds: float, earlier: list[Trial | None], failures: dict[str, str]
) -> Trial | None:
    near = median(trial.delivered_pps for trial in earlier if trial)
    load = replace(point.load, seconds=seconds)
    try:
        with settled(network, load):
            return highest_rate(network, load, confirm_s=seconds * 2, near_pps=near)
    except PipelineError as error:
        failures[f"{point.sweep} {point.label}"] = str(error)
        return None


def rates_of(trials: list[Trial | None]) -> list[float | None]:
    return [trial.delivered_pps if trial else None for trial in trials]


def pps_of(trials: list[Trial | None]) -> float | None:
    return median(rates_of(trials))


def goals(found: Found) -> list[tuple[Goal, float | None]]:
    """Return the goals: with mixed sizes, many flows or many groups at least half of the rate of the first point."""
    rows = []
    for sweep in ("groups", "mixed", "flows"):
        points = [point for point in found if point.sweep == sweep]
        first, *others = [rates_of(found[point]) for point in points] or [[]]
        ratios = [share for rates in others if (share := ratio_of_rounds(rates, first)) is not None]
        what = f"{sweep}: lowest packet rate × that of {points[0].label if points else '1'}"
        rows.append((Goal(what, 0.5), min(ratios, default=None)))
    workers = {point.label: rates_of(trials) for point, trials in found.items() if point.sweep == "workers"}
    rows.append((Goal("workers: 8 × 4", 0.9), ratio_of_rounds(workers.get("8", []), workers.get("4", []))))
    return rows


def result(found: Found, failures: dict[str, str], background: float) -> Result:
    reached = goals(found)
    records: list[dict[str, Any]] = [
        {
            "sweep": point.sweep,
            "label": point.label,
            "workers": point.workers,
            "receivers": point.receivers,
            "rounds": [trial and trial.json() for trial in trials],
        }
        for point, trials in found.items()
    ]
    goal_rows = [{"goal": goal.what, "value": value, "verdict": goal.verdict(value)} for goal, value in reached]
    data = {"points": records, "goals": goal_rows, "failures": failures, "background_share": background}
    report = Result("scaling", data)
    for sweep in dict.fromkeys(point.sweep for point in found):
        points = [point for point in found if point.sweep == sweep]
        rows = []
        for point in points:
            pps = pps_of(found[point])
            mbit = pps * point.load.mean_size * 8 / 1e6 if pps else None
            cost = median(trial.cpu_per_gbit for trial in found[point] if trial)
            share = ratio_of_rounds(rates_of(found[point]), rates_of(found[points[0]]))
            rows.append([point.label, pps / 1000 if pps else None, mbit, cost, share])
        report.add(f"Against {sweep}", table([sweep, "kpps", "Mbit/s to each", "CPU s/Gbit", "rate × first row"], rows))
    report.add("To reach", goal_table(reached))
    remarks = [f"- {what}: {why}" for what, why in failures.items()]
    remarks.append(f"- other work before the measurement: {background:.1%} of all CPUs")
    remarks.append(f"- mixed: {', '.join(map(str, MIX))} bytes in turn")
    report.add("Remarks", "\n".join(remarks))
    return report


def draw(found: Found) -> None:
    names = list(dict.fromkeys(point.sweep for point in found))
    plot = Plot("scaling", "Highest rate with at most 0.1 % loss at every receiver", columns=len(names), width=3.6)
    for axis, sweep in zip(plot.axes, names, strict=True):
        points = [point for point in found if point.sweep == sweep]
        rates = [(pps_of(found[point]) or 0.0) / 1000 for point in points]
        plot.bars(axis, [point.label for point in points], {"kpps": rates}, "kpps to every receiver")
        axis.set_xlabel(sweep)
        axis.tick_params(axis="x", labelsize=7)
    plot.save()


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__ or "", seconds=1.0, rounds=3)
    parser.add_argument("--sweeps", default=None, help=f"some of: {','.join(sweeps(quick=False))}")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    known = sweeps(quick=options.quick)
    names = options.sweeps.split(",") if options.sweeps else list(known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"scaling: no such sweep: {', '.join(unknown)}; choose from {', '.join(known)}", file=sys.stderr)
        return 2
    points = [point for name in names for point in known[name]]
    seconds = min(options.seconds, 0.4) if options.quick else options.seconds
    background = background_share()
    found, failures = measure(points, seconds, 1 if options.quick else options.rounds)
    report = result(found, failures, background)
    draw(found)
    report.publish(as_json=options.json)
    return 0


if __name__ == "__main__":
    run(main)
