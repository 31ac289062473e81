"""`show graph` as text, DOT and Mermaid: the overlay around this node, and where each group goes from here.

It draws what the answer of control says and asks nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

Graph = Mapping[str, Any]

SENT = "sent"
RELAYED = "relayed"


def draw(graph: Graph, form: str) -> str:
    """The picture in one of FORMATS."""
    return FORMATS[form](graph)


class _Hop(NamedTuple):
    """Which packets, how this node comes to them, their turn if only some go so, and to whom they go."""

    stream: str
    way: str
    turn: int | None
    to: tuple[str, ...]
    why: str


def _hops(graph: Graph) -> list[_Hop]:
    hops = [_Hop(_stream(row), SENT, row["turn"], tuple(row["to"]), row["why"]) for row in graph["trees"]]
    for row in graph["relays"]:
        way = RELAYED + (f" from {row['via']}" if row["via"] else "")
        hops.append(_Hop(_stream(row), way, row["turn"], tuple(row["to"]), row["why"]))
    return hops


def _stream(row: Mapping[str, Any]) -> str:
    source = row["source"] or row.get("origin")
    return f"{source} → {row['group']}" if source else str(row["group"])


def _turns(hops: Iterable[_Hop], every: AbstractSet[int | None]) -> str:
    """For hops that only some packets of a stream take."""
    turns = {hop.turn for hop in hops}
    numbers = sorted(turn for turn in turns if turn is not None)
    return f"turn {', '.join(map(str, numbers))}" if numbers and turns != every else ""


def _by(hops: Iterable[_Hop], key: Callable[[_Hop], Any]) -> dict[Any, list[_Hop]]:
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
    for stream, hops in _by(_hops(graph), lambda hop: hop.stream).items():
        lines += ["", f"{stream}: {'; '.join(dict.fromkeys(hop.why for hop in hops))}"]
        lines += [f"├▶ {line}" for line in _lines(hops)]
        lines[-1] = "└" + lines[-1][1:]
    return "\n".join(lines) + "\n"


def _lines(hops: list[_Hop]) -> Iterator[str]:
    """One for all packets that go to the same nodes: “sent, relayed, turn 0, 2: b, c”."""
    every = {hop.turn for hop in hops}
    ways: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (way, to), alike in _by(hops, lambda hop: (hop.way, hop.to)).items():
        ways.setdefault((_turns(alike, every), to), []).append(way)
    for (turns, to), names in ways.items():
        yield f"{', '.join([*names, *([turns] if turns else [])])}: {', '.join(to) or 'nowhere'}"


# ---------------------------------------------------------------- pictures


def _arrows(graph: Graph) -> dict[str, list[str]]:
    """An arrow's lines by the node that it goes to: what is sent there, and of what is relayed what goes otherwise."""
    found: dict[str, dict[str, None]] = {}
    for stream, hops in _by(_hops(graph), lambda hop: hop.stream).items():
        every = {hop.turn for hop in hops}
        for way, alike in _by(hops, lambda hop: hop.way).items():
            for other in dict.fromkeys(to for hop in alike for to in hop.to):
                turns = _turns((hop for hop in alike if other in hop.to), every)
                label = stream + way.removeprefix(SENT).removeprefix(RELAYED) + (f" {turns}" if turns else "")
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
