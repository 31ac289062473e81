"""The querier role on the link, for one family: election, and the times of general queries.

    querier      sends startup queries, then one query every Query Interval (RFC 9776 §6.1, §8.6, §8.7)
    non-querier  sends none while the Other Querier Present timer runs, and uses the elected querier's QRV and QQI
                 (§6.6.2, §4.1.6)

This module knows neither groups (database.py) nor the queries about one group (queries.py).
"""

from __future__ import annotations

from pipeline.address import Address, is_unicast
from pipeline.membership.family import Family
from pipeline.membership.timing import Timing
from pipeline.wire.report import Query


class Querier:
    """Querier state of one family; `timing` holds the values in force, the configured or the adopted ones."""

    def __init__(
        self,
        family: Family,
        *,
        address: Address,
        version: int,
        timing: Timing,
        startup_interval_s: float,
        startup_count: int,
    ) -> None:
        self.family = family
        self.address = address
        self.configured_version = version
        self.version = version  # version of the queries sent: an older one while an older router is on the link
        self.timing = timing
        self.other_until: float | None = None  # the Other Querier Present timer; None while this router is the querier
        self.query_at: float | None = None  # time of the next general query; None before `start`
        self.startup_left = 0
        self.older_until: float | None = None  # end of the time in which an older router is assumed on the link
        self._configured = timing
        self._startup_interval_s = startup_interval_s
        self._startup_count = startup_count

    @property
    def is_querier(self) -> bool:
        """Return whether this router is the querier of the link."""
        return self.other_until is None

    def start(self, now: float) -> None:
        """Become querier and begin the startup queries (RFC 9776 §6.6.2: every router starts as querier).

        After a restore from a snapshot the querier runs already and keeps its role.
        """
        if self.query_at is not None or self.other_until is not None:
            return
        self._become_querier(now)
        self.startup_left = self._startup_count

    def _become_querier(self, now: float) -> None:
        self.other_until = None
        self.timing = self._configured
        self.query_at = now

    def handle_query(self, query: Query, source: Address, now: float) -> bool:
        """Process another router's query; return whether that router is elected.

        The lowest address wins; 0.0.0.0 never does (RFC 4541 §2.1.1).
        """
        if query.group is not None and not self.family.elects_on_any_query:
            return False
        if not is_unicast(source):
            return False
        if query.group is None and query.version <= self.version and query.version < self.configured_version:
            self._follow_version(query.version, now)
        if source >= self.address:
            return False
        self.timing = self._configured.adopt(robustness=query.robustness, query_interval_s=query.query_interval_s)
        self.other_until = now + self.timing.other_querier_present_s
        self.query_at = None
        self.startup_left = 0
        return True

    def _follow_version(self, version: int, now: float) -> None:
        """Send queries of the oldest version on the link (RFC 9776 §6.6.2).

        No RFC states for how long: the Other Querier Present Interval is used, as for the presence of a querier.
        """
        if self.family.follows_older_queries:
            self.version = version
            self.older_until = now + self.timing.other_querier_present_s

    def handle_timeout(self, now: float) -> Query | None:
        """Return a general query if one is due.  One is due at once when the Other Querier Present timer expires."""
        if self.older_until is not None and self.older_until <= now:
            self.older_until = None
            self.version = self.configured_version
        if self.other_until is not None and self.other_until <= now:
            self._become_querier(now)
        if self.query_at is None or self.query_at > now:
            return None
        self.startup_left = max(0, self.startup_left - 1)
        self.query_at = now + (self._startup_interval_s if self.startup_left else self.timing.query_interval_s)
        return self.query(None, self.timing.query_response_interval_s)

    def poll_timeout(self) -> float | None:
        """Return when `handle_timeout` is due, or None."""
        deadline = self.query_at if self.other_until is None else self.other_until
        if deadline is None or self.older_until is None:
            return deadline
        return min(deadline, self.older_until)

    def query(
        self,
        group: Address | None,
        max_response_s: float,
        *,
        suppress: bool = False,
        sources: tuple[Address, ...] = (),
    ) -> Query:
        """Return a query of the version in force with this router's values (RFC 9776 §7.3.1, RFC 9777 §8.3.1)."""
        return Query(
            version=self.version,
            group=group,
            max_response_s=max_response_s,
            suppress=suppress,
            robustness=self.timing.robustness,
            query_interval_s=self.timing.query_interval_s,
            sources=sources,
        )
