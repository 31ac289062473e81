"""Admission of connections to endpoints that have not answered yet: any member can write a stranger's into a record.

    endpoint                                      connections that may wait for an answer at a time
    configured (`--peer`)                         no limit: the operator has named it
    has answered since the start                  no limit: its node was there
    on a host that has connected to this node     DIALS_PER_HOST
    any other                                     DIALS_MAX, and of them DIALS_PER_REPORTER by records of one host

A connection that is answered gives its place back at once, any other by the refill of its budget.  An endpoint that
does not answer is tried again after a time that doubles, with jitter.  This module opens no socket and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from pipeline import limits
from pipeline.endpoint import split_endpoint

JITTER = 0.25
K = TypeVar("K")
V = TypeVar("V")


class _Budget:
    """Places that refill with time, or when they are given back."""

    __slots__ = ("_free", "_places", "_refill_s", "_updated")

    def __init__(self, places: int, refill_s: float, now: float) -> None:
        self._places = self._free = float(places)
        self._refill_s = refill_s
        self._updated = now

    def has_place(self, now: float) -> bool:
        self._free = min(self._places, self._free + (now - self._updated) / self._refill_s)
        self._updated = now
        return self._free >= 1

    def take(self) -> None:
        self._free -= 1

    def give_back(self) -> None:
        self._free = min(self._places, self._free + 1)


@dataclass(slots=True)
class _Attempts:
    failed: int
    next_at: float
    budgets: tuple[_Budget, ...]
    """In which the connection that waits for an answer has a place."""


class Dials:
    """Decides which endpoints may be connected to, and when."""

    def __init__(self, configured: Collection[str], *, random: Callable[[], float], now: float) -> None:
        self.refused = 0
        """Connections that were put off."""
        self._configured = frozenset(configured)
        self._configured_hosts = frozenset(split_endpoint(endpoint)[0] for endpoint in configured)
        self._random = random
        self._total = _Budget(limits.DIALS_MAX, limits.DIALS_REFILL_S, now)
        self._reporters: dict[str, _Budget] = {}
        self._hosts: dict[str, _Budget] = {}
        """Hosts that have connected to this node."""
        self._reported_by: dict[str, str] = {}
        """By endpoint: the host from which its record came first."""
        self._attempts: dict[str, _Attempts] = {}
        self._answered: dict[str, None] = {}

    def host_connected(self, host: str, now: float) -> None:
        """Note a connection from a host: TCP shows that it is there."""
        if host not in self._hosts:
            _put(self._hosts, host, _Budget(limits.DIALS_PER_HOST, 1.0, now))

    def is_known_host(self, host: str) -> bool:
        """Return whether a host is configured or has connected to this node, and so is no stranger."""
        return host in self._hosts or host in self._configured_hosts

    def record_received(self, endpoint: str, reporter: str) -> None:
        """Note the host from which a record with this endpoint came."""
        if endpoint not in self._reported_by:
            _put(self._reported_by, endpoint, reporter)

    def is_free(self, endpoint: str) -> bool:
        """Return whether connections to the endpoint have no limit."""
        return endpoint in self._configured or endpoint in self._answered

    def begin(self, endpoint: str, now: float) -> bool:
        """Return whether a connection may be opened now; it then takes its place."""
        if self.is_free(endpoint):
            return True
        attempts = self._attempts.get(endpoint)
        budgets = self._budgets(endpoint, now)
        if (attempts is not None and now < attempts.next_at) or not all(each.has_place(now) for each in budgets):
            self.refused += 1
            return False
        for each in budgets:
            each.take()
        failed = 0 if attempts is None else attempts.failed
        wait_s = min(limits.DIAL_WAIT_S * 2**failed, limits.DIAL_WAIT_MAX_S)
        wait_s *= 1 - JITTER + 2 * JITTER * self._random()
        _put(self._attempts, endpoint, _Attempts(min(failed + 1, 16), now + limits.DIAL_ANSWER_S + wait_s, budgets))
        return True

    def answered(self, endpoint: str) -> None:
        """Note that a connection to the endpoint stands."""
        attempts = self._attempts.pop(endpoint, None)
        for each in attempts.budgets if attempts is not None else ():
            each.give_back()
        _put(self._answered, endpoint, None)

    def _budgets(self, endpoint: str, now: float) -> tuple[_Budget, ...]:
        host = self._hosts.get(split_endpoint(endpoint)[0])
        if host is not None:
            return (host,)
        reporter = self._reported_by.get(endpoint, "")
        budget = self._reporters.get(reporter)
        if budget is None:
            budget = _Budget(limits.DIALS_PER_REPORTER, limits.DIALS_REFILL_S, now)
            _put(self._reporters, reporter, budget)
        return self._total, budget


def _put(table: dict[K, V], key: K, value: V) -> None:
    """Set an entry of a bounded table; the oldest one gives way."""
    table.pop(key, None)
    if len(table) >= 2 * limits.NODES_MAX:
        del table[next(iter(table))]
    table[key] = value
