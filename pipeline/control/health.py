"""Health of a running instance: the faults with which it is ready but degraded, such as a group without an entry.

    check of each fault ─▶ faults ─▶ `status`: the state "degraded" and its reasons; metrics      control/show.py
                             └─────▶ tick: a log line when a fault begins, and when it ends       control/periodic.py

A fault lasts as long as its check gives a text.  The parts of control that can fail know why; this module knows only
when.  A degraded instance goes on with all that it can do, so it is still ready.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger()


class Fault(enum.StrEnum):
    """Word of a fault in `status`, the log and the metrics."""

    SHARED_MEMORY = "shared_memory"
    """Forwarding entries, keys or addresses are not written, because shared memory has no room for them."""
    GROUPS_LIMIT = "groups_limit"
    """Memberships are ignored, because there are too many groups."""
    SOURCES_LIMIT = "sources_limit"
    """Sources of a group are ignored, because it has too many."""
    CHECKPOINT = "checkpoint"
    """The state of control is not saved: if it is restarted, it goes on from an older one."""
    INTERFACE = "interface"
    """The interface is missing or down: no packets pass."""


class Health:
    """Faults of one instance."""

    def __init__(self, checks: Mapping[Fault, Callable[[float], str]]) -> None:
        """A check returns, for the present time, what is wrong and what to do, or an empty text."""
        self._checks = checks
        self._logged: set[Fault] = set()

    def faults(self, now: float) -> dict[str, str]:
        """Return the present faults with their texts."""
        texts = {fault.value: check(now) for fault, check in self._checks.items()}
        return {fault: text for fault, text in texts.items() if text}

    def tick(self, now: float) -> None:
        """Log each fault that has begun or ended since the last call."""
        for fault, check in self._checks.items():
            text = check(now)
            if text and fault not in self._logged:
                self._logged.add(fault)
                log.warning("degraded", reason=fault.value, detail=text)
            elif not text and fault in self._logged:
                self._logged.remove(fault)
                log.info("no longer degraded", reason=fault.value)
