"""Counters and drop reasons of the stages: names, values and sums.  Read only; all begin at 0 with the region.

Their list is in mp_counter.h and nowhere else.
"""

from __future__ import annotations

from typing import Any

from pipeline.shm._native import ffi, lib
from pipeline.shm.region import Region

ALL = 0xFFFFFFFF
"""All lanes, or all stages, in mp_counter_sum()."""


def _texts(function: Any) -> tuple[str, ...]:
    return tuple(ffi.string(function(which)).decode() for which in range(lib.MP_COUNTERS))


_NAMES = _texts(lib.mp_counter_name)
_TEXTS = _texts(lib.mp_counter_text)
_INDEX = {name: which for which, name in enumerate(_NAMES)}

EVENTS = _NAMES[: lib.MP_FIRST_DROP]
"""Names of the counters that are not drop reasons."""
DROPS = _NAMES[lib.MP_FIRST_DROP :]
"""Names of the drop reasons."""


def text(name: str) -> str:
    """Return the meaning of a counter or drop reason, in a few words."""
    return _TEXTS[_INDEX[name]]


def value(region: Region, name: str, *, lane: int | None = None, stage: int | None = None) -> int:
    """Return one counter or drop reason, summed over all lanes and stages unless one is given; KeyError if unknown."""
    return int(
        lib.mp_counter_sum(region.native, _INDEX[name], ALL if lane is None else lane, ALL if stage is None else stage)
    )


def drops(region: Region) -> dict[str, int]:
    """Return the drops by reason, with all reasons."""
    return {name: value(region, name) for name in DROPS}


def totals(region: Region) -> dict[str, Any]:
    """Return all counters by name, and `drops` by reason."""
    found: dict[str, Any] = {name: value(region, name) for name in EVENTS}
    found["drops"] = drops(region)
    return found
