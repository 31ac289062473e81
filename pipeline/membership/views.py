"""Values that membership hands to the rest of the program: events, the view of a group, a step of a trace."""

from __future__ import annotations

import msgspec

from pipeline.address import Address, FilterMode, SourceFilter


class MembershipChanged(msgspec.Struct, frozen=True):
    """The merged state of a group on the link has changed; the filter is None when the group has no member left."""

    group: Address
    source_filter: SourceFilter | None


class GroupView(msgspec.Struct, frozen=True):
    """One group as `show groups` lists it; lists are sorted.

    `sources` are the requested sources in INCLUDE and the excluded ones (Y) in EXCLUDE; `requested` is X in EXCLUDE.
    `expires_s` is the group timer in EXCLUDE and the longest source timer in INCLUDE.
    """

    group: Address
    filter_mode: FilterMode
    sources: tuple[Address, ...]
    requested: tuple[Address, ...]
    compatibility: str
    expires_s: float


class TraceEvent(msgspec.Struct, frozen=True):
    """A rule that fired: a row of the RFCs' state tables, a timer or a query; `host` is the sender of the report."""

    now: float
    group: Address | None
    host: Address | None
    rule: str
