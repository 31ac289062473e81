"""The trees that packets of a group take, read from the forwarding tables of all instances as `show routes` gives them.

It follows entries as the stages do: by incoming link before any, by turn, never back.  Nothing is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.lab.instance import Instance
from pipeline.lab.programs import LabError

STRIPES = 3
"""Crew members that carry a stream of nemo in turn."""
SETTLED_S = 6.0
"""Trees that have not changed for so long have grown: a cluster that is too large is split within 5 s and a look."""

Tree = dict[str, str]
"""By whom each node that the source reaches gets the packets of one turn."""


class Tables:
    """The forwarding tables of some instances at one instant."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {each.name: each.show("routes") for each in instances}

    def trees(self, source: Instance, group: str) -> list[Tree]:
        """The tree of each turn."""
        rows = {name: [row for row in rows if row["group"] == group] for name, rows in self._rows.items()}
        return [_tree(rows, source.name, stripe) for stripe in range(STRIPES)]

    def reaches(self, source: Instance, group: str, names: set[str]) -> bool:
        """Whether the source reaches just those nodes, in every turn."""
        return all(set(tree) == names for tree in self.trees(source, group))


def _tree(rows: dict[str, list[dict[str, Any]]], source: str, stripe: int) -> Tree:
    parents: Tree = {}
    waiting = [(source, "host", "")]
    while waiting:
        node, side, came_from = waiting.pop()
        of_turn = [row for row in rows[node] if row["side"] == side and row["turn"] in (None, stripe)]
        found = [row for row in of_turn if row["via"] in (None, came_from or None)]
        found.sort(key=lambda row: row["via"] is None)
        for hop in found[0]["next_hops"] if found else ():
            if hop not in (came_from, source) and hop not in parents:
                parents[hop] = node
                waiting.append((hop, "overlay", node))
    return parents


def reaches(instances: Sequence[Instance], source: Instance, group: str, names: set[str]) -> bool:
    """Whether the source reaches just those nodes now."""
    return Tables(instances).reaches(source, group, names)


def wait_settled(instances: Sequence[Instance], source: Instance, groups: Sequence[str], timeout_s: float) -> None:
    """Until the source reaches all others in every group, by trees that do not change any more."""
    names = {each.name for each in instances if each is not source}
    deadline = time.monotonic() + timeout_s
    last: list[list[Tree]] = []
    since = time.monotonic()
    while time.monotonic() < deadline:
        tables = Tables(instances)
        now = [tables.trees(source, group) for group in groups]
        if now != last or not all(set(tree) == names for trees in now for tree in trees):
            last, since = now, time.monotonic()
        elif time.monotonic() - since > SETTLED_S:
            return
        time.sleep(0.2)
    raise LabError(f"not within {timeout_s} s: trees that do not change")
