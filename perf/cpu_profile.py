"""CPU, context switches and memory of each process of a node, per packet.

Method: a stream of datagrams of 1316 bytes at fixed rates from host 1 to the receivers, and an idle phase. Before and
after each, the script reads CPU time (schedstat, in nanoseconds), context switches and memory (psutil) of every process
of the sending node and of one receiving node. CPU time includes system calls and the interrupts during a process. With
4 workers a process is a stage. The rest of the machine's CPU is traffic programs, kernel threads, the other receivers
and unrelated work.

    python perf/cpu_profile.py [--quick] [--workers 4] [--receivers 3] [--rates 1000,20000,50000] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from perf.contenders import Pipeline
from perf.measure import CpuClock, Load, Trial, background_share, run_trial, settled
from perf.report import Cell, Goal, Plot, Result, arguments, goal_table, log_progress, run, table
from pipeline.lab.instance import Instance

STAGES = ("tun_ingress", "classify", "overlay_egress", "overlay_ingress", "sender", "receiver", "all")
HEADER = ("process", "% of a core", "µs/packet", "waits/1,000", "preempted/1,000", "USS MiB")


# ---------------------------------------------------------------- one process


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources that a process has used so far."""

    cpu_s: float
    voluntary: int
    involuntary: int
    uss_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """Resources that a process used during a load."""

    name: str
    cpu_percent: float
    us_per_packet: float | None
    voluntary: float | None
    involuntary: float | None
    uss_mib: float

    def cells(self) -> list[Cell]:
        return [self.name, self.cpu_percent, self.us_per_packet, self.voluntary, self.involuntary, self.uss_mib]


def processes(instance: Instance) -> dict[str, int]:
    """Return the pids of a node by role: supervisor, control, and each worker with its lane."""
    found = {"supervisor": instance.process.pid}
    workers = instance.show("workers")
    lanes = {worker["lane"] for worker in workers if worker["role"] in STAGES}
    for worker in workers:
        lane = f" {worker['lane']}" if len(lanes) > 1 and worker["role"] in STAGES else ""
        found[worker["role"] + lane] = worker["pid"]
    return found


def sample(pid: int) -> Sample:
    process = psutil.Process(pid)
    switches = process.num_ctx_switches()
    uss = 0
    with contextlib.suppress(psutil.AccessDenied):
        uss = process.memory_full_info().uss
    return Sample(cpu_s(pid), switches.voluntary, switches.involuntary, uss)


def cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process, in seconds."""
    total_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total_ns += int(path.read_text().split()[0])
    return total_ns / 1e9


def difference(name: str, before: Sample, after: Sample, seconds: float, packets: int) -> Row:
    used = after.cpu_s - before.cpu_s
    per_1000 = 1000 / packets if packets else None
    return Row(
        name=name,
        cpu_percent=100 * used / seconds,
        us_per_packet=used * 1e6 / packets if packets else None,
        voluntary=(after.voluntary - before.voluntary) * per_1000 if per_1000 else None,
        involuntary=(after.involuntary - before.involuntary) * per_1000 if per_1000 else None,
        uss_mib=after.uss_bytes / 2**20,
    )


# ---------------------------------------------------------------- one load


@dataclass(frozen=True, slots=True)
class Profile:
    """Resources that a load cost; `trial` is None for the idle phase."""

    rate: int
    trial: Trial | None
    machine_percent: float
    sender: list[Row]
    receiver: list[Row]
    pss_mib: float

    @property
    def rest_percent(self) -> float:
        """CPU of the machine outside of these two nodes, in percent of a core."""
        return self.machine_percent - sum(row.cpu_percent for row in [*self.sender, *self.receiver])

    def json(self) -> dict[str, Any]:
        return {
            "rate": self.rate,
            "trial": self.trial and self.trial.json(),
            "machine_percent": self.machine_percent,
            "sender": [asdict(row) for row in self.sender],
            "receiver": [asdict(row) for row in self.receiver],
            "pss_mib": self.pss_mib,
        }


def profile(network: Pipeline, rate: int, seconds: float) -> Profile:
    """Run the load between two samples of every process; percentages refer to the duration of the stream."""
    nodes = network.instances[:2]
    pids = [processes(node) for node in nodes]
    before = [{name: sample(pid) for name, pid in found.items()} for found in pids]
    clock = CpuClock.read()
    trial: Trial | None = None
    if rate:
        trial = run_trial(network, Load(pps=rate, seconds=seconds))
    else:
        time.sleep(seconds)
    now = CpuClock.read()
    after = [{name: sample(pid) for name, pid in found.items()} for found in pids]
    busy_s = trial.seconds if trial else now.wall_s - clock.wall_s
    packets = trial.sent if trial else 0
    rows = [
        [difference(name, old[name], new[name], busy_s, packets) for name in old]
        for old, new in zip(before, after, strict=True)
    ]
    machine_percent = 100 * now.busy_since(clock) / busy_s
    return Profile(rate, trial, machine_percent, rows[0], rows[1], nodes[0].pss_bytes() / 2**20)


# ---------------------------------------------------------------- tables


def goals(profiles: list[Profile]) -> list[tuple[Goal, float | None]]:
    """Return the limits of idle CPU and memory that a user may rely on, with the measured values."""
    idle = next((each for each in profiles if not each.rate), None)
    idle_percent = sum(row.cpu_percent for row in idle.sender) if idle else None
    memory = max(each.pss_mib for each in profiles) * 2**20 / 1e6
    return [
        (Goal("idle: % of a core, whole node", 1.0, at_most=True), idle_percent),
        (Goal("memory of a node (PSS), MB", 120.0, at_most=True), memory),
    ]


def result(profiles: list[Profile], background: float, workers: int, receivers: int) -> Result:
    reached = goals(profiles)
    goal_rows = [{"goal": goal.what, "value": value, "verdict": goal.verdict(value)} for goal, value in reached]
    data = {"profiles": profiles, "goals": goal_rows, "workers": workers, "receivers": receivers}
    found = Result("cpu_profile", {**data, "background_share": background})
    for each in profiles:
        what = f"{each.rate:,} packets/s" if each.rate else "idle"
        if each.trial:
            what += f" (sent {each.trial.pps:,.0f}/s, worst loss {each.trial.loss:.2%})"
        for side, rows in (("sending node", each.sender), ("receiving node", each.receiver)):
            total = sum(row.cpu_percent for row in rows)
            per_packet = [row.us_per_packet for row in rows if row.us_per_packet is not None]
            last: list[Cell] = ["sum", total, sum(per_packet) if per_packet else None, None, None, None]
            found.add(f"{what}: {side}", table(HEADER, [*(row.cells() for row in rows), last]))
        shares = f"{each.machine_percent:.0f} % of a core, including {each.rest_percent:.0f} % outside of the two nodes"
        found.add(f"{what}: machine", shares)
    found.add("To reach", goal_table(reached))
    remark = f"- {workers} workers, {receivers} receivers; a node's memory is {profiles[-1].pss_mib:.0f} MiB (PSS)"
    found.add("Remarks", f"{remark}\n- other work before the measurement: {background:.1%} of all CPUs")
    return found


def draw(profiles: list[Profile]) -> None:
    loads = [each for each in profiles if each.rate]
    plot = Plot("cpu_profile", "CPU per packet by process", columns=2)
    for axis, side in zip(plot.axes, ("sender", "receiver"), strict=True):
        names = [row.name for row in getattr(loads[0], side)]
        bottoms = [0.0] * len(loads)
        for index, name in enumerate(names):
            values = [getattr(each, side)[index].us_per_packet or 0.0 for each in loads]
            axis.bar([f"{each.rate:,}/s" for each in loads], values, bottom=bottoms, label=name)
            bottoms = [bottom + value for bottom, value in zip(bottoms, values, strict=True)]
        axis.set_ylabel(f"µs per packet, {'sending' if side == 'sender' else 'receiving'} node")
        axis.legend(fontsize=7)
    plot.save()


# ---------------------------------------------------------------- command line


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__ or "", seconds=5.0)
    parser.add_argument("--workers", type=int, default=4, choices=(1, 2, 4, 8))
    parser.add_argument("--receivers", type=int, default=3)
    parser.add_argument("--rates", default="1000,20000,50000", help="packets a second")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    seconds = min(options.seconds, 2.0) if options.quick else options.seconds
    rates = [0, *(int(word) for word in options.rates.split(","))]
    background = background_share()
    profiles = []
    with Pipeline(options.receivers + 1, workers=options.workers) as network, settled(network):
        for rate in rates:
            profiles.append(profile(network, rate, seconds))
            log_progress(
                f"{rate} packets/s: {sum(row.cpu_percent for row in profiles[-1].sender):.1f} % of a core, sending node"
            )
    found = result(profiles, background, options.workers, options.receivers)
    draw(profiles)
    found.publish(as_json=options.json)
    return 0


if __name__ == "__main__":
    run(main)
