"""All measurements, one after the other; `make perf` runs the short version, which takes at most 10 minutes.

    python -m perf [--full] [--only versus,latency] [--json]      measure; results/ has each, and summary.md all

Each measurement is a process of its own and may use the time that is left. One that fails or takes too long is named
in the summary, and the others run nevertheless. The exit code is then 1; the figures do not change it.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.report import RESULTS, log_progress, machine, machine_line, table

HERE = Path(__file__).resolve().parent
SHORT_S = 600.0
FULL_S = 3 * 3600.0
INTERRUPT_S = 20.0
"""Time between SIGINT, on which a measurement removes its laboratory, and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement; `writes_results` is false for commands that only print their figures."""

    name: str
    title: str
    command: tuple[str, ...]
    quick: tuple[str, ...] = ("--quick",)
    writes_results: bool = True


def python(name: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / f"{name}.py"))


STEPS = (
    Step("versus", "Against VXLAN, native multicast and VPNs", python("versus")),
    Step("latency", "Latency", python("latency")),
    Step("streams", "Several streams at once", python("streams")),
    Step("cpu_profile", "CPU by process and packet", python("cpu_profile")),
    Step("hotspots", "Where the time goes", python("hotspots")),
    Step("scaling", "Scaling", python("scaling")),
    Step("iperf_load", "iperf 2", python("iperf_load")),
    Step(
        "native",
        "The parts in C",
        ("make", "-s", "-C", str(HERE.parent / "tests/native"), "bench"),
        (),
        writes_results=False,
    ),
    Step("membership_rate", "Membership", python("membership_rate"), ("--groups", "4096"), writes_results=False),
)


# ---------------------------------------------------------------- running


def run(step: Step, *, full: bool, timeout_s: float) -> str | None:
    """Run one measurement, with its output in results/NAME.md; return the reason if it failed, or None."""
    args = [*step.command, *(() if full else step.quick)]
    (RESULTS / f"{step.name}.md").unlink(missing_ok=True)
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        interrupt(process)
        return f"not finished after {timeout_s:.0f} s"
    except KeyboardInterrupt:
        interrupt(process)
        raise
    if process.returncode != 0:
        return f"exit code {process.returncode}"
    if not step.writes_results:
        (RESULTS / f"{step.name}.md").write_text(f"```\n{output.strip()}\n```\n\n*{machine_line(machine())}*\n")
    return None


def interrupt(process: subprocess.Popen[str]) -> None:
    """End a measurement: SIGINT first, then SIGKILL."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=INTERRUPT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------- the summary


def results() -> dict[str, dict[str, Any]]:
    """Return the results that exist, by name."""
    found = {}
    for step in STEPS:
        path = RESULTS / f"{step.name}.json"
        if step.writes_results and path.exists() and (RESULTS / f"{step.name}.md").exists():
            found[step.name] = json.loads(path.read_text())
    return found


def summary(failures: dict[str, str]) -> str:
    """Return the goals of all measurements in one table, then the tables of every measurement."""
    rows = [
        [goal["goal"], goal["value"], goal["verdict"], name]
        for name, result in results().items()
        for goal in result.get("goals", [])
    ]
    parts = [f"Taken on {machine_line(machine())}.", table(["goal", "measured", "", "by"], rows)]
    parts += [f"- `{name}`: {reason}" for name, reason in failures.items()]
    for step in STEPS:
        path = RESULTS / f"{step.name}.md"
        if path.exists():
            parts.append(f"## {step.title}\n\n{path.read_text().strip()}")
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- command line


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="the long version, for quoted figures; it takes hours")
    parser.add_argument("--only", default=None, help=f"some of: {','.join(step.name for step in STEPS)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args(argv)
    steps = [step for step in STEPS if not options.only or step.name in options.only.split(",")]
    RESULTS.mkdir(exist_ok=True)
    deadline = time.monotonic() + (FULL_S if options.full else SHORT_S)
    failures = {}
    for step in steps:
        log_progress(f"== {step.title}")
        reason = run(step, full=options.full, timeout_s=max(1.0, deadline - time.monotonic() - INTERRUPT_S))
        if reason:
            failures[step.name] = reason
            log_progress(f"{step.name}: {reason}")
    (RESULTS / "summary.md").write_text(summary(failures))
    print(json.dumps({"schema": 1, "results": results(), "failures": failures}) if options.json else summary(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
