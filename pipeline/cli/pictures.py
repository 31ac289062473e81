"""`show graph` as text, DOT and Mermaid: the overlay around this node, and where each group goes from here.

It draws what the answer of control says and asks nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Graph = Mapping[str, Any]


def draw(graph: Graph, form: str) -> str:
    """The picture in one of FORMATS."""
    return FORMATS[form](graph)


def _branches(graph: Graph) -> Iterable[tuple[str, str, str]]:
    """(node, next node, label) of each hop of each tree, once each: what is sent and what is relayed may go one way."""
    return dict.fromkeys(_hops(graph))


def _hops(graph: Graph) -> Iterable[tuple[str, str, str]]:
    for tree in graph["trees"]:
        label = tree["group"] if tree["source"] is None else f"{tree['source']} → {tree['group']}"
        yield from ((tree["from"], to, label + _turn(tree)) for to in tree["to"])
    for relay in graph["relays"]:
        label = relay["group"] + (f" via {relay['via']}" if relay["via"] else "")
        yield from ((relay["at"], to, label + _turn(relay)) for to in relay["to"])


def _turn(row: Mapping[str, Any]) -> str:
    """For rows that only some packets of a stream go by."""
    return "" if row["turn"] is None else f" turn {row['turn']}"


def _text(graph: Graph) -> str:
    lines = [f"{graph['nodes'][0]}"]
    lines += [
        f"├─ {edge['to']}{'' if edge['state'] == 'up' else ' (' + edge['state'] + ')'}" for edge in graph["edges"]
    ]
    if graph["edges"]:
        lines[-1] = "└" + lines[-1][1:]
    for kind, rows in (("from this host", graph["trees"]), ("relayed", graph["relays"])):
        for row in rows:
            what = row["group"]
            if row.get("source"):
                what = f"{row['source']} → {what}"
            if row.get("via"):
                what += f", via {row['via']}"
            what += _turn(row)
            lines += ["", f"{what}, {kind}: {row['why']}"]
            hops = row["to"] or ["nowhere"]
            lines += [f"{'└' if at == len(hops) - 1 else '├'}▶ {hop}" for at, hop in enumerate(hops)]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _dot(graph: Graph) -> str:
    lines = ["digraph overlay {", "  rankdir=LR;", *(f"  {_quoted(node)};" for node in graph["nodes"])]
    for edge in graph["edges"]:
        style = "solid" if edge["state"] == "up" else "dashed"
        lines.append(f"  {_quoted(edge['from'])} -> {_quoted(edge['to'])} [dir=none, color=gray, style={style}];")
    for one, other, label in _branches(graph):
        lines.append(f"  {_quoted(one)} -> {_quoted(other)} [label={_quoted(label)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _mermaid(graph: Graph) -> str:
    names = {node: f"n{index}" for index, node in enumerate(graph["nodes"])}
    lines = ["graph LR", *(f'  {name}["{node}"]' for node, name in names.items())]
    lines += [
        f"  {names[edge['from']]} {'---' if edge['state'] == 'up' else '-.-'} {names[edge['to']]}"
        for edge in graph["edges"]
    ]
    for one, other, label in _branches(graph):
        if one in names and other in names:
            lines.append(f'  {names[one]} -->|"{label}"| {names[other]}')
    return "\n".join(lines) + "\n"


FORMATS: Mapping[str, Callable[[Graph], str]] = {"text": _text, "dot": _dot, "mermaid": _mermaid}
