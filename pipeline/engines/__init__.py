"""Overlay engines by name: those of installed packages (entry points `mcast_pipeline.engines`), then the built-in ones.

An entry point names an EngineFactory.  One that cannot be loaded is a configuration error, since only what the
configuration names is ever loaded; so is a name that stands for two engines, as nobody knows which is meant.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata

from pipeline.engines.api import EngineFactory
from pipeline.errors import ConfigError

ENTRY_POINT_GROUP = "mcast_pipeline.engines"

BUILT_IN = {
    "mesh": "pipeline.engines.mesh:Mesh",
    "flood": "pipeline.engines.flood:Flood",
    "nemo": "pipeline.engines.nemo.engine:Nemo",
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
    targets = _targets(name)
    if not targets:
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(names())}"
        raise ConfigError(f"no overlay engine {name!r}{hint}")
    if len(targets) > 1:
        found = " and ".join(f"{target} of {owner}" for target, owner in targets.items())
        raise ConfigError(f"overlay engine {name!r} is ambiguous: {found}; uninstall or rename one")
    target = next(iter(targets))
    module_name, _, attribute = target.partition(":")
    try:
        factory: EngineFactory = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # whatever the code of another package does when it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"overlay engine {name!r} cannot be loaded from {target}: {reason}") from error
    return factory


def _targets(name: str) -> dict[str, str]:
    """What an engine's name stands for, each with the package that says so."""
    entries = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=name)
    found = {entry.value: entry.dist.name if entry.dist else "a package without a name" for entry in entries}
    if name in BUILT_IN:
        found.setdefault(BUILT_IN[name], "mcast-pipeline")
    return found


def repairs(name: str) -> bool:
    """Whether an engine's routes may ask for repair: its factory then has a true attribute `repairs`."""
    return bool(getattr(load(name), "repairs", False))
