"""One-way latency at low, middle and high rates, compared with kernel VXLAN and native multicast.

Method: datagrams of 1316 bytes at an even rate to one receiver, each with the time just before send(). The receiver
reads the same clock when recvmmsg() returns, so every figure includes the wake-up of the receiving program. Percentiles
come from a histogram with buckets 6 % wide. Networks are measured in turn, round after round. Tables show the median
of the rounds, goals the median of the differences within a round.

    python perf/latency.py [--quick] [--kinds ours-4,vxlan,native] [--rates 100,1000,10000] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from perf import contenders, packages
from perf.measure import Load, Trial, background_share, run_trial, settled
from perf.report import Goal, Plot, Result, arguments, goal_table, log_progress, median, run, table
from pipeline.errors import PipelineError

PERCENTILES = {"p50": "p50", "p99": "p99", "p999": "p99.9", "max": "max"}
OURS, BASE = "ours-4", "vxlan"
SAMPLES_MIN = 1000
"""Samples for which a trial at a low rate is prolonged, at most to `STRETCH_MAX` times its length."""

STRETCH_MAX = 5.0


@dataclass(slots=True)
class Plan:
    """Parameters of the measurement and its results so far: trials by kind and rate, one for each round."""

    kinds: list[str]
    rates: list[int]
    rounds: int
    seconds: float
    receivers: int
    found: dict[tuple[str, int], list[Trial | None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def values(self, kind: str, rate: int, percentile: str) -> list[float | None]:
        return [trial.latency_us[percentile] if trial else None for trial in self.found.get((kind, rate), [])]

    def difference(self, rate: int, percentile: str) -> float | None:
        """Return the median over the rounds of our latency less that of VXLAN, in µs."""
        pairs = zip(self.values(OURS, rate, percentile), self.values(BASE, rate, percentile), strict=False)
        return median(None if ours is None or base is None else ours - base for ours, base in pairs)


def measure(plan: Plan) -> None:
    for number in range(plan.rounds):
        for kind in plan.kinds:
            trials: dict[int, Trial | None] = dict.fromkeys(plan.rates)
            try:
                with contenders.make(kind, hosts=plan.receivers + 1) as network, settled(network):
                    for rate in plan.rates:
                        seconds = min(max(plan.seconds, SAMPLES_MIN / rate), plan.seconds * STRETCH_MAX)
                        trials[rate] = run_trial(network, Load(pps=rate, seconds=seconds))
            except PipelineError as error:
                plan.failures[kind] = str(error)
                log_progress(f"{kind}: {error}")
            for rate, trial in trials.items():
                plan.found.setdefault((kind, rate), []).append(trial)
            shown = ", ".join(f"{rate}/s {t.latency_us['p50']:.0f}" for rate, t in trials.items() if t)
            log_progress(f"round {number + 1} of {plan.rounds}: {kind}: p50 in µs: {shown}")


def goals(plan: Plan) -> list[tuple[Goal, float | None]]:
    """Return the goals of this measurement with the measured values."""
    return [
        (Goal("p50 at 1,000 packets/s, µs over VXLAN", 80, 40, at_most=True), plan.difference(1000, "p50")),
        (Goal("p99 at 1,000 packets/s, µs over VXLAN", 500, 200, at_most=True), plan.difference(1000, "p99")),
    ]


def result(plan: Plan, background: float) -> Result:
    reached = goals(plan)
    trials = [
        {"kind": kind, "pps": rate, "rounds": [trial and trial.json() for trial in found]}
        for (kind, rate), found in plan.found.items()
    ]
    goal_rows = [{"goal": goal.what, "value": value, "verdict": goal.verdict(value)} for goal, value in reached]
    data = {"trials": trials, "goals": goal_rows, "failures": plan.failures, "background_share": background}
    found = Result("latency", data)
    for rate in plan.rates:
        rows = []
        for kind in plan.kinds:
            losses = median(trial.loss for trial in plan.found.get((kind, rate), []) if trial)
            values = [median(plan.values(kind, rate, name)) for name in PERCENTILES]
            rows.append([kind, *values, f"{losses:.2%}" if losses is not None else None])
        found.add(
            f"One-way latency in µs at {rate:,} packets/s", table(["network", *PERCENTILES.values(), "loss"], rows)
        )
    found.add("To reach", goal_table(reached))
    remarks = [f"- {what}: {why}" for what, why in plan.failures.items()]
    remarks.append(f"- {plan.rounds} rounds; other work before the measurement: {background:.1%} of all CPUs")
    found.add("Remarks", "\n".join(remarks))
    return found


def draw(plan: Plan) -> None:
    plot = Plot("latency", "One-way latency, one receiver, payload 1316 B", columns=2)
    for axis, percentile in zip(plot.axes, ("p50", "p99"), strict=True):
        series = {kind: [median(plan.values(kind, rate, percentile)) for rate in plan.rates] for kind in plan.kinds}
        plot.bars(axis, [f"{rate:,}/s" for rate in plan.rates], series, f"{PERCENTILES[percentile]} in µs")
        axis.set_yscale("log")
    plot.save()


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__ or "", seconds=4.0, rounds=5)
    contenders.add_kinds(parser, "ours-4,vxlan,native")
    parser.add_argument("--rates", default="100,1000,10000", help="packets a second")
    parser.add_argument("--receivers", type=int, default=1)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    kinds: list[str] = options.kinds
    packages.install(program for kind in kinds for program in contenders.programs(kind))
    plan = Plan(
        kinds=kinds,
        rates=[int(word) for word in options.rates.split(",")],
        rounds=2 if options.quick else options.rounds,
        seconds=min(options.seconds, 1.0) if options.quick else options.seconds,
        receivers=options.receivers,
    )
    background = background_share()
    measure(plan)
    found = result(plan, background)
    draw(plan)
    found.publish(as_json=options.json)
    return 0


if __name__ == "__main__":
    run(main)
