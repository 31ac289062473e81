"""Profile of the whole machine near the highest rate: by process, and by kernel, cipher and own code.

Method: a stream of datagrams of 1316 bytes at a rate just below the highest one. In its middle `perf record -a` samples
all CPUs 2,000 times a second by the clock. Shares are of the whole machine, so they include the programs that send and
receive, with their system calls. A softirq counts for the process that it interrupted: the delivery of a datagram over
veth into the receiver's socket counts for overlay_egress of the sender.

    python perf/hotspots.py [--quick] [--workers 4] [--loads 1:180000,3:100000,7:50000] [--json]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from perf import packages
from perf.contenders import Pipeline
from perf.measure import Load, background_share, run_trial, settled
from perf.report import Cell, Result, arguments, log_progress, run, table
from pipeline.errors import PipelineError, UsageError

STAGES = {
    "mp-tun_ingress": "tun_ingress",
    "mp-classify": "classify",
    "mp-overlay_egr": "overlay_egress",
    "mp-overlay_ing": "overlay_ingress",
    "mp-control": "control",
    "swapper": "idle",
}
"""Name of a row by the first characters of the process name, of which the kernel keeps 15."""
OTHERS = "programs and the rest"
AREAS = {"[kernel.kallsyms]": "kernel", "libIPSec_MB": "cipher", "libcrypto": "cipher", "_native.abi3.so": "own C"}
"""Area by the first characters of the file that contains the code; any other file is `other`."""
FREQUENCY = 2000
LEAD_S = 1.0
"""Time from the start of the stream to the first sample."""
SYMBOLS = 8


@dataclass(frozen=True, slots=True)
class Hotspots:
    """Shares of the machine's CPU time during a load, in percent."""

    receivers: int
    pps: float
    loss: float
    areas: dict[str, dict[str, float]]
    """Percent by process, then by area."""
    symbols: dict[str, list[tuple[str, float]]]
    """Functions with the largest shares, by process."""


def process_of(comm: str) -> str:
    return next((name for prefix, name in STAGES.items() if comm.startswith(prefix)), OTHERS)


def shares(data: Path, key: str) -> dict[str, dict[str, float]]:
    """Return the percent of all samples by process, then by `key`: "dso" (file of the code) or "sym" (function)."""
    options = ("--stdio", "-t", "|", "--sort", f"comm,{key}", "-F", f"overhead,comm,{key}")
    done = subprocess.run(["perf", "report", "-i", data, *options], check=False, capture_output=True, timeout=60)
    if done.returncode:
        raise PipelineError(f"perf report: {done.stderr.decode(errors='replace').strip()}")
    found: dict[str, dict[str, float]] = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        fields = [field.strip() for field in line.split("|", 2)]
        if len(fields) == 3 and fields[0].endswith("%"):
            add(found.setdefault(process_of(fields[1]), {}), fields[2], float(fields[0][:-1]))
    return found


def add(row: dict[str, float], key: str, percent: float) -> None:
    row[key] = row.get(key, 0.0) + percent


def by_area(data: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for process, files in shares(data, "dso").items():
        row = found.setdefault(process, {})
        for file, percent in files.items():
            add(row, next((area for name, area in AREAS.items() if file.startswith(name)), "other"), percent)
    return found


def by_symbol(data: Path) -> dict[str, list[tuple[str, float]]]:
    """Return the functions with the largest shares; functions of stripped files have no name and are left out."""
    found = {}
    for process, symbols in shares(data, "sym").items():
        named = [(symbol[4:], percent) for symbol, percent in symbols.items() if not symbol[4:].startswith("0x")]
        found[process] = sorted(named, key=lambda item: -item[1])[:SYMBOLS]
    return {process: named for process, named in found.items() if process not in ("idle", "control")}


def measure(receivers: int, pps: int, seconds: float, workers: int) -> Hotspots:
    """Run one load and sample it in its middle."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Pipeline(receivers + 1, workers=workers) as network,
        settled(network),
    ):
        data = Path(folder) / "perf.data"
        options = ("-q", "-a", "-e", "cpu-clock", "-F", str(FREQUENCY), "-D", f"{LEAD_S * 1000:.0f}", "-o", str(data))
        command = ["perf", "record", *options, "sleep", f"{LEAD_S + seconds}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as record:
            trial = run_trial(network, Load(pps=pps, seconds=seconds + 2 * LEAD_S))
            _, errors = record.communicate(timeout=seconds + 30)
        if record.returncode:
            raise PipelineError(f"perf record: {errors.decode(errors='replace').strip()}")
        return Hotspots(receivers, trial.pps, trial.loss, by_area(data), by_symbol(data))


def result(found: list[Hotspots], background: float, workers: int) -> Result:
    report = Result(
        "hotspots", {"hotspots": [asdict(each) for each in found], "workers": workers, "background_share": background}
    )
    areas = [*dict.fromkeys(AREAS.values()), "other"]
    for each in found:
        rows: list[list[Cell]] = []
        for process in [*STAGES.values(), OTHERS]:
            row = each.areas.get(process, {})
            rows.append([process, sum(row.values()), *(row.get(area, 0.0) for area in areas)])
        what = f"Receivers: {each.receivers}"
        report.add(
            f"{what}, {each.pps:,.0f} packets/s, worst loss {each.loss:.2%}: % of both CPUs",
            table(["process", "all", *areas], rows),
        )
        lines = [
            f"- {process}: " + ", ".join(f"`{name}` {percent:.1f}" for name, percent in symbols)
            for process, symbols in sorted(each.symbols.items())
        ]
        report.add(f"{what}: functions, %", "\n".join(lines))
    report.add(
        "Remarks",
        f"- {workers} workers; `other` is libc, Python and the programs' own code\n"
        f"- other work before the measurement: {background:.1%} of all CPUs",
    )
    return report


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__ or "", seconds=4.0)
    parser.add_argument("--workers", type=int, default=4, choices=(1, 2, 4, 8))
    parser.add_argument("--loads", default="1:180000,3:100000,7:50000", help="receivers:packets a second, …")
    return parser.parse_args(argv)


def loads(text: str) -> list[tuple[int, int]]:
    """Return (receivers, packets a second) pairs from the value of --loads."""
    try:
        return [(int(receivers), int(pps)) for receivers, _, pps in (word.partition(":") for word in text.split(","))]
    except ValueError:
        raise UsageError(f"--loads {text}: expected RECEIVERS:RATE, …") from None


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    pairs = loads(options.loads)
    if packages.install(["perf"]):
        raise PipelineError("the program `perf` is missing and apt cannot install it: install linux-perf")
    seconds = min(options.seconds, 2.0) if options.quick else options.seconds
    background = background_share()
    found = []
    for receivers, pps in pairs:
        found.append(measure(receivers, pps, seconds, options.workers))
        log_progress(f"{receivers} receivers, {pps} packets/s: sampled")
    result(found, background, options.workers).publish(as_json=options.json)
    return 0


if __name__ == "__main__":
    run(main)
