"""Ways to connect hosts that carry multicast, behind one seam: this project, the kernel's own, and VPNs (vpns.py).

    with make("vxlan", hosts=4) as network:      four namespaced hosts, connected, nothing sent yet
        network.interface                        where a program sends and joins, the same word on every host
        network.join("239.1.1.1")                hosts 2 … n are members from now on, and host 1 knows

Host 1 is always the one that sends and all others are those that receive.  Each network stands in a laboratory of
its own (pipeline/cli/lab.py) whose underlay is the same for all: veth pairs and one bridge without filter rules.
What is measured, and how, is not known here.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, Self

from pipeline.cli.instance import Instance, launch_all, network_key
from pipeline.cli.lab import UNDERLAY_PORT, Host, Lab
from pipeline.cli.programs import require, wait_until

MEMBERSHIPS_PER_SOCKET = 20
"""The kernel's default bound (net.ipv4.igmp_max_memberships), so that nothing has to be set."""


class Network(ABC):
    """Hosts that are connected in one way; a context manager."""

    title: ClassVar[str]
    encrypted: ClassVar[bool] = False
    programs: ClassVar[tuple[str, ...]] = ()
    """What must be installed; `install.py` knows the packages."""

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
            self.lab.bridge.run([require("nft"), "flush", "ruleset"])   # nobody pays for the lab's byte counts
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

    def wait_members(self, groups: list[str]) -> None:
        """Until host 1 sends the groups to all others; nothing to do where everything is flooded."""

    def set_address(self, host: Host) -> None:
        """For tap-like interfaces: an address, and multicast goes there."""
        ip = require("ip")
        host.run([ip, "address", "add", f"{self.address(host)}/24", "dev", self.interface])
        host.run([ip, "link", "set", self.interface, "mtu", str(self.mtu), "up"])
        host.run([ip, "route", "add", "224.0.0.0/4", "dev", self.interface])


# ---------------------------------------------------------------- this project


class Pipeline(Network):
    """This project's daemon on every host, engine `mesh`."""

    title = "ours"
    interface = "mcast0"
    mtu = 1436

    def __init__(self, hosts: int, *, workers: int = 4, sealed: bool = True, offloads: bool = True) -> None:
        super().__init__(hosts, offloads=offloads)
        self.workers = workers
        self.sealed = sealed
        self.instances: list[Instance] = []

    @property
    def name(self) -> str:
        return pipeline_name(self.workers, sealed=self.sealed)

    def address(self, host: Host) -> str:
        return f"10.77.0.{host.index}"

    def start(self) -> None:
        self.instances = launch_all(self.lab, key=network_key(self.lab) if self.sealed else None, workers=self.workers)

    def wait_members(self, groups: list[str]) -> None:
        source, others = self.instances[0], {instance.name for instance in self.instances[1:]}

        def known() -> bool:
            members = {row["group"]: set(row["members"]) for row in source.show("groups")}
            return all(members.get(group) == others for group in groups)

        wait_until(known, 10.0, f"{source} knows the members of {len(groups)} groups")

    def close(self) -> None:
        for instance in self.instances:
            instance.forget()
        super().close()


def pipeline_name(workers: int, *, sealed: bool) -> str:
    return f"ours-{workers}" + ("" if sealed else "-insecure")


# ---------------------------------------------------------------- the kernel's own


class Native(Network):
    """No overlay at all: the underlay's bridge floods multicast."""

    title = "native"
    interface = UNDERLAY_PORT
    mtu = 1500

    def address(self, host: Host) -> str:
        return host.underlay

    def start(self) -> None:
        for host in self.hosts:
            host.run([require("ip"), "route", "add", "224.0.0.0/4", "dev", self.interface])


class Vxlan(Network):
    """Kernel VXLAN, head-end replication: every host has all others in its flood list.  No encryption."""

    title = "vxlan"
    interface = "vx0"
    mtu = 1450
    vni: ClassVar[str] = "77"
    port: ClassVar[str] = "4789"

    def start(self) -> None:
        for host in self.hosts:
            link = ["link", "add", self.interface, "type", "vxlan", "id", self.vni, "dstport", self.port]
            host.run([require("ip"), *link, "local", host.underlay, "dev", UNDERLAY_PORT, "nolearning"])
            for other in self.hosts:
                if other is not host:
                    entry = ["fdb", "append", "00:00:00:00:00:00", "dev", self.interface, "dst", other.underlay]
                    host.run([require("bridge"), *entry])
            self.set_address(host)


# ---------------------------------------------------------------- the seam


Factory = Callable[..., Network]


def kinds() -> dict[str, Factory]:
    """Every kind of network by name, each to be called with hosts=N and offloads=True or False."""
    from perf import vpns  # noqa: PLC0415  (they are networks too)

    found: dict[str, Factory] = {}
    for workers in (1, 2, 4, 8):
        for sealed in (True, False):
            found[pipeline_name(workers, sealed=sealed)] = _pipeline(workers, sealed=sealed)
    for kind in (Native, Vxlan, *vpns.ALL):
        found[kind.title] = kind
    return found


def _pipeline(workers: int, *, sealed: bool) -> Factory:
    return lambda hosts, *, offloads=True: Pipeline(hosts, workers=workers, sealed=sealed, offloads=offloads)


def make(name: str, *, hosts: int, offloads: bool = True) -> Network:
    """A network that is not started yet; KeyError for a name that is not one of `kinds()`."""
    return kinds()[name](hosts=hosts, offloads=offloads)


def write_private(path: Path, text: str) -> Path:
    """A file of keys or one that names them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    path.touch(mode=0o600)
    path.write_text(text)
    return path
