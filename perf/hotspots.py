"""Where the time of both CPUs goes near the highest rate: by process, and by kernel, cipher and own code.

Method: a stream of 1316 bytes at a rate that a few receivers just take; in its middle `perf record -a` samples all CPUs
2,000 times a second by the clock.  Shares are of the whole machine: the programs that send and receive are in it, with
what the kernel does in their system calls.  A softirq counts for whom it interrupted: what overlay_egress sends over
veth is delivered to the receiver's socket in its time.

    python perf/hotspots.py [--quick] [--workers 4] [--loads 1:180000,3:100000,7:50000] [--json]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from perf import packages
from perf.measure import Load, background_share, run_trial, settled
from perf.peers import Pipeline
from perf.report import Cell, Result, arguments, run, say, table

STAGES = {
    "mp-tun_ingress": "tun_ingress",
    "mp-classify": "classify",
    "mp-overlay_egr": "overlay_egress",
    "mp-overlay_ing": "overlay_ingress",
    "mp-control": "control",
    "swapper": "idle",
}
"""What a row is called, by how the process's name begins (the kernel keeps 15 characters)."""
OTHERS = "programs and the rest"
AREAS = {"[kernel.kallsyms]": "kernel", "libcrypto.so.3": "cipher", "_native.abi3.so": "own C"}
"""By the file the code is in; the remainder is `other`."""
FREQUENCY = 2000
LEAD_S = 1.0
"""From the stream's beginning to the first sample."""
SYMBOLS = 8


@dataclass(frozen=True, slots=True)
class Hotspots:
    """Shares of the machine's time, in percent, while a load ran."""

    receivers: int
    pps: float
    loss: float
    areas: dict[str, dict[str, float]]
    """By process, then by area."""
    symbols: dict[str, list[tuple[str, float]]]
    """By process: the functions that take most."""


def process_of(comm: str) -> str:
    return next((name for prefix, name in STAGES.items() if comm.startswith(prefix)), OTHERS)


def shares(data: Path, key: str) -> list[tuple[float, str, str]]:
    """(percent, process, file or symbol) of all samples."""
    command = ["perf", "report", "-i", str(data), "--stdio", "-t", "|", "--sort", f"comm,{key}", "-F"]
    done = subprocess.run(
        [*command, f"overhead,comm,{key}"], check=True, capture_output=True, text=True, timeout=60, errors="replace"
    )
    found = []
    for line in done.stdout.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) >= 3 and fields[0].endswith("%"):
            found.append((float(fields[0][:-1]), process_of(fields[1]), fields[2]))
    return found


def by_area(data: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for percent, process, dso in shares(data, "dso"):
        row = found.setdefault(process, {})
        area = AREAS.get(dso, "other")
        row[area] = row.get(area, 0.0) + percent
    return found


def by_symbol(data: Path) -> dict[str, list[tuple[str, float]]]:
    sums: dict[str, dict[str, float]] = {}
    for percent, process, symbol in shares(data, "sym"):
        name = symbol.split("] ", 1)[-1].strip()
        if process != "idle" and not name.startswith("0x"):
            row = sums.setdefault(process, {})
            row[name] = row.get(name, 0.0) + percent
    return {
        process: sorted(row.items(), key=lambda item: -item[1])[:SYMBOLS]
        for process, row in sums.items()
        if process != "control"
    }


def measure(receivers: int, pps: int, seconds: float, workers: int) -> Hotspots:
    """One load, sampled."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Pipeline(receivers + 1, workers=workers) as network,
        settled(network),
    ):
        data = Path(folder) / "perf.data"
        record = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", str(FREQUENCY), "-o", str(data)]
        done: list[subprocess.CompletedProcess[bytes]] = []

        def sample() -> None:
            done.append(
                subprocess.run([*record, "sleep", str(seconds)], check=False, capture_output=True, timeout=seconds + 30)
            )

        timer = threading.Timer(LEAD_S, sample)
        timer.start()
        trial = run_trial(network, Load(pps=pps, seconds=seconds + 2 * LEAD_S))
        timer.join()
        if not done or done[0].returncode:
            raise RuntimeError(f"perf record: {done[0].stderr.decode(errors='replace').strip() if done else 'no run'}")
        return Hotspots(receivers, trial.pps, trial.loss, by_area(data), by_symbol(data))


def result(found: list[Hotspots], background: float, workers: int) -> Result:
    report = Result(
        "hotspots", {"hotspots": [asdict(each) for each in found], "workers": workers, "background_share": background}
    )
    areas = [*AREAS.values(), "other"]
    for each in found:
        rows: list[list[Cell]] = []
        for process in [*STAGES.values(), OTHERS]:
            row = each.areas.get(process, {})
            rows.append([process, sum(row.values()), *(row.get(area, 0.0) for area in areas)])
        what = f"{each.receivers} receivers, {each.pps:,.0f} packets/s, worst loss {each.loss:.2%}"
        report.add(f"{what}: % of both CPUs", table(["process", "all", *areas], rows))
        lines = [
            f"- {process}: " + ", ".join(f"`{name}` {percent:.1f}" for name, percent in symbols)
            for process, symbols in sorted(each.symbols.items())
        ]
        report.add(f"{each.receivers} receivers: functions, %", "\n".join(lines))
    report.add(
        "Remarks",
        f"- {workers} workers; `other` is libc, Python and the programs' own code\n"
        f"- other work on the machine before it began: {background:.1%} of its CPUs",
    )
    return report


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__ or "", seconds=4.0)
    parser.add_argument("--workers", type=int, default=4, choices=(1, 2, 4, 8))
    parser.add_argument("--loads", default="1:180000,3:100000,7:50000", help="receivers:packets a second, …")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    packages.install(["perf"])
    if not shutil.which("perf"):
        say("there is no `perf`: apt install linux-perf")
        return 1
    seconds = min(options.seconds, 2.0) if options.quick else options.seconds
    background = background_share()
    found = []
    for load in options.loads.split(","):
        receivers, pps = (int(word) for word in load.split(":"))
        found.append(measure(receivers, pps, seconds, options.workers))
        say(f"{receivers} receivers, {pps} packets/s: sampled")
    result(found, background, options.workers).publish(as_json=options.json)
    return 0


if __name__ == "__main__":
    run(main)
