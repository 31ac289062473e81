"""Goal: values are printed in a form that people read.  Method: render() with values as control sends them."""

import pytest

from pipeline.cli.tables import duration, render, size

LINKS = [
    {"peer": "b", "endpoint": "192.0.2.2:4747", "addresses": ["10.77.0.2/16", "fd77::2/64"], "state": "up",
     "rtt_ms": 0.21, "loss": 0.0125, "tx_bytes": 2048, "rx_bytes": 5, "tx_errors": 7},
    {"peer": None, "endpoint": "192.0.2.9:4747", "addresses": [], "state": "down", "rtt_ms": 0, "loss": 0,
     "tx_bytes": 0, "rx_bytes": 0, "tx_errors": 0},
]  # fmt: skip


def rendered(capsys, noun, value, *, detail=False):
    render(noun, value, detail=detail)
    return capsys.readouterr().out


def test_links_have_units_and_brief_columns(capsys):
    """Goal: brief columns with units, no trailing blanks; every column with --detail."""
    text = rendered(capsys, "links", LINKS)
    assert "10.77.0.2/16, fd77::2/64" in text and "0.21 ms" in text and "1.2 %" in text and "2.0 KiB" in text
    assert "tx errors" not in text
    assert "tx errors" in rendered(capsys, "links", LINKS, detail=True)
    assert all(line == line.rstrip() for line in text.splitlines())
    assert len(text.splitlines()) == 3


def test_markup_is_shown_as_it_is(capsys):
    """Goal: text that looks like a style or an emoji is not changed.  Method: an endpoint and names of that kind."""
    row = LINKS[0] | {"endpoint": "[fd99::1]:4747", "addresses": ["fd77:a:b::1/64"]}
    text = rendered(capsys, "links", [row])
    assert "[fd99::1]:4747" in text and "fd77:a:b::1/64" in text
    assert rendered(capsys, "graph", {"nodes": ["[b]", "x:a:y"]}) == "nodes: [b], x:a:y\n"


def test_absent_values_are_dashes_and_long_lists_are_cut(capsys):
    """Goal: nulls are dashes, long lists are cut."""
    row = {"group": "239.1.1.1", "filter_mode": None, "sources": [], "compatibility": None, "expires_s": None,
           "local": False, "members": [f"n{i}" for i in range(9)]}  # fmt: skip
    text = rendered(capsys, "groups", [row])
    assert "239.1.1.1" in text and " - " in text and "n4 and 4 more" in text


def test_counters_omit_zeros(capsys):
    """Goal: only counters above zero, and drops by reason.  Method: a nested object; all zero; --detail."""
    value = {"tun_rx_packets": 12, "drops": {"replay": 3, "bad_tag": 0}}
    text = rendered(capsys, "counters", value)
    assert "tun_rx_packets" in text and "drops.replay" in text and "bad_tag" not in text
    assert "drops.bad_tag" in rendered(capsys, "counters", value, detail=True)
    assert rendered(capsys, "counters", {"a": 0}) == "all counters are zero\n"


def test_status_is_one_line(capsys):
    """Goal: one line with everything.  Method: compare it."""
    status = {"name": "a", "ready": True, "state": "ready", "interface": "mcast0", "addresses": ["10.77.0.1/16"],
              "workers": 4, "peers_up": 1, "peers_known": 1, "groups_local": 12, "uptime_s": 7500.0}  # fmt: skip
    text = rendered(capsys, "status", status)
    assert text == "a: ready, mcast0 10.77.0.1/16, 4 workers, 1 of 1 peer up, 12 groups, up 2 h 5 min\n"
    faults = {"checkpoint": "no memory", "interface": "interface mcast0 is down"}
    text = rendered(capsys, "status", status | {"state": "degraded", "degraded": faults})
    assert text.startswith("a: degraded (no memory; interface mcast0 is down), mcast0 10.77.0.1/16, ")


def test_object_of_lists_becomes_tables(capsys):
    """Goal: an object of lists becomes tables under their names."""
    value = {"nodes": ["a", "b"], "edges": [{"from": "a", "to": "b", "state": "up"}], "trees": []}
    text = rendered(capsys, "graph", value)
    assert text.splitlines() == ["nodes: a, b", "edges", "from  to  state", "a     b   up", "trees: -"]


def test_empty_list_is_a_sentence(capsys):
    """Goal: an empty list is a sentence, not an empty table."""
    assert rendered(capsys, "links", []) == "no links\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (4.25, "4.2 s"), (60, "1 min"), (185, "3 min 5 s"), (7500, "2 h 5 min"), (360000, "4 d 4 h")],
)
def test_duration_has_its_two_largest_units(seconds, text):
    """Goal: a duration is short.  Method: examples of each unit."""
    assert duration(seconds) == text


def test_size_has_binary_units():
    """Goal: sizes are in powers of 1,024.  Method: an example of each unit."""
    assert [size(n) for n in (0, 1023, 1536, 5 << 30, 3 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB", "3.0 TiB"]


ROUTES = [
    {"side": "host", "kind": "group", "group": "239.1.2.3", "source": None, "origin": None, "via": None, "turn": None,
     "next_hops": [f"node-{number:02}" for number in range(30)], "local": False, "stream": 1,
     "why": "mesh: members of the group"},
    {"side": "overlay", "kind": "group", "group": "ff3e::1234:5678", "source": "fd77::1", "origin": "studio",
     "via": "relay-1", "turn": 0, "next_hops": ["a"], "local": True, "stream": 2, "why": "nemo: crew in layer 0"},
]  # fmt: skip


@pytest.fixture
def narrow(monkeypatch):
    """Function that makes stdout a terminal of a width, without styles: narrow(columns)."""

    def set_width(columns):
        for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns),
                            "LINES": "24"}.items():  # fmt: skip
            monkeypatch.setenv(name, value)

    return set_width


@pytest.mark.parametrize("columns", [20, 40, 80, 120, 200])
def test_narrow_terminal_shows_every_cell(capsys, narrow, columns):
    """Goal: no cell is cut, however few columns the terminal has.  Method: links on terminals of several widths."""
    narrow(columns)
    text = rendered(capsys, "links", LINKS)
    for word in ("192.0.2.2:4747", "0.21 ms", "1.2 %", "2.0 KiB", "down", "received"):
        assert word in text, text


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("detail", [False, True])
def test_routes_show_every_next_hop_within_terminal(capsys, narrow, columns, detail):
    """Goal: `show routes` wraps its next hops and reasons: all are there, and no line is wider than the terminal.
    Method: an entry with 30 next hops and a long IPv6 one."""
    narrow(columns)
    text = rendered(capsys, "routes", ROUTES, detail=detail)
    words = text.replace(",", " ").split()
    assert all(f"node-{number:02}" in words for number in range(30)), text
    assert {"studio", "relay-1", "ff3e::1234:5678", "members", "crew", "layer"} <= set(words), text
    assert max(map(len, text.splitlines())) <= columns, text


def test_long_lists_are_full_with_detail(capsys):
    """Goal: a brief table counts the rest of hundreds of members; --detail lists all."""
    row = {"group": "239.1.1.1", "members": [f"n{number}" for number in range(200)]}
    assert "and 195 more" in rendered(capsys, "groups", [row])
    assert "n199" in rendered(capsys, "groups", [row], detail=True)
