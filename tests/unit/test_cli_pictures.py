"""Goal: a graph is drawn in each format with all its nodes, links and hops, and any other format is refused.

Method: one small graph by hand.
"""

from __future__ import annotations

import pytest

from pipeline.cli.app import run
from pipeline.cli.pictures import draw
from pipeline.errors import UsageError

GRAPH = {
    "nodes": ["a", "b", "c"],
    "edges": [{"from": "a", "to": "b", "state": "up"}, {"from": "a", "to": "c", "state": "down"}],
    "trees": [{"group": "239.1.2.3", "source": None, "turn": None, "from": "a", "to": ["b"], "why": "mesh: members"}],
    "relays": [
        {"group": "239.1.2.3", "via": "b", "turn": 2, "at": "a", "to": ["c"], "why": "nemo: crews in turn"},
    ],
}


def test_text() -> None:
    text = draw(GRAPH, "text")
    assert text.startswith("a\n├─ b\n└─ c (down)\n")
    assert "239.1.2.3, from this host: mesh: members\n└▶ b\n" in text
    assert "239.1.2.3, via b turn 2, relayed: nemo: crews in turn\n└▶ c\n" in text


def test_dot() -> None:
    text = draw(GRAPH, "dot")
    assert text.startswith("digraph overlay {")
    assert '"a" -> "b" [label="239.1.2.3"];' in text
    assert '"a" -> "c" [dir=none, color=gray, style=dashed];' in text
    assert text.endswith("}\n")


def test_mermaid() -> None:
    text = draw(GRAPH, "mermaid")
    assert text.startswith("graph LR\n")
    assert "n0 --- n1" in text
    assert 'n0 -->|"239.1.2.3 via b turn 2"| n2' in text


@pytest.mark.parametrize(("form", "arrow"), [("dot", '"a" -> "b" [label='), ("mermaid", "n0 -->")])
def test_an_arrow_for_what_is_sent_and_relayed_alike(form: str, arrow: str) -> None:
    relay = {"group": "239.1.2.3", "via": None, "turn": None, "at": "a", "to": ["b"], "why": "nemo: crews in turn"}
    assert draw({**GRAPH, "relays": [relay]}, form).count(arrow) == 1


def test_other_formats_are_refused() -> None:
    with pytest.raises(UsageError, match="--format png"):
        run(["show", "graph", "--format", "png", "--name", "nobody"])
