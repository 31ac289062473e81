"""All measurements, one after the other: `make perf` is the short version, within 10 minutes.

    python -m perf [--full] [--only versus,latency] [--json]      measure; results/ has each, and summary.md all
    python -m perf --quote                                        put summary.md into README.md

Each runs in a process of its own and with what is left of the time; one that fails or takes too long is named in
the summary and does not keep the others from running.  The exit code is 1 if one did, whatever the figures are.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.report import RESULTS, machine, machine_line, say, table

HERE = Path(__file__).resolve().parent
SHORT_S = 600.0
FULL_S = 3 * 3600.0
INTERRUPT_S = 20.0
"""Between SIGINT, upon which a laboratory is removed, and SIGKILL."""

BEGIN, END = "<!-- figures begin: python -m perf --quote -->", "<!-- figures end -->"


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement; `script` is false for those that do not write into results/ themselves."""

    name: str
    title: str
    command: tuple[str, ...]
    quick: tuple[str, ...] = ("--quick",)
    script: bool = True


def python(name: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / f"{name}.py"))


STEPS = (
    Step("versus", "Against VXLAN, native multicast and VPNs", python("versus")),
    Step("latency", "Latency", python("latency")),
    Step("streams", "Streams at once", python("streams")),
    Step("cpu_profile", "CPU by process and packet", python("cpu_profile")),
    Step("hotspots", "Where the time goes", python("hotspots")),
    Step("scaling", "Scaling", python("scaling")),
    Step("iperf_load", "iperf 2", python("iperf_load")),
    Step(
        "native", "The parts in C", ("make", "-s", "-C", str(HERE.parent / "tests/native"), "bench"), (), script=False
    ),
    Step("membership_rate", "Membership", python("membership_rate"), ("--groups", "4096"), script=False),
)


# ---------------------------------------------------------------- running


def run(step: Step, *, full: bool, timeout_s: float) -> str | None:
    """Run one to its end; what went wrong, or None.  Its output goes to results/NAME.md."""
    args = [*step.command, *(() if full else step.quick)]
    (RESULTS / f"{step.name}.md").unlink(missing_ok=True)
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return end(process, f"not done after {timeout_s:.0f} s")
    except KeyboardInterrupt:
        end(process, "interrupted")
        raise
    if process.returncode != 0:
        return f"exit code {process.returncode}"
    if not step.script:
        (RESULTS / f"{step.name}.md").write_text(f"```\n{output.strip()}\n```\n\n*{machine_line(machine())}*\n")
    return None


def end(process: subprocess.Popen[str], why: str) -> str:
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=INTERRUPT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return why


# ---------------------------------------------------------------- the summary


def results() -> dict[str, dict[str, Any]]:
    """The results that are there, by name."""
    found = {}
    for step in STEPS:
        path = RESULTS / f"{step.name}.json"
        if step.script and path.exists() and (RESULTS / f"{step.name}.md").exists():
            found[step.name] = json.loads(path.read_text())
    return found


def summary(failures: dict[str, str]) -> str:
    """Every goal in one table, then all tables."""
    found = results()
    rows = [
        [goal["goal"], goal["value"], goal["verdict"], name]
        for name, result in found.items()
        for goal in result.get("goals", [])
    ]
    parts = [f"Taken on {machine_line(machine())}.", table(["goal", "measured", "", "by"], rows)]
    parts += [f"- `{name}`: {why}" for name, why in failures.items()]
    for step in STEPS:
        path = RESULTS / f"{step.name}.md"
        if path.exists():
            parts.append(f"## {step.title}\n\n{path.read_text().strip()}")
    return "\n\n".join(parts) + "\n"


def quote(readme: Path, text: str) -> None:
    """Put the summary between the marks of the page."""
    page = readme.read_text()
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    below = re.sub(r"^(#+ )", r"#\1", text.strip(), flags=re.MULTILINE)  # headings stand under the page's own
    readme.write_text(f"{before}{BEGIN}\n\n{below}\n\n{END}{after}")


# ---------------------------------------------------------------- command line


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="the long version: hours, for figures that are quoted")
    parser.add_argument("--only", default=None, help=f"some of: {','.join(step.name for step in STEPS)}")
    parser.add_argument("--quote", action="store_true", help="measure nothing; put results/summary.md into README.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args(argv)
    if options.quote:
        quote(HERE / "README.md", (RESULTS / "summary.md").read_text())
        return 0
    steps = [step for step in STEPS if not options.only or step.name in options.only.split(",")]
    RESULTS.mkdir(exist_ok=True)
    deadline = time.monotonic() + (FULL_S if options.full else SHORT_S)
    failures = {}
    for step in steps:
        say(f"== {step.title}")
        why = run(step, full=options.full, timeout_s=max(1.0, deadline - time.monotonic() - INTERRUPT_S))
        if why:
            failures[step.name] = why
            say(f"{step.name}: {why}")
    (RESULTS / "summary.md").write_text(summary(failures))
    print(json.dumps({"schema": 1, "results": results(), "failures": failures}) if options.json else summary(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
