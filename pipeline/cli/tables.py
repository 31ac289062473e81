"""Values of `status`, `show` and `check` as people read them, in the manner of `ip` and `wg show`.

One table by noun says which columns are brief, which come with --detail, and how a cell is written.  A key that is
not in it is shown all the same under --detail: nothing that the JSON has is out of reach.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.control.nouns import Noun

Row = Mapping[str, Any]

COLUMN_GAP = 2
WIDTH_MAX = 400
"""On a pipe: wide enough that no line of ours is folded."""


def render(noun: str, value: Any, *, detail: bool) -> None:
    """Print one value on stdout; on a pipe without colours and as wide as it needs to be."""
    console = _console()
    if not console.is_terminal:
        console = _console(width=WIDTH_MAX)
    with console.capture() as capture:
        _render(console, noun, value, detail=detail)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))


def _console(width: int | None = None) -> Console:
    """One that takes nothing for markup: `[fd99::1]:4747` is an endpoint."""
    return Console(highlight=False, markup=False, emoji=False, width=width)


def _render(console: Console, noun: str, value: Any, *, detail: bool) -> None:
    if noun == "status":
        console.print(status_line(value))
    elif noun == "counters":
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
    """“a: ready, mcast0 10.77.0.1/16, 4 workers, 3 of 3 peers up, 12 groups, up 2 h 5 min”."""
    parts = [
        str(status["state"]),
        " ".join([status["interface"], *status["addresses"]]),
        _count(status["workers"], "worker"),
        f"{status['peers_up']} of {_count(status['peers_known'], 'peer')} up",
        _count(status["groups_local"], "group"),
        f"up {duration(status['uptime_s'])}",
    ]
    return Text.assemble((str(status["name"]), "bold"), ": ", ", ".join(parts))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------- cells


def duration(seconds: float) -> str:
    """The two largest units of a time: 4.2 s, 3 min 5 s, 2 h 5 min, 4 d 2 h."""
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            rest = int(seconds % size) // part
            return f"{int(seconds // size)} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError(seconds)


def size(count: float) -> str:
    """Bytes with a binary unit: 512 B, 1.5 KiB, 20.0 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _rate(value: float) -> str:
    """Megabits a second, to the kilobit where there are few."""
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
        return ", ".join(f"{key}={_cell(part)}" for key, part in value.items()) or "-"
    return str(value)


def _few(value: Any) -> str:
    """A list that may have hundreds of items."""
    if isinstance(value, (list, tuple)) and len(value) > 6:
        return f"{_cell(value[:5])} and {len(value) - 5} more"
    return _cell(value)


def _percent(value: Any) -> str:
    return "-" if value is None else f"{value * 100:.2g} %"


def _milliseconds(value: Any) -> str:
    return "-" if value is None else f"{value:.2f} ms"


def _time(value: Any) -> str:
    return "-" if value is None else duration(float(value))


def _state(value: Any) -> Text:
    good = {"up", "ready", "ok", "running"}
    return Text(str(value), style="green" if value in good else "yellow" if value in {"starting", "note"} else "red")


Writer = Callable[[Any], str | Text]

_COLUMNS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        **{noun.value: noun.columns for noun in Noun},
        "check": ("name", "state", "detail"),
        "link rates": ("peer", "endpoint", "state", "rtt_ms", "loss", "tx_mbit_per_s", "rx_mbit_per_s"),
        "worker rates": ("role", "lane", "pid", "state", "restarts", "cpu_percent", "packets_per_s"),
    }
)
"""The brief columns; a noun that is not here shows all."""

_WRITERS: Mapping[str, Writer] = MappingProxyType(
    {
        "state": _state,
        "rtt_ms": _milliseconds,
        "loss": _percent,
        "tx_mbit_per_s": _rate,
        "rx_mbit_per_s": _rate,
        "mbit_per_s": _rate,
        "packets_per_s": lambda value: f"{value:,.0f}",
        "tx_bytes": lambda value: size(value or 0),
        "rx_bytes": lambda value: size(value or 0),
        "expires_s": _time,
        "sources": _few,
        "members": _few,
        "requested": _few,
        "next_hops": _few,
        "links": _few,
    }
)

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
    console.width = max(console.width, _width_needed(console, table))
    console.print(table)


def _width_needed(console: Console, table: Table) -> int:
    """That of the columns that do not fold: a narrow terminal breaks lines, as with `ip`, but hides nothing."""
    options = console.options.update(max_width=WIDTH_MAX)
    needed = 0
    for column in table.columns:
        sizes = [console.measure(cell, options=options) for cell in (column.header, *column.cells)]
        needed += max(size.maximum if column.no_wrap else size.minimum for size in sizes) + COLUMN_GAP
    return needed


def table_of(noun: str, rows: Sequence[Row], *, detail: bool = False) -> Table:
    """Rows as a table with the columns of their noun."""
    every = list(dict.fromkeys(key for row in rows for key in row))
    brief = [key for key in _COLUMNS.get(noun, ()) if key in every]
    columns = brief + [key for key in every if key not in brief] if detail or not brief else brief
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in columns:
        numeric = all(_is_number(row.get(key)) for row in rows)
        table.add_column(_HEADINGS.get(key, key.replace("_", " ")), justify="right" if numeric else "left",
                         overflow="fold", no_wrap=not _is_list(rows, key))  # fmt: skip
    for row in rows:
        cells = (_WRITERS.get(key, _cell)(row.get(key)) for key in columns)
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))  # no markup
    return table


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _is_list(rows: Iterable[Row], key: str) -> bool:
    return any(isinstance(row.get(key), (list, tuple, dict)) for row in rows)


def _part(console: Console, name: str, value: Any, *, detail: bool) -> None:
    """One entry of an object: a list of objects becomes a table under its name."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        console.print(Text(name, style="bold"))
        _table(console, name, value, detail=detail)
    else:
        console.print(f"{name}: {_cell(value)}")


def _counters(console: Console, counters: Row, *, detail: bool) -> None:
    """Name and value; those that are zero only with --detail."""
    flat = {name: value for name, value in _flatten(counters) if value or detail}
    if not flat:
        console.print("all counters are zero")
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in flat.items():
        table.add_row(Text(name, style="red" if name.startswith("drops.") else ""), _cell(value))
    console.print(table)


def _flatten(value: Row, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, dict):
            yield from _flatten(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part
