"""Resources of the control process: everything that the supervisor opens and hands to it at the fork."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.config import Config
from pipeline.shm.region import Region


class Service(Protocol):
    """A server in control's event loop beside its own work: the metrics."""

    def fileno(self) -> int:
        """Return the listening descriptor, which is opened before the fork."""

    async def attach(self, view: Callable[[str], Any]) -> None:
        """Serve from now on; `view` returns the value of "status" or of a noun of `show` (control/show.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlResources:
    """Configuration, descriptors and shared memory of the control process."""

    config: Config
    keystore: int
    """Memory file with the identity and the network keys; there are none of these with --insecure."""
    addresses: tuple[str, ...]
    mtu: int
    region: Region
    queue: int
    """Lane 0's TUN queue, to which control only writes."""
    listener: int
    """Listening TCP socket of the control port."""
    checkpoint: int
    ingress_bells: tuple[int, ...]
    egress_bells: tuple[int, ...]
    ready_bell: int
    moves: socket.socket
    """Socket to the supervisor, which has the right to change the interface's addresses."""
    started: float
    """Monotonic time of the launch."""
    service: Service | None = None

    @property
    def is_sealed(self) -> bool:
        """True if the instance has a network key."""
        return not self.config.node.insecure
