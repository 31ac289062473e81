"""Nouns of `pipeline show`, each declared once with its help text and the columns of its table.

    command line   choice, help and shell completion        cli/app.py
    tables         columns that stand without --detail      cli/tables.py
    control        function that makes the value            control/show.py

A new noun is a member here and a function there.  This module imports no library, because the command line loads it at
each start.
"""

from __future__ import annotations

import enum
from typing import Self


class Noun(enum.StrEnum):
    """A noun of `pipeline show`: its word, one line of help, and the columns of its brief table (none: all)."""

    summary: str
    columns: tuple[str, ...]

    def __new__(cls, word: str, summary: str, columns: tuple[str, ...] = ()) -> Self:
        """Attach help and columns to the word."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.summary = summary
        member.columns = columns
        return member

    LINKS = (
        "links",
        "Peers: endpoint, state, round-trip time, loss, traffic.",
        ("peer", "endpoint", "addresses", "state", "rtt_ms", "loss", "tx_bytes", "rx_bytes"),
    )
    GROUPS = (
        "groups",
        "Groups with members on this host or on others.",
        ("group", "filter_mode", "sources", "compatibility", "expires_s", "local", "members"),
    )
    ROUTES = (
        "routes",
        "Entries of the forwarding table, and why they are there.",
        ("side", "group", "source", "origin", "via", "turn", "next_hops", "local", "why"),
    )
    RINGS = "rings", "Fill level of the rings between the workers."
    WORKERS = (
        "workers",
        "Processes: state, restarts, CPU time, packets.",
        ("role", "lane", "pid", "state", "restarts", "cpu_percent", "packets"),
    )
    COUNTERS = "counters", "Counters and drop reasons; without --detail those that are not zero."
    GRAPH = "graph", "Overlay around this node, and the next hops of each group."
