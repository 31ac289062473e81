"""Interface between the measurements and the networks that they compare: namespaced hosts, connected in one way.

    with make("vxlan", hosts=4) as network:      four connected hosts, no traffic yet (contenders.py)
        network.interface                        interface on which programs send and join, the same on every host
        network.join(["239.1.1.1"])              hosts 2 … n are members from now on, and host 1 knows it

Host 1 always sends, and all others receive. Each network has its own laboratory (pipeline/lab/netns.py), always with
the same underlay: veth pairs and one bridge without filter rules. This module does not know the measurements.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Self

from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require

MEMBERSHIPS_PER_SOCKET = 200
"""Memberships of one socket; the kernel limits their memory by net.core.optmem_max."""

MEMBERSHIPS_MAX = 10000
"""Value of net.ipv4.igmp_max_memberships on the hosts; the default is 20 for each socket."""


class Network(ABC):
    """Context manager: hosts that are connected in one way."""

    title: ClassVar[str]
    encrypted: ClassVar[bool] = False
    programs: ClassVar[tuple[str, ...]] = ()
    """Programs that are needed beside those of `make setup`; packages.py has their Debian packages."""

    interface: str
    mtu: int

    def __init__(self, hosts: int, *, offloads: bool = True) -> None:
        self.lab = Lab(hosts, offloads=offloads)
        self._members: list[socket.socket] = []

    @property
    def name(self) -> str:
        """Name on the command line and in the tables."""
        return self.title

    @property
    def hosts(self) -> list[Host]:
        return self.lab.hosts

    @property
    def sender(self) -> Host:
        return self.lab.hosts[0]

    @property
    def receivers(self) -> list[Host]:
        return self.lab.hosts[1:]

    def address(self, host: Host) -> str:
        """Return the host's address on the interface."""
        return f"10.78.0.{host.index}"

    def __enter__(self) -> Self:
        for program in self.programs:
            require(program)
        self.lab.__enter__()
        try:
            self.lab.bridge.run([require("nft"), "flush", "ruleset"])  # the lab's byte counts would cost CPU
            for host in self.hosts:
                host.sysctl("net.ipv4.igmp_max_memberships", MEMBERSHIPS_MAX)
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.leave()
        self.lab.close()

    @abstractmethod
    def start(self) -> None:
        """Connect the hosts."""

    def join(self, groups: Iterable[str]) -> None:
        """Make hosts 2 … n members of the groups until `leave`, independently of other programs on them."""
        addresses = list(groups)
        for host in self.receivers:
            with host.enter():
                index = socket.if_nametoindex(self.interface)
                for at in range(0, len(addresses), MEMBERSHIPS_PER_SOCKET):
                    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    self._members.append(holder)
                    for group in addresses[at : at + MEMBERSHIPS_PER_SOCKET]:
                        request = struct.pack("4s4si", socket.inet_aton(group), bytes(4), index)
                        holder.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        self.wait_members(addresses)

    def leave(self) -> None:
        """End all memberships of hosts 2 … n."""
        for holder in self._members:
            holder.close()
        self._members.clear()

    def wait_members(self, groups: list[str]) -> None:  # noqa: B027  (most networks need nothing)
        """Wait until host 1 sends the groups to all others; a network that floods need not wait."""

    def set_address(self, host: Host) -> None:
        """Set up a tap-like interface: address, MTU, and a route for multicast."""
        ip = require("ip")
        host.run([ip, "address", "add", f"{self.address(host)}/24", "dev", self.interface])
        host.run([ip, "link", "set", self.interface, "mtu", str(self.mtu), "up"])
        host.run([ip, "route", "add", "224.0.0.0/4", "dev", self.interface])


def write_private(path: Path, text: str) -> Path:
    """Write a file with mode 0600, for keys and for configurations that contain keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    path.touch(mode=0o600)
    path.write_text(text)
    return path
