"""What the stages counted: names, values and sums.  Read only; a counter starts at 0 with the region.

The list of counters and of drop reasons stands in mp_counter.h and nowhere else.
"""

from __future__ import annotations

from typing import Any

from pipeline.shm._native import ffi, lib
from pipeline.shm.region import Region

ALL = 0xFFFFFFFF
"""As lane or stage of mp_counter_sum(): all of them."""


def _texts(function: Any) -> tuple[str, ...]:
    return tuple(ffi.string(function(which)).decode() for which in range(lib.MP_COUNTERS))


_NAMES = _texts(lib.mp_counter_name)
_TEXTS = _texts(lib.mp_counter_text)
_INDEX = {name: which for which, name in enumerate(_NAMES)}

EVENTS = _NAMES[: lib.MP_FIRST_DROP]
"""Names of what is counted beside drops."""
DROPS = _NAMES[lib.MP_FIRST_DROP :]
"""The drop reasons."""


def text(name: str) -> str:
    """What a counter or drop reason means, in a few words."""
    return _TEXTS[_INDEX[name]]


def value(region: Region, name: str, *, lane: int | None = None, stage: int | None = None) -> int:
    """One counter or drop reason, summed over all lanes and stages or over those of one; KeyError if there is none."""
    return int(
        lib.mp_counter_sum(region.native, _INDEX[name], ALL if lane is None else lane, ALL if stage is None else stage)
    )


def drops(region: Region) -> dict[str, int]:
    """Drops by reason, all reasons."""
    return {name: value(region, name) for name in DROPS}


def totals(region: Region) -> dict[str, Any]:
    """All counters by name, and `drops` by reason."""
    found: dict[str, Any] = {name: value(region, name) for name in EVENTS}
    found["drops"] = drops(region)
    return found
