"""Overlay engines by name, from the entry points `mcast_pipeline.engines` of this package and of others.

An entry point names a subclass of Engine, or a function that makes one from context and now.  Only the engine that the
configuration names is loaded, so one that cannot be loaded is a configuration error.  A name that stands for two
engines is an error too, as it is not clear which one is meant.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Self, cast

from pipeline.engines.api import Engine, EngineContext
from pipeline.errors import ConfigError

ENTRY_POINT_GROUP = "mcast_pipeline.engines"


def names() -> list[str]:
    """Return the names of all engines that can be configured."""
    return sorted({entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)})


@functools.cache
def load(name: str) -> type[Engine]:
    """Return the class of an engine; ConfigError if there is none of that name, or it cannot be loaded.

    The result is cached: reading the metadata of all packages takes 10 ms, and a simulation has thousands of nodes.
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
        return _as_engine(getattr(importlib.import_module(module_name), attribute))
    except (Exception, SystemExit) as error:  # code of another package may raise anything when it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"overlay engine {name!r} cannot be loaded from {target}: {reason}") from error


def _as_engine(found: object) -> type[Engine]:
    """Return the class of an entry point; one that does not derive from Engine is given the defaults of Engine."""
    if not callable(found):
        raise TypeError("not a class; an engine is a subclass of pipeline.engines.api.Engine")
    if not isinstance(found, type):
        return _class_of_factory(found)
    engine: type[Engine] = found if issubclass(found, Engine) else type(found.__name__, (found, Engine), {})
    missing: frozenset[str] = engine.__dict__["__abstractmethods__"]
    if missing:
        raise TypeError(f"the class lacks {', '.join(sorted(missing))}")
    return engine


def _class_of_factory(factory: Callable[[EngineContext, float], object]) -> type[Engine]:
    """Return a class for a function that makes engines; its abilities are attributes of the function."""

    class FromFactory(Engine):
        repairs = bool(getattr(factory, "repairs", Engine.repairs))
        supports_partial_view = bool(getattr(factory, "supports_partial_view", Engine.supports_partial_view))

        def __new__(cls, context: EngineContext, now: float) -> Self:
            engine = factory(context, now)
            if not isinstance(engine, Engine):
                raise ConfigError(f"{factory!r} makes no subclass of pipeline.engines.api.Engine")
            return cast("Self", engine)

    return FromFactory


def _targets(name: str) -> dict[str, str]:
    """Return the entry points of an engine's name, each with the package that declares it."""
    entries = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=name)
    return {entry.value: entry.dist.name if entry.dist else "a package without a name" for entry in entries}
