"""Snapshot of the whole membership state as bytes, so that a restarted control process continues with it.

The format is msgpack; a timer is saved as its remaining seconds.  This module does not know where the bytes are saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from pipeline.address import Address, FilterMode
from pipeline.errors import WireError
from pipeline.membership.database import Database
from pipeline.membership.querier import Querier
from pipeline.membership.state import GroupState, PendingQueries

_SCHEMA = 1


class _SavedPending(msgspec.Struct, frozen=True, array_like=True):
    group_repeats: int
    source_repeats: dict[bytes, int]
    resend_s: float


class _SavedGroup(msgspec.Struct, frozen=True, array_like=True):
    group: bytes
    exclude: bool
    group_s: float
    requested_s: dict[bytes, float]
    excluded: list[bytes]
    v1_s: float
    v2_s: float
    reporters_s: dict[bytes, float] | None
    pending: _SavedPending | None


class _SavedQuerier(msgspec.Struct, frozen=True, array_like=True):
    other_s: float | None
    robustness: int
    query_interval_s: float
    startup_left: int
    version: int
    older_s: float | None
    running: bool


class _Saved(msgspec.Struct, frozen=True, tag="membership", forbid_unknown_fields=True):
    schema: int
    queriers: list[_SavedQuerier]
    groups: list[_SavedGroup]
    counters: dict[str, int]


def save(database: Database, queriers: Iterable[Querier], counters: Mapping[str, int], now: float) -> bytes:
    """Return the state as of `now`."""
    saved = _Saved(
        schema=_SCHEMA,
        queriers=[_save_querier(querier, now) for querier in queriers],
        groups=[_save_group(state, now) for state in database.groups.values()],
        counters=dict(counters),
    )
    return msgspec.msgpack.encode(saved)


def _save_querier(querier: Querier, now: float) -> _SavedQuerier:
    return _SavedQuerier(
        other_s=None if querier.other_until is None else querier.other_until - now,
        robustness=querier.timing.robustness,
        query_interval_s=querier.timing.query_interval_s,
        startup_left=querier.startup_left,
        version=querier.version,
        older_s=None if querier.older_until is None else querier.older_until - now,
        running=querier.query_at is not None or querier.other_until is not None,
    )


def _save_group(state: GroupState, now: float) -> _SavedGroup:
    pending = state.pending
    return _SavedGroup(
        group=state.group,
        exclude=state.mode is FilterMode.EXCLUDE,
        group_s=state.group_deadline - now,
        requested_s=_remaining(state.requested, now),
        excluded=sorted(state.excluded),
        v1_s=max(0.0, state.v1_until - now),
        v2_s=max(0.0, state.v2_until - now),
        reporters_s=None if state.reporters is None else _remaining(state.reporters, now),
        pending=None
        if pending is None
        else _SavedPending(pending.group_repeats, dict(pending.source_repeats), pending.resend_at - now),
    )


def _remaining(deadlines: Mapping[Address, float], now: float) -> dict[Address, float]:
    return {address: deadline - now for address, deadline in deadlines.items()}


def load(data: bytes, database: Database, queriers: Iterable[Querier], counters: dict[str, int], now: float) -> None:
    """Load a snapshot into an empty database; WireError("snapshot"), and no change, if the bytes are not one.

    A querier sends a general query at once, so that hosts repeat the reports that were lost meanwhile.
    """
    try:
        saved = msgspec.msgpack.decode(data, type=_Saved)
    except msgspec.MsgspecError as error:
        raise WireError("snapshot") from error
    by_length = dict(zip((4, 16), queriers, strict=True))
    if saved.schema != _SCHEMA or len(saved.queriers) != 2 or any(len(g.group) not in by_length for g in saved.groups):
        raise WireError("snapshot")
    for querier, saved_querier in zip(by_length.values(), saved.queriers, strict=True):
        _load_querier(querier, saved_querier, now)
    for group in saved.groups:
        database.adopt(_load_group(group, by_length[len(group.group)], now))
    counters.update(saved.counters)


def _load_querier(querier: Querier, saved: _SavedQuerier, now: float) -> None:
    if not saved.running:
        return
    if saved.older_s is not None:
        querier.version = min(saved.version, querier.version)
        querier.older_until = now + saved.older_s
    if saved.other_s is None:
        querier.query_at = now
        querier.startup_left = saved.startup_left
        return
    querier.other_until = now + saved.other_s
    querier.timing = querier.timing.adopt(robustness=saved.robustness, query_interval_s=saved.query_interval_s)


def _load_group(saved: _SavedGroup, querier: Querier, now: float) -> GroupState:
    state = GroupState(saved.group, querier)
    state.mode = FilterMode.EXCLUDE if saved.exclude else FilterMode.INCLUDE
    state.group_deadline = now + saved.group_s
    state.requested = _absolute(saved.requested_s, now)
    state.excluded = frozenset(saved.excluded)
    state.v1_until = now + saved.v1_s
    state.v2_until = now + saved.v2_s
    state.reporters = None if saved.reporters_s is None else _absolute(saved.reporters_s, now)
    if saved.pending is not None:
        state.pending = PendingQueries()
        state.pending.group_repeats = saved.pending.group_repeats
        state.pending.source_repeats = saved.pending.source_repeats
        state.pending.resend_at = now + saved.pending.resend_s
    return state


def _absolute(remaining_s: Mapping[Address, float], now: float) -> dict[Address, float]:
    return {address: now + seconds for address, seconds in remaining_s.items()}
