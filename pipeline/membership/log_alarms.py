"""Log lines about membership for the operator: the beginning of a storm, and a change of the querier.

The caller compares counters and roles at intervals.  A storm is the growth of a counter in the table below: its first
growth is logged, and nothing more until the counter has not grown for a while.  This module knows neither packets nor
the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.drop_reasons import MembershipCounter

TICK_S = 0.5
"""Time between two comparisons: early enough for a log, and a negligible cost at 20,000 reports a second."""

QUIET_S = 60.0
"""A storm ends when its counter has not grown for this time; the next growth is a new storm."""

STORMS: Mapping[str, str] = MappingProxyType(
    {
        "report_limit": "membership reports beyond the limit are dropped",
        MembershipCounter.REPORT_RATE: "group records beyond the limit are dropped",
        MembershipCounter.GROUPS_LIMIT: "no room for more groups: new ones are ignored",
        MembershipCounter.SOURCES_LIMIT: "no room for more sources: new ones are ignored",
        MembershipCounter.QUERY_QUEUE_FULL: "more queries than can be sent are dropped",
        MembershipCounter.QUERY_VERSION_MISMATCH: "another router on this link uses another version of IGMP or MLD",
    }
)
"""Counter → meaning of its growth (RFC 9776 §7.3.1 and RFC 9777 §8.3.1 require the last one, with a rate limit)."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the log: `reason` is the counter, or "election"; `count` is its growth."""

    text: str
    reason: str
    count: int


class LogAlarms:
    """Counters and roles at the last tick, and the storms that have not ended."""

    def __init__(self) -> None:
        self._due_at = 0.0
        self._counts: dict[str, int] = {}
        self._grew_at: dict[str, float] = {}
        self._roles: Mapping[str, bool] = {}

    def is_due(self, now: float) -> bool:
        """Return whether the time for the next tick has come."""
        return now >= self._due_at

    def has_grown_within(self, counter: str, time_s: float, now: float) -> bool:
        """Return whether a counter has grown within that time."""
        grew_at = self._grew_at.get(counter)
        return grew_at is not None and now - grew_at <= time_s

    def tick(self, counters: Mapping[str, int], roles: Mapping[str, bool], now: float) -> list[Notice]:
        """Return the new notices; `roles` has for each family's name whether this node is the querier."""
        self._due_at = now + TICK_S
        notices = []
        for name, text in STORMS.items():
            count = counters.get(name, 0)
            growth = count - self._counts.get(name, 0)
            self._counts[name] = count
            if growth <= 0:
                continue
            grew_before = self._grew_at.get(name)
            self._grew_at[name] = now
            if grew_before is None or now - grew_before > QUIET_S:
                notices.append(Notice(text, name, growth))
        for family, is_querier in roles.items():
            if self._roles.get(family, True) is not is_querier:
                text = "this node is the querier again" if is_querier else "a router with a lower address is elected"
                notices.append(Notice(f"{family} election: {text}", "election", 1))
        self._roles = dict(roles)
        return notices
