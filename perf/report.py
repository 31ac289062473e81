"""Output of a measurement: tables, goals, JSON, files and plots.

Tables are Markdown, so README.md can quote them unchanged. A result is one JSON object, with the machine, the date and
the version of the code. This module does not know networks or traffic.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pipeline import __version__
from pipeline.errors import PipelineError

RESULTS = Path(__file__).resolve().parent / "results"
Cell = str | int | float | None


# ---------------------------------------------------------------- tables


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a Markdown table: the first column is left-aligned, the others right-aligned; None becomes a dash."""
    cells = [list(header), *([text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join(lines)


def text(cell: Cell) -> str:
    """Format a cell; figures get three significant digits."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are not None; None if there is none."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def ratio(value: float | None, base: float | None) -> float | None:
    """Return value / base; None if one of them is missing or the base is 0."""
    return value / base if value is not None and base else None


def ratio_of_rounds(values: Sequence[float | None], bases: Sequence[float | None]) -> float | None:
    """Return the median of the ratios within each round, for the rounds in which both have a value.

    A machine that is slow in one round is slow for both values of that round.
    """
    return median(ratio(value, base) for value, base in zip(values, bases, strict=False))


# ---------------------------------------------------------------- goals


@dataclass(frozen=True, slots=True)
class Goal:
    """Figure to reach: at least (or at most) `bound`, and `aim` as the more ambitious value."""

    what: str
    bound: float
    aim: float | None = None
    at_most: bool = False

    def verdict(self, value: float | None) -> str:
        if value is None:
            return "not measured"
        if self.aim is not None and self._holds(value, self.aim):
            return "aim reached"
        return "reached" if self._holds(value, self.bound) else "NOT reached"

    def row(self, value: float | None) -> list[Cell]:
        sign = "≤" if self.at_most else "≥"
        aim = None if self.aim is None else f"{sign} {text(self.aim)}"
        return [self.what, f"{sign} {text(self.bound)}", aim, value, self.verdict(value)]

    def _holds(self, value: float, bound: float) -> bool:
        return value <= bound if self.at_most else value >= bound


GOAL_HEADER = ("goal", "bar", "aim", "measured", "")


def goal_table(rows: Iterable[tuple[Goal, float | None]]) -> str:
    return table(GOAL_HEADER, (goal.row(value) for goal, value in rows))


# ---------------------------------------------------------------- the machine


def machine() -> dict[str, Any]:
    """Describe the machine and the code, without which a figure means nothing."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "date": time.strftime("%Y-%m-%d"),
        "version": __version__,
        "commit": _commit(),
    }


def machine_line(found: Mapping[str, Any]) -> str:
    return (
        f"{found['cpus']} CPUs {found['cpu']}, Linux {found['kernel']}, {found['date']}, "
        f"mcast-pipeline {found['version']}" + (f" ({found['commit']})" if found["commit"] else "")
    )


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=RESULTS.parent,
            check=False,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


# ---------------------------------------------------------------- the result of one script


@dataclass(slots=True)
class Result:
    """Result of one script: sections of text to print, and data for JSON."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    sections: list[tuple[str, str]] = field(default_factory=list)

    def add(self, title: str, body: str) -> None:
        self.sections.append((title, body))

    def markdown(self) -> str:
        found = machine()
        parts = [f"### {title}\n\n{body}" for title, body in self.sections]
        return "\n\n".join([f"<!-- perf/{self.name}.py -->", *parts, f"*{machine_line(found)}*"]) + "\n"

    def publish(self, *, as_json: bool) -> None:
        """Write results/NAME.json and NAME.md, and print one of the two."""
        RESULTS.mkdir(exist_ok=True)
        whole = {"schema": 1, "measurement": self.name, "machine": machine(), **self.data}
        encoded = json.dumps(whole, indent=1, allow_nan=False, default=_plain)
        (RESULTS / f"{self.name}.json").write_text(encoded + "\n")
        (RESULTS / f"{self.name}.md").write_text(self.markdown())
        print(encoded if as_json else self.markdown(), flush=True)


def _plain(value: object) -> object:
    json_of = getattr(value, "json", None)
    if callable(json_of):
        return json_of()
    raise TypeError(f"not JSON: {type(value)}")


# ---------------------------------------------------------------- command line and progress


def arguments(description: str, *, seconds: float, rounds: int | None = None) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts have."""
    parser = argparse.ArgumentParser(
        description=description.partition("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--quick", action="store_true", help="the short version: fewer and shorter trials")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of one trial")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="number of rounds, each of all kinds")
    return parser


def run(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit; an expected error becomes one line on stderr, Ctrl-C exit code 130."""
    try:
        sys.exit(main())
    except PipelineError as error:
        print(f"{Path(sys.argv[0]).name}: {str(error).strip()}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def log_progress(line: str) -> None:
    """Print a line of progress on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- plots


class Plot:
    """One PNG in results/; matplotlib is imported only here, since the import takes a second."""

    def __init__(self, name: str, title: str, *, columns: int = 1, width: float = 7.0) -> None:
        import matplotlib as mpl  # noqa: PLC0415

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415

        self._close = plt.close
        self.path = RESULTS / f"{name}.png"
        self.figure, axes = plt.subplots(1, columns, figsize=(width * columns, 4.2), squeeze=False)
        self.axes: list[Any] = list(axes[0])
        self.figure.suptitle(title)
        for axis in self.axes:
            axis.grid(alpha=0.3)
            axis.set_axisbelow(True)

    def bars(self, axis: Any, groups: Sequence[str], series: Mapping[str, Sequence[float | None]], label: str) -> None:
        """Draw bars side by side: one cluster of bars for each name in `groups`, one colour for each series."""
        width = 0.84 / max(1, len(series))
        for index, (name, values) in enumerate(series.items()):
            places = [at + (index - (len(series) - 1) / 2) * width for at in range(len(groups))]
            axis.bar(places, [value or 0.0 for value in values], width, label=name)
        axis.set_xticks(range(len(groups)), groups)
        axis.set_ylabel(label)
        if len(series) > 1:
            axis.legend(fontsize=7)

    def lines(self, axis: Any, series: Mapping[str, Sequence[tuple[float, float | None]]], x: str, y: str) -> None:
        """Draw a line for each series, without missing points."""
        for name, points in series.items():
            present = [(at, value) for at, value in points if value is not None]
            axis.plot([at for at, _ in present], [value for _, value in present], marker="o", label=name)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.set_ylim(bottom=0)
        if len(series) > 1:
            axis.legend(fontsize=7)

    def save(self) -> None:
        RESULTS.mkdir(exist_ok=True)
        self.figure.tight_layout()
        self.figure.savefig(self.path, dpi=110)
        self._close(self.figure)
