"""`show graph` as text, DOT and Mermaid: all nodes, links and hops are drawn, and another format is refused.

Method: a small graph, and one with three stripes.
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
    "relays": [],
}
WHY = "nemo: crew in layer 0"


def tree(group: str, turn: int, *to: str) -> dict[str, object]:
    return {"group": group, "source": None, "turn": turn, "from": "a", "to": list(to), "why": WHY}


def relay(group: str, turn: int, *to: str, via: str | None = None) -> dict[str, object]:
    row = {"group": group, "source": None, "origin": None, "via": via}
    return {**row, "turn": turn, "at": "a", "to": list(to), "why": "nemo: not to the sender's crew" if via else WHY}


STRIPES = {
    **GRAPH,
    "trees": [tree("239.1.2.3", turn, *to) for turn, to in enumerate((["b"], ["b", "c"], ["b"]))],
    "relays": [
        *(relay("239.1.2.3", turn, *to) for turn, to in enumerate((["b"], ["b", "c"], ["b"]))),
        relay("239.1.2.3", 1, "c", via="d"),
    ],
}


def test_text_shows_links_and_hops() -> None:
    """Goal: the text has nodes, link states, groups and next hops.  Method: compare the whole text."""
    text = draw(GRAPH, "text")
    assert text == "a\n├─ b\n└─ c (down)\n\n239.1.2.3: mesh: members\n└▶ sent: b\n"


def test_text_of_a_single_node_is_its_name() -> None:
    """Goal: a node without links is drawn.  Method: one node."""
    assert draw({"nodes": ["a"], "edges": [], "trees": [], "relays": []}, "text") == "a\n"


def test_text_joins_stripes_with_the_same_hops() -> None:
    """Goal: stripes that take the same next hops share a line.  Method: three stripes, two of which are equal."""
    assert draw(STRIPES, "text").split("\n\n")[1].splitlines() == [
        "239.1.2.3: nemo: crew in layer 0; nemo: not to the sender's crew",
        "├▶ sent, relayed, turn 0, 2: b",
        "├▶ sent, relayed, turn 1: b, c",
        "└▶ relayed from d, turn 1: c",
    ]


def test_dot_shows_links_and_hops() -> None:
    """Goal: the graph of Graphviz has links and next hops.  Method: read its lines."""
    text = draw(GRAPH, "dot")
    assert text.startswith("digraph overlay {")
    assert '"a" -> "b" [label="239.1.2.3"];' in text
    assert '"a" -> "c" [dir=none, color=gray, style=dashed];' in text
    assert text.endswith("}\n")


def test_mermaid_shows_links_and_hops() -> None:
    """Goal: the graph of Mermaid has links and next hops.  Method: read its lines."""
    text = draw(GRAPH, "mermaid")
    assert text.startswith("graph LR\n")
    assert "n0 --- n1" in text
    assert 'n0 -->|"239.1.2.3"| n1' in text


@pytest.mark.parametrize(
    ("form", "arrow", "line_break"), [("dot", '"a" -> "c" [label=', "\\n"), ("mermaid", "n0 -->", "<br/>")]
)
def test_node_has_one_arrow_for_all_groups(form: str, arrow: str, line_break: str) -> None:
    """Goal: many groups are many lines at one arrow; a stripe is named there if others take another way."""
    groups = [f"239.1.2.{number}" for number in range(30)]
    text = draw({**GRAPH, "trees": [tree(group, turn, "c") for group in groups for turn in range(3)]}, form)
    assert text.count(arrow) == 1
    assert line_break.join(groups) in text
    assert line_break.join(["239.1.2.3 turn 1", "239.1.2.3 from d turn 1"]) in draw(STRIPES, form)


def test_other_formats_are_refused() -> None:
    """Goal: the error names the value.  Method: a format that does not exist."""
    with pytest.raises(UsageError, match="--format png"):
        run(["show", "graph", "--format", "png", "--name", "absent"])
