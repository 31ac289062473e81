"""The protocol's time constants (RFC 9776 §8, RFC 9777 §9), derived from the configured or adopted ones.

These are durations in seconds; no timer runs here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """The time constants of one family.  Sections are those of RFC 9776; RFC 9777 has the same ones a chapter later."""

    robustness: int  # §8.1
    query_interval_s: float  # §8.2
    query_response_interval_s: float  # §8.3
    last_member_query_interval_s: float  # §8.8
    membership_s: float = dataclasses.field(init=False)
    other_querier_present_s: float = dataclasses.field(init=False)
    older_host_present_s: float = dataclasses.field(init=False)
    last_member_query_time_s: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Compute the derived values once, because every report needs them."""
        round_s = self.robustness * self.query_interval_s
        set_once = object.__setattr__
        set_once(self, "membership_s", round_s + 2 * self.query_response_interval_s)  # §8.4
        set_once(self, "other_querier_present_s", round_s + self.query_response_interval_s / 2)  # §8.5
        set_once(self, "older_host_present_s", round_s + self.query_response_interval_s)  # §8.13
        set_once(self, "last_member_query_time_s", self.robustness * self.last_member_query_interval_s)  # §8.10

    @property
    def last_member_query_count(self) -> int:
        """The Robustness Variable (§8.9)."""
        return self.robustness

    def adopt(self, *, robustness: int, query_interval_s: float) -> Timing:
        """Return a copy with another querier's values (§4.1.6, §4.1.7); 0 keeps the own value."""
        return dataclasses.replace(
            self,
            robustness=robustness or self.robustness,
            query_interval_s=query_interval_s or self.query_interval_s,
        )
