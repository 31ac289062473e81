"""The whole membership state as bytes, so that a restarted control process goes on where the last one stopped.

msgpack; every timer is written as the seconds it still has to run.  Does not know where the bytes are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from pipeline.address import Address, FilterMode
from pipeline.errors import WireError
from pipeline.membership.database import Database
from pipeline.membership.querier import Querier
from pipeline.membership.queries import Pending
from pipeline.membership.state import GroupState

_SCHEMA = 1


class _SavedPending(msgspec.Struct, frozen=True, array_like=True):
    group_left: int
    sources_left: dict[bytes, int]
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
    """Everything there is, as of now."""
    saved = _Saved(
        schema=_SCHEMA,
        queriers=[_save_querier(querier, now) for querier in queriers],
        groups=[_save_group(record, now) for record in database.groups.values()],
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


def _save_group(record: GroupState, now: float) -> _SavedGroup:
    pending = record.pending
    return _SavedGroup(
        group=record.group,
        exclude=record.mode is FilterMode.EXCLUDE,
        group_s=record.group_deadline - now,
        requested_s=_remaining(record.requested, now),
        excluded=sorted(record.excluded),
        v1_s=max(0.0, record.v1_until - now),
        v2_s=max(0.0, record.v2_until - now),
        reporters_s=None if record.reporters is None else _remaining(record.reporters, now),
        pending=None
        if pending is None
        else _SavedPending(pending.group_left, dict(pending.sources_left), pending.resend_at - now),
    )


def _remaining(deadlines: Mapping[Address, float], now: float) -> dict[Address, float]:
    return {address: deadline - now for address, deadline in deadlines.items()}


def load(data: bytes, database: Database, queriers: Iterable[Querier], counters: dict[str, int], now: float) -> None:
    """Put a saved state into an empty one; WireError("snapshot") if the bytes are none, and nothing is touched.

    A side that asks does so at once: what hosts said while nobody listened, they then say again.
    """
    try:
        saved = msgspec.msgpack.decode(data, type=_Saved)
    except msgspec.MsgspecError as error:
        raise WireError("snapshot") from error
    by_length = dict(zip((4, 16), queriers, strict=True))
    if saved.schema != _SCHEMA or len(saved.queriers) != 2 or any(len(g.group) not in by_length for g in saved.groups):
        raise WireError("snapshot")
    for querier, kept in zip(by_length.values(), saved.queriers, strict=True):
        _load_querier(querier, kept, now)
    for group in saved.groups:
        database.adopt(_load_group(group, by_length[len(group.group)], now))
    counters.update(saved.counters)


def _load_querier(querier: Querier, kept: _SavedQuerier, now: float) -> None:
    if not kept.running:
        return
    if kept.older_s is not None:
        querier.version = min(kept.version, querier.version)
        querier.older_until = now + kept.older_s
    if kept.other_s is None:
        querier.query_at = now
        querier.startup_left = kept.startup_left
        return
    querier.other_until = now + kept.other_s
    querier.timing = querier.timing.adopt(robustness=kept.robustness, query_interval_s=kept.query_interval_s)


def _load_group(group: _SavedGroup, querier: Querier, now: float) -> GroupState:
    record = GroupState(group.group, querier)
    record.mode = FilterMode.EXCLUDE if group.exclude else FilterMode.INCLUDE
    record.group_deadline = now + group.group_s
    record.requested = _absolute(group.requested_s, now)
    record.excluded = frozenset(group.excluded)
    record.v1_until = now + group.v1_s
    record.v2_until = now + group.v2_s
    record.reporters = None if group.reporters_s is None else _absolute(group.reporters_s, now)
    if group.pending is not None:
        record.pending = Pending()
        record.pending.group_left = group.pending.group_left
        record.pending.sources_left = group.pending.sources_left
        record.pending.resend_at = now + group.pending.resend_s
    return record


def _absolute(remaining_s: Mapping[Address, float], now: float) -> dict[Address, float]:
    return {address: now + seconds for address, seconds in remaining_s.items()}
