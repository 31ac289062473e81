"""One family's querier on the link: who asks (election), and when the general queries go out.

    querier      startup queries, then one every Query Interval (RFC 9776 §6.1, §8.6, §8.7)
    non-querier  silent while the Other Querier Present timer runs, by the other's QRV and QQI (§6.6.2, §4.1.6)

Does not know groups (database.py) nor the queries about one (queries.py).
"""

from __future__ import annotations

from pipeline.address import Address, is_unicast
from pipeline.membership.family import Family
from pipeline.membership.timing import Timing
from pipeline.wire.report import Query


class Querier:
    """State of one family; `timing` holds the values in force, the configured or the adopted ones."""

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
        self.version = version  # of the queries sent: the configured one, or an older one while a router speaks it
        self.timing = timing
        self.other_until: float | None = None  # the Other Querier Present timer: None while this side is the querier
        self.query_at: float | None = None  # the next general query: None before `start`
        self.startup_left = 0
        self.older_until: float | None = None  # while a router of an older version is thought to be on the link
        self._configured = timing
        self._startup_interval_s = startup_interval_s
        self._startup_count = startup_count

    @property
    def is_querier(self) -> bool:
        """Whether this side asks; the other one does while it is heard."""
        return self.other_until is None

    def start(self, now: float) -> None:
        """Become querier, with startup queries from now on (RFC 9776 §6.6.2: every router starts as one).

        One that goes on from a snapshot runs already: it keeps its role.
        """
        if self.query_at is not None or self.other_until is not None:
            return
        self._take_over(now)
        self.startup_left = self._startup_count

    def _take_over(self, now: float) -> None:
        self.other_until = None
        self.timing = self._configured
        self.query_at = now

    def hear(self, query: Query, source: Address, now: float) -> bool:
        """Another router's query: whether it won.  The lowest address wins, 0.0.0.0 never (RFC 4541 §2.1.1)."""
        if query.group is not None and not self.family.elects_on_any_query:
            return False
        if not is_unicast(source):
            return False
        if query.group is None and query.version <= self.version and query.version < self.configured_version:
            self._follow(query.version, now)
        if source >= self.address:
            return False
        self.timing = self._configured.adopt(robustness=query.robustness, query_interval_s=query.query_interval_s)
        self.other_until = now + self.timing.other_querier_present_s
        self.query_at = None
        self.startup_left = 0
        return True

    def _follow(self, version: int, now: float) -> None:
        """The oldest version on the link is used, by the one whose router speaks it (RFC 9776 §6.6.2).

        No RFC says for how long: for as long as a silent querier is believed to be there.
        """
        if self.family.follows_older_queries:
            self.version = version
            self.older_until = now + self.timing.other_querier_present_s

    def handle_timeout(self, now: float) -> Query | None:
        """A general query if one is due; the other querier's silence makes this side ask at once."""
        if self.older_until is not None and self.older_until <= now:
            self.older_until = None
            self.version = self.configured_version
        if self.other_until is not None and self.other_until <= now:
            self._take_over(now)
        if self.query_at is None or self.query_at > now:
            return None
        self.startup_left = max(0, self.startup_left - 1)
        self.query_at = now + (self._startup_interval_s if self.startup_left else self.timing.query_interval_s)
        return self.query(None, self.timing.query_response_interval_s)

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        asking = self.query_at if self.other_until is None else self.other_until
        if asking is None or self.older_until is None:
            return asking
        return min(asking, self.older_until)

    def query(
        self,
        group: Address | None,
        max_response_s: float,
        *,
        suppress: bool = False,
        sources: tuple[Address, ...] = (),
    ) -> Query:
        """A query in the version in force with this side's values (RFC 9776 §7.3.1, RFC 9777 §8.3.1)."""
        return Query(
            version=self.version,
            group=group,
            max_response_s=max_response_s,
            suppress=suppress,
            robustness=self.timing.robustness,
            query_interval_s=self.timing.query_interval_s,
            sources=sources,
        )
