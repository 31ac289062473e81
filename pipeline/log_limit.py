"""Limits of log lines: how many of each kind and of each peer are written; the others are counted and summed up.

    line ─▶ admits ─yes─▶ it is written
                   └─no──▶ it is counted ─▶ poll_summary, LOG_SUMMARY_S after the first: "link down: 312 more in 60 s"

All lines are limited, so nobody has to know which of them a peer, a local program or the network can cause.  A kind is
the text of a line without its fields.  A subject is the peer, or the process or interface, that the line is about.  Its
own limit is the smaller one: one subject that flaps leaves room for the lines about all others.

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
        self._subjects: dict[tuple[str, str], TokenBucket] = {}
        """Least recently used first."""

    def admits(self, kind: str, subject: str, level: str, now: float) -> bool:
        """Return whether a line may be written now; count it if not."""
        if kind not in self._kinds and len(self._kinds) >= limits.LOG_KINDS_MAX:
            kind = "other lines"
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = _Kind(_bucket(limits.LOG_KIND_BURST, limits.LOG_KIND_INTERVAL_S, now))
        if self._subject(kind, subject, now).take(1, now) and found.bucket.take(1, now):
            return True
        if found.count == 0:
            found.since, found.level = now, level
        found.count += 1
        if subject in found.subjects or len(found.subjects) < limits.LOG_SUMMARY_SUBJECTS_MAX:
            found.subjects[subject] = found.subjects.get(subject, 0) + 1
        return False

    def _subject(self, kind: str, subject: str, now: float) -> TokenBucket:
        bucket = self._subjects.pop((kind, subject), None)
        if bucket is None:
            bucket = _bucket(limits.LOG_SUBJECT_BURST, limits.LOG_SUBJECT_INTERVAL_S, now)
        if len(self._subjects) >= limits.LOG_SUBJECTS_MAX:
            del self._subjects[next(iter(self._subjects))]
        self._subjects[kind, subject] = bucket
        return bucket

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
