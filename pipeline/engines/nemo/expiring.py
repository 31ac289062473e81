"""What is remembered for a while: who has just been told, has answered, is dead, has been let go."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class TtlMap(Generic[K]):
    """Keys, each until a time in the caller's seconds; those whose time is over go when another comes."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[K, float] = {}

    def add(self, key: K, until: float, now: float) -> None:
        """Remember it, or from now on until then."""
        self._until = {each: at for each, at in self._until.items() if at > now}
        self._until[key] = until

    def has(self, key: K, now: float) -> bool:
        """Whether its time is not over."""
        return self._until.get(key, now) > now

    def discard(self, key: K) -> None:
        """Forget it, if it is remembered."""
        self._until.pop(key, None)
