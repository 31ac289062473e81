"""The seam between what is measured and what connects the hosts: a network of namespaced hosts.

    with make("vxlan", hosts=4) as network:      four hosts, connected, nothing sent yet (peers.py)
        network.interface                        where a program sends and joins, the same word on every host
        network.join(["239.1.1.1"])              hosts 2 … n are members from now on, and host 1 knows

Host 1 is always the one that sends and all others are those that receive.  Each network stands in a laboratory of
its own (pipeline/lab/netns.py) whose underlay is the same for all: veth pairs and one bridge without filter rules.
What is measured, and how, is not known here.
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
"""The kernel's memory for memberships is bounded for each socket (net.core.optmem_max)."""

MEMBERSHIPS_MAX = 10000
"""net.ipv4.igmp_max_memberships of the hosts: its default is 20 for each socket."""


class Network(ABC):
    """Hosts that are connected in one way; a context manager."""

    title: ClassVar[str]
    encrypted: ClassVar[bool] = False
    programs: ClassVar[tuple[str, ...]] = ()
    """What must be installed beside what `make setup` installs; `packages.py` knows where it is found."""

    interface: str
    mtu: int

    def __init__(self, hosts: int, *, offloads: bool = True) -> None:
        self.lab = Lab(hosts, offloads=offloads)
        self._members: list[socket.socket] = []

    @property
    def name(self) -> str:
        """The word on the command line and in the tables."""
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
        """The host's address on the interface."""
        return f"10.78.0.{host.index}"

    def __enter__(self) -> Self:
        for program in self.programs:
            require(program)
        self.lab.__enter__()
        try:
            self.lab.bridge.run([require("nft"), "flush", "ruleset"])  # nobody pays for the lab's byte counts
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
        """Hosts 2 … n are members of the groups until `leave`, whatever programs join and leave meanwhile."""
        wanted = list(groups)
        for host in self.receivers:
            with host.enter():
                index = socket.if_nametoindex(self.interface)
                for at in range(0, len(wanted), MEMBERSHIPS_PER_SOCKET):
                    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    self._members.append(holder)
                    for group in wanted[at : at + MEMBERSHIPS_PER_SOCKET]:
                        request = struct.pack("4s4si", socket.inet_aton(group), bytes(4), index)
                        holder.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        self.wait_members(wanted)

    def leave(self) -> None:
        """Hosts 2 … n are members of nothing any more."""
        for holder in self._members:
            holder.close()
        self._members.clear()

    def wait_members(self, groups: list[str]) -> None:  # noqa: B027  (most flood)
        """Until host 1 sends the groups to all others; nothing to do where everything is flooded."""

    def set_address(self, host: Host) -> None:
        """For tap-like interfaces: an address, and multicast goes there."""
        ip = require("ip")
        host.run([ip, "address", "add", f"{self.address(host)}/24", "dev", self.interface])
        host.run([ip, "link", "set", self.interface, "mtu", str(self.mtu), "up"])
        host.run([ip, "route", "add", "224.0.0.0/4", "dev", self.interface])


def write_private(path: Path, text: str) -> Path:
    """A file of keys or one that names them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    path.touch(mode=0o600)
    path.write_text(text)
    return path
