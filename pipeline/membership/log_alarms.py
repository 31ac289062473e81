"""What an operator should read in the log about membership: storms and a change of querier, each said once.

Looks at counters and roles now and then; knows neither packets nor where its lines go.  A storm is a counter of
the table below that grows: the first growth is told, and nothing more until it has stood still for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.drop_reasons import MembershipCounter

LOOK_INTERVAL_S = 0.5
"""Between two looks: soon enough for a log, and next to nothing under 20,000 reports a second."""

QUIET_S = 60.0
"""A counter that has not grown for so long has had its storm; the next growth is a new one."""

STORMS: Mapping[str, str] = MappingProxyType(
    {
        "report_limit": "membership reports beyond the limit are dropped",
        MembershipCounter.REPORT_RATE: "group records beyond the limit are dropped",
        MembershipCounter.GROUPS_LIMIT: "no room for more groups: new ones are ignored",
        MembershipCounter.SOURCES_LIMIT: "no room for more sources: new ones are ignored",
        MembershipCounter.QUERY_QUEUE_FULL: "more queries than can be sent are dropped",
        MembershipCounter.QUERY_VERSION_MISMATCH: "another router on this link speaks another version of IGMP or MLD",
    }
)
"""Counter → what its growth means (RFC 9776 §7.3.1 and RFC 9777 §8.3.1 ask for the last one, rate-limited)."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the log: `reason` is the counter, or "election"; `count` how much it has grown."""

    text: str
    reason: str
    count: int


class LogAlarms:
    """Remembers what was seen at the last look."""

    def __init__(self) -> None:
        self._look_at = 0.0
        self._seen: dict[str, int] = {}
        self._grew_at: dict[str, float] = {}
        self._roles: Mapping[str, bool] = {}

    def is_due(self, now: float) -> bool:
        """Whether another look is worth it."""
        return now >= self._look_at

    def tick(self, counters: Mapping[str, int], roles: Mapping[str, bool], now: float) -> list[Notice]:
        """What is new; `roles` says for each family's name whether this side is the querier."""
        self._look_at = now + LOOK_INTERVAL_S
        notices = []
        for name, text in STORMS.items():
            count = counters.get(name, 0)
            grown = count - self._seen.get(name, 0)
            self._seen[name] = count
            if grown <= 0:
                continue
            before = self._grew_at.get(name)
            self._grew_at[name] = now
            if before is None or now - before > QUIET_S:
                notices.append(Notice(text, name, grown))
        for family, is_querier in roles.items():
            if self._roles.get(family, True) is not is_querier:
                text = "this node asks again" if is_querier else "another router with a lower address asks"
                notices.append(Notice(f"{family} querier: {text}", "election", 1))
        self._roles = dict(roles)
        return notices
