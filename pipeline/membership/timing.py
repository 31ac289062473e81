"""The times of RFC 9776 §8 and RFC 9777 §9, derived from the few that are configured or adopted from the querier.

No timer runs here (timers.py): these are lengths in seconds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """One family's values; sections are RFC 9776's, RFC 9777 has the same ones a chapter later."""

    robustness: int  # §8.1
    query_interval_s: float  # §8.2
    query_response_interval_s: float  # §8.3
    last_member_query_interval_s: float  # §8.8
    membership_s: float = dataclasses.field(init=False)
    other_querier_present_s: float = dataclasses.field(init=False)
    older_host_present_s: float = dataclasses.field(init=False)
    last_member_query_time_s: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Computed once: every report needs them."""
        round_s = self.robustness * self.query_interval_s
        set_once = object.__setattr__
        set_once(self, "membership_s", round_s + 2 * self.query_response_interval_s)  # §8.4
        set_once(self, "other_querier_present_s", round_s + self.query_response_interval_s / 2)  # §8.5
        set_once(self, "older_host_present_s", round_s + self.query_response_interval_s)  # §8.13
        set_once(self, "last_member_query_time_s", self.robustness * self.last_member_query_interval_s)  # §8.10

    @property
    def last_member_query_count(self) -> int:
        """§8.9: the Robustness Variable."""
        return self.robustness

    def adopt(self, *, robustness: int, query_interval_s: float) -> Timing:
        """These values with those of another querier; 0 keeps the own one, the default (§4.1.6, §4.1.7)."""
        return dataclasses.replace(
            self,
            robustness=robustness or self.robustness,
            query_interval_s=query_interval_s or self.query_interval_s,
        )
