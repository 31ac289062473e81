"""Overlay engines by name: those of installed packages (entry points `mcast_pipeline.engines`), then the built-in ones.

An entry point names an EngineFactory.  One that cannot be loaded is a configuration error, since only what the
configuration names is ever loaded.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata

from pipeline.errors import ConfigError
from pipeline.overlay.api import EngineFactory

ENTRY_POINT_GROUP = "mcast_pipeline.engines"

BUILT_IN = {
    "mesh": "pipeline.overlay.engines.mesh:Mesh",
    "flood": "pipeline.overlay.engines.flood:Flood",
    "nemo": "pipeline.overlay.engines.nemo.engine:Nemo",
}
"""Used when the package runs without its metadata; the same engines stand in pyproject.toml."""


def names() -> list[str]:
    """All engines that can be configured."""
    return sorted({*BUILT_IN, *(entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))})


@functools.cache
def load(name: str) -> EngineFactory:
    """The factory of an engine; ConfigError if there is none of that name, or it cannot be loaded.

    Looked up once: to read the metadata of all packages takes 10 ms, which a simulation of thousands would feel.
    """
    entries = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=name)
    target = next((entry.value for entry in entries), BUILT_IN.get(name))
    if target is None:
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(names())}"
        raise ConfigError(f"no overlay engine {name!r}{hint}")
    module_name, _, attribute = target.partition(":")
    try:
        factory: EngineFactory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"overlay engine {name!r} cannot be loaded from {target}: {error}") from error
    return factory


def repairs(name: str) -> bool:
    """Whether an engine's routes may ask for repair: its factory then has a true attribute `repairs`."""
    return bool(getattr(load(name), "repairs", False))
