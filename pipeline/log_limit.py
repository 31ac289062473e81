"""Limits of log lines: how many of each kind and of each peer are written; the others are counted and summed up.

    line ─▶ admits ─yes─▶ it is written
                   └─no──▶ it is counted ─▶ poll_summary, LOG_SUMMARY_S after the first: "link down: 312 more in 60 s"

All lines are limited, so no list is needed of those that a peer, a local program or the network can cause.  A kind is
the text of a line without its fields.  A subject is the peer, or the process or interface, that the line is about.  Its
own limit is the smaller one: one subject that flaps leaves room for the lines about all others.  Of warnings
without a subject, the same line is written once in LOG_SUBJECT_INTERVAL_S.

This module reads no clock and writes nothing; logs.py does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline import limits
from pipeline.token_bucket import TokenBucket


@dataclass(frozen=True, slots=True)
class Summary:
    """Sum of the lines of one kind that were not written."""

    text: str
    level: str
    count: int
    since_s: float
    """Time since the first of them."""
    subject: str
    """Subject of most of them; empty if they have none."""


@dataclass(slots=True)
class _Kind:
    bucket: TokenBucket
    level: str = ""
    since: float = 0.0
    count: int = 0
    subjects: dict[str, int] = field(default_factory=dict)


class LogLimit:
    """Limits of one process."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        """By kind and subject, or kind and line; least recently used first."""

    def admits(self, kind: str, subject: str, level: str, now: float, *, line: str = "") -> bool:
        """Return whether a line may be written now; count it if not.

        `line`: the whole text of a line that is written once in LOG_SUBJECT_INTERVAL_S; empty for any other.
        """
        if kind not in self._kinds and len(self._kinds) >= limits.LOG_KINDS_MAX:
            kind = "other lines"
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = _Kind(_bucket(limits.LOG_KIND_BURST, limits.LOG_KIND_INTERVAL_S, now))
        is_new = not line or self._take((kind, line), 1, now)
        if is_new and self._take((kind, subject), limits.LOG_SUBJECT_BURST, now) and found.bucket.take(1, now):
            return True
        if found.count == 0:
            found.since, found.level = now, level
        found.count += 1
        if subject in found.subjects or len(found.subjects) < limits.LOG_SUMMARY_SUBJECTS_MAX:
            found.subjects[subject] = found.subjects.get(subject, 0) + 1
        return False

    def _take(self, key: tuple[str, str], burst: int, now: float) -> bool:
        """Take from the bucket of a subject or of a line."""
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = _bucket(burst, limits.LOG_SUBJECT_INTERVAL_S, now)
        if len(self._buckets) >= limits.LOG_SUBJECTS_MAX:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = bucket
        return bucket.take(1, now)

    def poll_timeout(self) -> float | None:
        """Return the time at which the next summary is due."""
        since = [kind.since for kind in self._kinds.values() if kind.count]
        return min(since) + limits.LOG_SUMMARY_S if since else None

    def poll_summary(self, now: float, *, is_end: bool = False) -> Summary | None:
        """Return the next summary that is due, or at the end of the process any that is left."""
        for text, kind in self._kinds.items():
            if kind.count and (is_end or now - kind.since >= limits.LOG_SUMMARY_S):
                subject = max(kind.subjects, key=lambda name: kind.subjects[name])
                summary = Summary(text, kind.level, kind.count, now - kind.since, subject)
                kind.count, kind.subjects = 0, {}
                return summary
        return None


def _bucket(burst: int, interval_s: float, now: float) -> TokenBucket:
    return TokenBucket(rate_per_s=1 / interval_s, burst=burst, now=now)
