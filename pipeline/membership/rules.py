"""The state tables of RFC 9776 §6.4 and RFC 9777 §7.4, as the RFCs print them, and their compiler.

Both families have one table: MLD only calls the group timer "filter timer".  This file knows sets and names, but no
timer values, groups or packets; state.py executes a compiled rule.  The rows are compiled at import, so that the
program, its traces and the tests use one text.

In an INCLUDE row A is the state's list and B the record's; in an EXCLUDE row X and Y are the state's requested and
excluded lists and A the record's.  `+` is union, `*` intersection, `-` difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.address import Address, FilterMode
from pipeline.wire.report import RecordType

Sources: TypeAlias = AbstractSet[Address]
SetExpression: TypeAlias = Callable[[Sources, Sources, Sources], Sources]
"""Function (requested, excluded, the record's sources) → the set that an expression of the table names."""

CURRENT_STATE_ROWS = (  # RFC 9776 §6.4.1, RFC 9777 §7.4.1
    ("INCLUDE (A)", "IS_IN (B)", "INCLUDE (A+B)", "(B)=GMI"),
    ("INCLUDE (A)", "IS_EX (B)", "EXCLUDE (A*B,B-A)", "(B-A)=0, Delete (A-B), Group Timer=GMI"),
    ("EXCLUDE (X,Y)", "IS_IN (A)", "EXCLUDE (X+A,Y-A)", "(A)=GMI"),
    (
        "EXCLUDE (X,Y)",
        "IS_EX (A)",
        "EXCLUDE (A-Y,Y*A)",
        "(A-X-Y)=GMI, Delete (X-A), Delete (Y-A), Group Timer=GMI",
    ),
)

STATE_CHANGE_ROWS = (  # RFC 9776 §6.4.2, RFC 9777 §7.4.2
    ("INCLUDE (A)", "ALLOW (B)", "INCLUDE (A+B)", "(B)=GMI"),
    ("INCLUDE (A)", "BLOCK (B)", "INCLUDE (A)", "Send Q(G,A*B)"),
    (
        "INCLUDE (A)",
        "TO_EX (B)",
        "EXCLUDE (A*B,B-A)",
        "(B-A)=0, Delete (A-B), Send Q(G,A*B), Group Timer=GMI",
    ),
    ("INCLUDE (A)", "TO_IN (B)", "INCLUDE (A+B)", "(B)=GMI, Send Q(G,A-B)"),
    ("EXCLUDE (X,Y)", "ALLOW (A)", "EXCLUDE (X+A,Y-A)", "(A)=GMI"),
    ("EXCLUDE (X,Y)", "BLOCK (A)", "EXCLUDE (X+(A-Y),Y)", "(A-X-Y)=Group Timer, Send Q(G,A-Y)"),
    (
        "EXCLUDE (X,Y)",
        "TO_EX (A)",
        "EXCLUDE (A-Y,Y*A)",
        "(A-X-Y)=Group Timer, Delete (X-A), Delete (Y-A), Send Q(G,A-Y), Group Timer=GMI",
    ),
    ("EXCLUDE (X,Y)", "TO_IN (A)", "EXCLUDE (X+A,Y-A)", "(A)=GMI, Send Q(G,X-A), Send Q(G)"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled row of the table.  None stands for the empty set where a row names none.

    The new requested list is the old one without `deleted`, with `refreshed` (timers set to GMI) and with `inherited`
    (timers set to the old group timer).  The new excluded list is `excluded`.
    """

    text: str
    mode: FilterMode
    excluded: SetExpression | None
    deleted: SetExpression | None
    refreshed: SetExpression | None
    inherited: SetExpression | None
    queried: SetExpression | None
    queries_group: bool
    restarts_group_timer: bool


_TOKEN = re.compile(r"[A-Z]|[-+*()]")
_STATE = re.compile(r"(INCLUDE|EXCLUDE) \((.*)\)$")
_PLACES = {FilterMode.INCLUDE: {"A": 0, "B": 2}, FilterMode.EXCLUDE: {"X": 0, "Y": 1, "A": 2}}


def compile_expression(text: str, mode: FilterMode) -> SetExpression:
    """Compile an expression such as "A-X-Y" or "X+(A-Y)" of a row for states of the given filter mode."""
    tokens = _TOKEN.findall(text)
    expression = _read_sum(tokens, _PLACES[mode])
    assert not tokens, f"{text!r} has unexpected text at its end"
    return expression


def _read_sum(tokens: list[str], places: dict[str, int]) -> SetExpression:
    left = _read_operand(tokens, places)
    while tokens and tokens[0] != ")":
        operator = tokens.pop(0)
        left = _combine(operator, left, _read_operand(tokens, places))
    return left


def _read_operand(tokens: list[str], places: dict[str, int]) -> SetExpression:
    name = tokens.pop(0)
    if name == "(":
        inner = _read_sum(tokens, places)
        assert tokens.pop(0) == ")"
        return inner
    place = places[name]
    return lambda *lists: lists[place]


def _combine(operator: str, left: SetExpression, right: SetExpression) -> SetExpression:
    if operator == "+":
        return lambda *lists: left(*lists) | right(*lists)
    if operator == "*":
        return lambda *lists: left(*lists) & right(*lists)
    assert operator == "-", operator
    return lambda *lists: left(*lists) - right(*lists)


def _split_state(text: str) -> tuple[FilterMode, list[str]]:
    found = _STATE.match(text)
    assert found is not None, text
    return FilterMode(found[1]), found[2].split(",")


def _compile_row(state: str, record: str, becomes: str, actions: str) -> tuple[FilterMode, RecordType, Rule]:
    mode, _ = _split_state(state)
    kind = RecordType[record.split(maxsplit=1)[0]]
    new_mode, new_lists = _split_state(becomes)
    named: dict[str, SetExpression] = {}
    steps = actions.split(", ")
    for step in steps:
        head, _, tail = step.partition("=")
        if step.startswith("Delete (Y"):  # the new excluded list lacks these already
            continue
        if step.startswith("Delete ("):
            named["deleted"] = compile_expression(step[8:-1], mode)
        elif step.startswith("Send Q(G,"):
            named["queried"] = compile_expression(step[9:-1], mode)
        elif head.startswith("(") and tail != "0":  # a source with timer 0 is in the excluded list
            named["refreshed" if tail == "GMI" else "inherited"] = compile_expression(head[1:-1], mode)
    excluded = compile_expression(new_lists[1], mode) if len(new_lists) == 2 else None
    rule = Rule(
        text=f"{state} + {record} -> {becomes}: {actions}",
        mode=new_mode,
        excluded=excluded,
        deleted=named.get("deleted"),
        refreshed=named.get("refreshed"),
        inherited=named.get("inherited"),
        queried=named.get("queried"),
        queries_group="Send Q(G)" in steps,
        restarts_group_timer="Group Timer=GMI" in steps,
    )
    return mode, kind, rule


def _compile_table() -> dict[FilterMode, dict[RecordType, Rule]]:
    table: dict[FilterMode, dict[RecordType, Rule]] = {mode: {} for mode in FilterMode}
    for row in CURRENT_STATE_ROWS + STATE_CHANGE_ROWS:
        mode, kind, rule = _compile_row(*row)
        table[mode][kind] = rule
    return table


RULES = _compile_table()
"""Rule by the state's filter mode and the record's type: every pair has one."""

assert all(len(rules) == len(RecordType) for rules in RULES.values())
