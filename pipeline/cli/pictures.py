"""`show graph` as text, DOT and Mermaid: the overlay around this node, and the next hops of each group.

The input is the value of `show graph`; nothing is requested here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from pipeline.terminal import printable

Graph = Mapping[str, Any]

SENT = "sent"
RELAYED = "relayed"


def draw(graph: Graph, form: str) -> str:
    """Return the picture of a graph in one of FORMATS."""
    return "".join(printable(line) + "\n" for line in FORMATS[form](graph).splitlines())


class _Hop(NamedTuple):
    """Next hops of one stripe of a stream at this node."""

    stream: str
    action: str
    """SENT, or RELAYED with the node that the packets come from."""
    stripe: int | None
    """None if the stream has one stripe."""
    to: tuple[str, ...]
    why: str


def _hops(graph: Graph) -> list[_Hop]:
    hops = [_Hop(_stream(row), SENT, row["turn"], tuple(row["to"]), row["why"]) for row in graph["trees"]]
    for row in graph["relays"]:
        action = RELAYED + (f" from {row['via']}" if row["via"] else "")
        hops.append(_Hop(_stream(row), action, row["turn"], tuple(row["to"]), row["why"]))
    return hops


def _stream(row: Mapping[str, Any]) -> str:
    source = row["source"] or row.get("origin")
    return f"{source} → {row['group']}" if source else str(row["group"])


def _stripes(hops: Iterable[_Hop], every: AbstractSet[int | None]) -> str:
    """Return “turn 0, 2” (the stripes of the hops) if the stream has others, else an empty text."""
    stripes = {hop.stripe for hop in hops}
    numbers = sorted(stripe for stripe in stripes if stripe is not None)
    return f"turn {', '.join(map(str, numbers))}" if numbers and stripes != every else ""


def _group_by(hops: Iterable[_Hop], key: Callable[[_Hop], Any]) -> dict[Any, list[_Hop]]:
    found: dict[Any, list[_Hop]] = {}
    for hop in hops:
        found.setdefault(key(hop), []).append(hop)
    return found


# ---------------------------------------------------------------- text


def _text(graph: Graph) -> str:
    lines = [f"{graph['nodes'][0]}"]
    lines += [
        f"├─ {edge['to']}{'' if edge['state'] == 'up' else ' (' + edge['state'] + ')'}" for edge in graph["edges"]
    ]
    if graph["edges"]:
        lines[-1] = "└" + lines[-1][1:]
    for stream, hops in _group_by(_hops(graph), lambda hop: hop.stream).items():
        lines += ["", f"{stream}: {'; '.join(dict.fromkeys(hop.why for hop in hops))}"]
        lines += [f"├▶ {line}" for line in _lines(hops)]
        lines[-1] = "└" + lines[-1][1:]
    return "\n".join(lines) + "\n"


def _lines(hops: list[_Hop]) -> Iterator[str]:
    """Return one line for all hops to the same nodes: “sent, relayed, turn 0, 2: b, c”."""
    every = {hop.stripe for hop in hops}
    actions: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (action, to), alike in _group_by(hops, lambda hop: (hop.action, hop.to)).items():
        actions.setdefault((_stripes(alike, every), to), []).append(action)
    for (stripes, to), names in actions.items():
        yield f"{', '.join([*names, *([stripes] if stripes else [])])}: {', '.join(to) or 'nowhere'}"


# ---------------------------------------------------------------- pictures


def _arrows(graph: Graph) -> dict[str, list[str]]:
    """Return next hop → lines of its arrow: the streams that are sent there, and relayed ones with their `via` node."""
    found: dict[str, dict[str, None]] = {}
    for stream, hops in _group_by(_hops(graph), lambda hop: hop.stream).items():
        every = {hop.stripe for hop in hops}
        for action, alike in _group_by(hops, lambda hop: hop.action).items():
            for other in dict.fromkeys(to for hop in alike for to in hop.to):
                stripes = _stripes((hop for hop in alike if other in hop.to), every)
                label = stream + action.removeprefix(SENT).removeprefix(RELAYED) + (f" {stripes}" if stripes else "")
                found.setdefault(other, {})[label] = None
    return {other: list(labels) for other, labels in found.items()}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _dot(graph: Graph) -> str:
    lines = ["digraph overlay {", "  rankdir=LR;", *(f"  {_quoted(node)};" for node in graph["nodes"])]
    for edge in graph["edges"]:
        style = "solid" if edge["state"] == "up" else "dashed"
        lines.append(f"  {_quoted(edge['from'])} -> {_quoted(edge['to'])} [dir=none, color=gray, style={style}];")
    for other, labels in _arrows(graph).items():
        label = "\\n".join(_escaped(label) for label in labels)
        lines.append(f'  {_quoted(graph["nodes"][0])} -> {_quoted(other)} [label="{label}"];')
    return "\n".join([*lines, "}"]) + "\n"


def _mermaid(graph: Graph) -> str:
    names = {node: f"n{index}" for index, node in enumerate(graph["nodes"])}
    lines = ["graph LR", *(f'  {name}["{node}"]' for node, name in names.items())]
    lines += [
        f"  {names[edge['from']]} {'---' if edge['state'] == 'up' else '-.-'} {names[edge['to']]}"
        for edge in graph["edges"]
    ]
    for other, labels in _arrows(graph).items():
        if other in names:
            lines.append(f'  n0 -->|"{"<br/>".join(labels)}"| {names[other]}')
    return "\n".join(lines) + "\n"


FORMATS: Mapping[str, Callable[[Graph], str]] = {"text": _text, "dot": _dot, "mermaid": _mermaid}
