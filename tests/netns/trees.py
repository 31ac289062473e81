"""Distribution trees of a group, computed from `show routes` of all instances.

The walk follows forwarding entries as the data plane does: an entry for the incoming link comes before one for any
link, an entry counts for its stripe only, and a packet never goes back. No packet is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.lab.instance import Instance
from pipeline.lab.programs import LabError

STRIPES = 3
"""Stripes of a stream with nemo: one for each member of a crew."""
SETTLED_S = 6.0
"""Time without a change after which trees are complete: too large a cluster is split within 5 s and one tick."""

Tree = dict[str, str]
"""Parent of each node that the source reaches, for one stripe."""


class Tables:
    """Forwarding tables of several instances at one instant."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {each.name: each.show("routes") for each in instances}

    def trees(self, source: Instance, group: str) -> list[Tree]:
        """Return the tree of each stripe."""
        rows = {name: [row for row in rows if row["group"] == group] for name, rows in self._rows.items()}
        return [_tree(rows, source.name, stripe) for stripe in range(STRIPES)]

    def reaches(self, source: Instance, group: str, names: set[str]) -> bool:
        """Return whether the source reaches exactly these nodes in every stripe."""
        return all(set(tree) == names for tree in self.trees(source, group))


def _tree(rows: dict[str, list[dict[str, Any]]], source: str, stripe: int) -> Tree:
    parents: Tree = {}
    waiting = [(source, "host", "")]
    while waiting:
        node, side, came_from = waiting.pop()
        candidates = [
            row
            for row in rows[node]
            if row["side"] == side and row["turn"] in (None, stripe) and row["via"] in (None, came_from or None)
        ]
        candidates.sort(key=lambda row: row["via"] is None)
        for hop in candidates[0]["next_hops"] if candidates else ():
            if hop not in (came_from, source) and hop not in parents:
                parents[hop] = node
                waiting.append((hop, "overlay", node))
    return parents


def reaches(instances: Sequence[Instance], source: Instance, group: str, names: set[str]) -> bool:
    """Return whether the source reaches exactly these nodes now."""
    return Tables(instances).reaches(source, group, names)


def wait_settled(instances: Sequence[Instance], source: Instance, groups: Sequence[str], timeout_s: float) -> None:
    """Wait until the source reaches all others in every group by trees that no longer change."""
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
    raise LabError(f"the trees still change after {timeout_s} s")
