"""Tables of `status`, `show` and `check`, in the manner of `ip` and `wg show`.

A noun's brief columns are declared in control/nouns.py, how a cell is written here.  A key without a declaration is
shown under --detail: nothing that the JSON has is out of reach.  Where a table is wider than the terminal, lists and
texts wrap; where that is not enough, each row becomes a paragraph.  No cell is ever cut.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import make_console, style
from pipeline.control.nouns import Noun
from pipeline.terminal import printable

Row = Mapping[str, Any]

COLUMN_GAP = 2
INDENT = " " * 4
"""Indent of the second and later lines of a row that is a paragraph."""
LIST_BRIEF = 6
"""Items of a long list in a brief table: sources and members can be hundreds."""
WIDTH_MAX = 400
"""Width on a pipe: more than any line needs."""


def render(noun: str, value: Any, *, detail: bool) -> None:
    """Print one value on stdout; on a pipe without styles and as wide as it needs to be."""
    console = make_console()
    if not console.is_terminal:
        console = make_console(width=WIDTH_MAX)
    with console.capture() as capture:
        _render(console, noun, value, detail=detail)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))


def _render(console: Console, noun: str, value: Any, *, detail: bool) -> None:
    if noun == "status":
        console.print(status_line(value))
    elif noun == Noun.COUNTERS:
        _counters(console, value, detail=detail)
    elif isinstance(value, list):
        _table(console, noun, value, detail=detail)
    elif isinstance(value, dict):
        for name, part in value.items():
            _part(console, name, part, detail=detail)
    else:
        console.print(_cell(value))


# ---------------------------------------------------------------- one line


def status_line(status: Row) -> Text:
    """Return “a: ready, mcast0 10.77.0.1/16, 4 workers, 3 of 3 peers up, 12 groups, up 2 h 5 min”."""
    reasons = "; ".join(map(str, status.get("degraded", {}).values()))
    parts = [
        f"{status['state']} ({reasons})" if reasons else str(status["state"]),
        " ".join([status["interface"], *status["addresses"]]),
        _count(status["workers"], "worker"),
        f"{status['peers_up']} of {_count(status['peers_known'], 'peer')} up",
        _count(status["groups_local"], "group"),
        f"up {duration(status['uptime_s'])}",
    ]
    return Text.assemble((printable(str(status["name"])), style("bold")), ": ", printable(", ".join(parts)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------- cells


def duration(seconds: float) -> str:
    """Return a time in its two largest units: 4.2 s, 3 min 5 s, 2 h 5 min, 4 d 2 h."""
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            rest = int(seconds % size) // part
            return f"{int(seconds // size)} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError(seconds)


def size(count: float) -> str:
    """Return a number of bytes with a binary unit: 512 B, 1.5 KiB, 20.0 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _rate(value: float) -> str:
    """Return Mbit/s as text, with three significant digits below 100."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{_cell(key)}={_cell(part)}" for key, part in value.items()) or "-"
    return printable(str(value))


def _brief_list(value: Any) -> str:
    """Return the first items of a list and the number of the others."""
    if isinstance(value, (list, tuple)) and len(value) > LIST_BRIEF:
        return f"{_cell(value[: LIST_BRIEF - 1])} and {len(value) - LIST_BRIEF + 1} more"
    return _cell(value)


def _percent(value: Any) -> str:
    return "-" if value is None else f"{value * 100:.2g} %"


def _milliseconds(value: Any) -> str:
    return "-" if value is None else f"{value:.2f} ms"


def _time(value: Any) -> str:
    return "-" if value is None else duration(float(value))


_STATE_STYLES = {"up": "green", "ready": "green", "ok": "green", "running": "green", "valid": "green",
                 "starting": "yellow", "note": "yellow"}  # fmt: skip

_COLUMNS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        **{noun: noun.columns for noun in Noun if noun.columns},
        "check": ("name", "state", "detail"),
        "certificates": ("serial", "name", "state", "addresses", "prefixes", "relay", "not_after"),
        "revocations": ("name", "serial", "revoked_at", "reason"),
        "link rates": ("peer", "endpoint", "state", "rtt_ms", "loss", "tx_mbit_per_s", "rx_mbit_per_s"),
        "worker rates": ("role", "lane", "pid", "state", "restarts", "cpu_percent", "packets_per_s"),
    }
)
"""Brief columns of a table; a table that is not here shows all."""

_TEXTS = frozenset({"detail", "why"})
"""Columns of sentences: like lists, they may wrap."""

_WRITERS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {
        "rtt_ms": _milliseconds,
        "loss": _percent,
        "tx_mbit_per_s": _rate,
        "rx_mbit_per_s": _rate,
        "mbit_per_s": _rate,
        "packets_per_s": lambda value: f"{value:,.0f}",
        "tx_bytes": lambda value: size(value or 0),
        "rx_bytes": lambda value: size(value or 0),
        "expires_s": _time,
    }
)

_BRIEF_WRITERS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    dict.fromkeys(("sources", "members", "requested", "links"), _brief_list)
)
"""Writers of brief tables only; --detail shows every item."""

_HEADINGS = {"expires_s": "expires", "rtt_ms": "rtt", "tx_bytes": "sent", "rx_bytes": "received",
             "cpu_percent": "cpu %", "filter_mode": "mode", "tx_mbit_per_s": "sent Mbit/s",
             "rx_mbit_per_s": "received Mbit/s", "mbit_per_s": "Mbit/s", "packets_per_s": "packets/s"}  # fmt: skip


# ---------------------------------------------------------------- tables


def _table(console: Console, noun: str, rows: Sequence[Any], *, detail: bool) -> None:
    if not rows:
        console.print(f"no {noun}")
        return
    if not all(isinstance(row, dict) for row in rows):
        for row in rows:
            console.print(_cell(row))
        return
    table = table_of(noun, rows, detail=detail)
    if _width_min(console, table) <= console.width:
        console.print(table)
    else:
        _paragraphs(console, noun, rows, detail=detail)


def table_of(noun: str, rows: Sequence[Row], *, detail: bool = False) -> Table:
    """Return rows as a table with the columns of their noun."""
    table = Table(box=None, pad_edge=False, header_style=style("bold"))
    columns = _columns(noun, rows, detail=detail)
    for key in columns:
        is_numeric = all(_is_number(row.get(key)) for row in rows)
        table.add_column(_heading(key), justify="right" if is_numeric else "left",
                         no_wrap=key not in _TEXTS and not _is_list(rows, key))  # fmt: skip
    for row in rows:
        table.add_row(*(_styled(key, _text(key, row.get(key), detail=detail)) for key in columns))
    return table


def _width_min(console: Console, table: Table) -> int:
    """Columns of the terminal that a table needs when everything that may wrap is wrapped between words."""
    options = console.options.update(max_width=WIDTH_MAX)
    needed = -COLUMN_GAP
    for column in table.columns:
        sizes = [console.measure(cell, options=options) for cell in (column.header, *column.cells)]
        needed += max(size.maximum if column.no_wrap else size.minimum for size in sizes) + COLUMN_GAP
    return needed


def _paragraphs(console: Console, noun: str, rows: Sequence[Row], *, detail: bool) -> None:
    """Print each row as a paragraph: the first cell, then heading and cell of each other column that has a value."""
    first, *others = _columns(noun, rows, detail=detail)
    for row in rows:
        line = _text(first, row.get(first), detail=detail)
        for key in others:
            if row.get(key) is None or row.get(key) == []:
                continue
            part = f"{_heading(key)}: {_text(key, row[key], detail=detail)}"
            if cell_len(line.rpartition("\n")[2]) + COLUMN_GAP + cell_len(part) <= console.width:
                line += " " * COLUMN_GAP + part
            else:
                line += "\n" + textwrap.fill(part, max(console.width, len(INDENT) + 1), initial_indent=INDENT,
                                             subsequent_indent=INDENT * 2, break_long_words=False,
                                             break_on_hyphens=False)  # fmt: skip
        console.print(Text(line), soft_wrap=True)


def _columns(noun: str, rows: Sequence[Row], *, detail: bool) -> list[str]:
    every = list(dict.fromkeys(key for row in rows for key in row))
    brief = [key for key in _COLUMNS.get(noun, ()) if key in every]
    return brief + [key for key in every if key not in brief] if detail or not brief else brief


def _heading(key: str) -> str:
    return _HEADINGS.get(key, printable(key.replace("_", " ")))


def _text(key: str, value: Any, *, detail: bool) -> str:
    writer = _WRITERS.get(key, _cell)
    return writer(value) if detail else _BRIEF_WRITERS.get(key, writer)(value)


def _styled(key: str, text: str) -> Text:
    return Text(text, style=style(_STATE_STYLES.get(text, "red")) if key == "state" else "")


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _is_list(rows: Iterable[Row], key: str) -> bool:
    return any(isinstance(row.get(key), (list, tuple, dict)) for row in rows)


def _part(console: Console, name: str, value: Any, *, detail: bool) -> None:
    """Print one entry of an object; a list of objects becomes a table under its name."""
    name = printable(name)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        console.print(Text(name, style="bold"))
        _table(console, name, value, detail=detail)
    else:
        console.print(f"{name}: {_cell(value)}")


def _counters(console: Console, counters: Row, *, detail: bool) -> None:
    """Print names and values; those that are zero only with --detail."""
    flat = {name: value for name, value in _flatten(counters) if value or detail}
    if not flat:
        console.print("all counters are zero")
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for name, value in flat.items():
        table.add_row(Text(name, style="red" if name.startswith("drops.") else ""), _cell(value))
    console.print(table)


def _flatten(value: Row, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, dict):
            yield from _flatten(part, f"{prefix}{key}.")
        else:
            yield printable(f"{prefix}{key}"), part
