"""Highest rate without loss and its CPU cost: this project compared with kernel VXLAN, native multicast and VPNs.

Method (README.md has more): for each kind of network and number of receivers, the highest rate of a plain send()
program at which every receiver gets at least 99.9 %. Short trials search it, a longer one confirms it and gives the CPU
time of the whole machine per delivered Gbit. All kinds are measured in turn, round after round. Ratios are taken within
a round, and their median is printed.

With --programs N there are N sending programs, each with a group of its own, and N receiving programs on each host.
This shows the effect of several lanes on a machine with many cores.

    python perf/versus.py [--quick] [--kinds ours-4,vxlan] [--receivers 1,3,7] [--programs 1] [--rounds 3]
                          [--seconds 1] [--json]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from typing import Any

from perf import contenders, packages
from perf.measure import Load, Trial, background_share, highest_rate, settled
from perf.report import Goal, Plot, Result, arguments, goal_table, log_progress, median, ratio_of_rounds, run, table
from pipeline.errors import PipelineError

SIZE = 1316
SMALL = 64
SMALL_KINDS = ("ours-4", "vxlan", "native")
OURS = "ours-4"
INSECURE = "ours-4-insecure"
CONFIRM_SHARE = 2.5
"""Length of the confirming trial as a multiple of the others'."""

QUICK_KINDS = ("ours-4", "ours-8", "native", "vxlan", "tinc", "n2n", "fastd", "openvpn")
QUICK_MINUTES = 4.0
QUICK_ALL_COUNTS = ("ours-4", "vxlan")
"""Kinds that --quick measures with every number of receivers; other kinds, unless they are named, only with 3."""


@dataclass(frozen=True, slots=True)
class Case:
    """Network, number of receivers and payload size of one figure."""

    kind: str
    receivers: int
    size: int


@dataclass(slots=True)
class Plan:
    """Parameters of the measurement and its results so far: for each case a list with one entry for each round."""

    kinds: list[str]
    receivers: list[int]
    programs: int
    rounds: int
    seconds: float
    quick: bool
    all_counts: tuple[str, ...]
    """Kinds that are measured with every number of receivers; the others only with 3."""
    offloads: bool
    found: dict[Case, list[Trial | None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def networks(self) -> list[tuple[str, int]]:
        """Return every network of a round: all kinds for each number of receivers."""
        return [
            (kind, count) for count in self.receivers for kind in self.kinds if count == 3 or kind in self.all_counts
        ]

    def sizes(self, kind: str, receivers: int) -> list[int]:
        if kind not in SMALL_KINDS or (self.quick and receivers != 3):
            return [SIZE]
        return [SIZE, SMALL]

    def rates(self, case: Case) -> list[float | None]:
        """Return datagrams a second to each receiver, by round; None for a round without a figure."""
        return [trial.delivered_pps if trial else None for trial in self.found.get(case, [])]

    def costs(self, case: Case) -> list[float | None]:
        """Return CPU seconds for each delivered Gbit, by round."""
        return [trial.cpu_per_gbit if trial else None for trial in self.found.get(case, [])]


# ---------------------------------------------------------------- measuring


def measure(plan: Plan, deadline: float) -> None:
    """Run all rounds, or those that can end near the deadline; the first one always."""
    for number in range(plan.rounds):
        began = time.monotonic()
        for kind, receivers in plan.networks():
            measure_network(plan, kind, receivers, f"round {number + 1} of {plan.rounds}")
        if time.monotonic() + (time.monotonic() - began) * 0.7 > deadline:
            break


def measure_network(plan: Plan, kind: str, receivers: int, where: str) -> None:
    sizes = plan.sizes(kind, receivers)
    trials: dict[int, Trial | None] = dict.fromkeys(sizes)
    try:
        load = Load(seconds=plan.seconds, programs=plan.programs)
        with contenders.make(kind, hosts=receivers + 1, offloads=plan.offloads) as network, settled(network, load):
            for size in sizes:
                near = median(plan.rates(Case(kind, receivers, size)))
                load = replace(load, size=size)
                trials[size] = highest_rate(network, load, confirm_s=plan.seconds * CONFIRM_SHARE, near_pps=near)
    except PipelineError as error:
        plan.failures[f"{kind}, {receivers} receivers"] = str(error)
        log_progress(f"{where}: {kind}, {receivers} receivers: {error}")
    for size, trial in trials.items():
        plan.found.setdefault(Case(kind, receivers, size), []).append(trial)
        rate = f"{trial.delivered_pps / 1000:.1f} kpps, {trial.cpu_per_gbit:.2f} CPU s/Gbit" if trial else "no rate"
        log_progress(f"{where}: {kind}, {receivers} receivers, {size} B: {rate}")


# ---------------------------------------------------------------- tables


HEADER = ("network", "encrypted", "kpps", "Mbit/s", "CPU s/Gbit", "rate × VXLAN", "rate × native", "CPU × VXLAN")


def rate_table(plan: Plan, receivers: int, size: int) -> str:
    """Return a row for each kind that was measured in this case, with a dash where there is no figure."""
    encrypted = {kind: not kind.endswith("insecure") and kind not in ("native", "vxlan") for kind in plan.kinds}
    rows = []
    for kind in plan.kinds:
        case = Case(kind, receivers, size)
        if case not in plan.found:
            continue
        pps = median(plan.rates(case))
        rows.append(
            [
                kind,
                "yes" if encrypted[kind] else "no",
                pps / 1000 if pps else None,
                pps * size * 8 / 1e6 if pps else None,
                median(plan.costs(case)),
                rate_ratio(plan, case, "vxlan"),
                rate_ratio(plan, case, "native"),
                cost_ratio(plan, case, "vxlan"),
            ]
        )
    return table(HEADER, rows)


def rate_ratio(plan: Plan, case: Case, base: str) -> float | None:
    return ratio_of_rounds(plan.rates(case), plan.rates(Case(base, case.receivers, case.size)))


def cost_ratio(plan: Plan, case: Case, base: str) -> float | None:
    return ratio_of_rounds(plan.costs(case), plan.costs(Case(base, case.receivers, case.size)))


def fastest_vpn(plan: Plan, receivers: int) -> str | None:
    """Return the VPN with the highest median rate, or None."""
    medians = {kind: median(plan.rates(Case(kind, receivers, SIZE))) for kind in contenders.VPN_NAMES}
    rates = {kind: rate for kind, rate in medians.items() if rate}
    return max(rates, key=lambda kind: rates[kind]) if rates else None


def goals(plan: Plan) -> list[tuple[Goal, float | None]]:
    """Return the goals of this measurement with the measured values."""
    vpn = fastest_vpn(plan, 3)
    ours, small = Case(OURS, 3, SIZE), Case(OURS, 3, SMALL)
    one, four = Case(OURS, 1, SIZE), Case(OURS, 4, SIZE)
    return [
        (Goal("packets/s, 1 receiver, × VXLAN", 2, 3), rate_ratio(plan, one, "vxlan")),
        (Goal("packets/s, 3 receivers, × VXLAN", 3.5, 5), rate_ratio(plan, ours, "vxlan")),
        (Goal("packets/s, 7 receivers, × VXLAN", 4.5, 8), rate_ratio(plan, Case(OURS, 7, SIZE), "vxlan")),
        (Goal("packets/s, 3 receivers, × native multicast", 2.2, 3), rate_ratio(plan, ours, "native")),
        (
            Goal(f"packets/s, 3 receivers, × {vpn or 'fastest VPN'}", 6, 10),
            rate_ratio(plan, ours, vpn) if vpn else None,
        ),
        (
            Goal("CPU per delivered Gbit, 3 receivers, × VXLAN", 0.45, 0.3, at_most=True),
            cost_ratio(plan, ours, "vxlan"),
        ),
        (Goal("packets/s of 64 bytes, 3 receivers, × VXLAN", 4, 8), rate_ratio(plan, small, "vxlan")),
        (Goal("packets/s, 3 receivers, 8 workers × 4 workers", 0.9), rate_ratio(plan, Case("ours-8", 3, SIZE), OURS)),
        (Goal("packets/s, 1 receiver, sealed × insecure", 0.8), rate_ratio(plan, one, INSECURE)),
        (Goal("packets/s, 4 receivers, sealed × insecure", 0.9), rate_ratio(plan, four, INSECURE)),
    ]


def result(plan: Plan, background: float, versions: dict[str, str]) -> Result:
    reached = goals(plan)
    cases: list[dict[str, Any]] = [
        {"kind": case.kind, "receivers": case.receivers, "size": case.size, "rounds": [t and t.json() for t in trials]}
        for case, trials in plan.found.items()
    ]
    goal_rows = [{"goal": goal.what, "value": value, "verdict": goal.verdict(value)} for goal, value in reached]
    found = Result("versus", {"cases": cases, "goals": goal_rows, "failures": plan.failures, "packages": versions})
    found.data["programs"] = plan.programs
    found.data["background_share"] = background
    for size in (SIZE, SMALL):
        for receivers in plan.receivers:
            if any((case.receivers, case.size) == (receivers, size) for case in plan.found):
                title = f"Payload {size} B, {receivers} receiver{'s' if receivers > 1 else ''}"
                found.add(title, rate_table(plan, receivers, size))
    found.add("To reach", goal_table(reached))
    remarks = [f"- {what}: {why}" for what, why in plan.failures.items()]
    rounds = max((len(trials) for trials in plan.found.values()), default=0)
    remarks.append(f"- sending programs: {plan.programs}")
    remarks.append(f"- {rounds} rounds; other work before the measurement: {background:.1%} of all CPUs")
    remarks += [f"- {package} {version}" for package, version in versions.items()]
    found.add("Remarks", "\n".join(remarks))
    return found


def draw(plan: Plan) -> None:
    plot = Plot("versus", f"Highest rate with at most 0.1 % loss, payload {SIZE} B", columns=2, width=8.0)
    kinds = [kind for kind in plan.kinds if any(case.kind == kind for case in plan.found)]
    names = [kind.replace("-", "\n") for kind in kinds]
    rates, costs = {}, {}
    for count in plan.receivers:
        label = f"{count} receiver{'s' if count > 1 else ''}"
        rates[label] = [(median(plan.rates(Case(kind, count, SIZE))) or 0.0) / 1000 for kind in kinds]
        costs[label] = [median(plan.costs(Case(kind, count, SIZE))) for kind in kinds]
    plot.bars(plot.axes[0], names, rates, "kpps to every receiver")
    plot.bars(plot.axes[1], names, costs, "CPU seconds per delivered Gbit")
    for axis in plot.axes:
        axis.tick_params(axis="x", labelsize=7)
    plot.save()


# ---------------------------------------------------------------- command line


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__ or "", seconds=1.0, rounds=3)
    contenders.add_kinds(parser, None)
    parser.add_argument("--receivers", default="1,3,7", help="numbers of receivers")
    parser.add_argument("--programs", type=int, default=1, help="sending programs, and receiving programs on each host")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no round that would end much later")
    parser.add_argument("--no-offloads", action="store_true", help="run without super-packets on the underlay")
    return parser.parse_args(argv)


def plan(options: argparse.Namespace) -> Plan:
    quick = options.quick
    default = QUICK_KINDS if quick else [kind for kind in contenders.kinds() if kind != contenders.BUSY]
    kinds: list[str] = options.kinds or list(default)
    return Plan(
        kinds=kinds,
        receivers=[int(word) for word in options.receivers.split(",")],
        programs=options.programs,
        rounds=min(options.rounds, 2) if quick else options.rounds,
        seconds=min(options.seconds, 0.5) if quick else options.seconds,
        quick=quick,
        all_counts=QUICK_ALL_COUNTS if quick and not options.kinds else tuple(kinds),
        offloads=not options.no_offloads,
    )


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    measured = plan(options)
    programs = [program for kind in measured.kinds for program in contenders.programs(kind)]
    packages.install(programs)
    background = background_share()
    began = time.monotonic()
    minutes = min(options.minutes, QUICK_MINUTES) if options.quick else options.minutes
    measure(measured, time.monotonic() + minutes * 60)
    log_progress(f"measured for {time.monotonic() - began:.0f} s")
    found = result(measured, background, packages.versions(programs))
    draw(measured)
    found.publish(as_json=options.json)
    return 0


if __name__ == "__main__":
    run(main)
