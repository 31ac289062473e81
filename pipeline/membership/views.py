"""What membership tells the rest of the program: events, the view of a group, a step of a trace.

Plain values: nothing here knows how they come about.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.address import Address, FilterMode, SourceFilter


@dataclass(frozen=True, slots=True)
class MembershipChanged:
    """A group's merged state on the link has changed; None: no member any more."""

    group: Address
    wanted: SourceFilter | None


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group as `show groups` lists it; lists are sorted.

    `sources` are the requested ones in INCLUDE and the excluded ones (Y) in EXCLUDE; `requested` is X in EXCLUDE.
    `expires_s` is the group timer in EXCLUDE, the longest source timer in INCLUDE.
    """

    group: Address
    filter_mode: FilterMode
    sources: tuple[Address, ...]
    requested: tuple[Address, ...]
    compatibility: str
    expires_s: float


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One rule that fired: a row of the state tables in the RFCs' words, or a timer; `host` sent the report."""

    now: float
    group: Address | None
    host: Address | None
    rule: str
