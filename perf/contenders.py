"""Networks that are compared: this project, those of the kernel, and the VPNs of vpns.py.

Each is a `Network` (network.py); `kinds()` lists all of them by name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import ClassVar

from perf import vpns
from perf.network import Network
from pipeline.lab.instance import Instance, launch_all, network_key
from pipeline.lab.netns import UNDERLAY_PORT, Host
from pipeline.lab.programs import require, wait_until

# ---------------------------------------------------------------- this project


class Pipeline(Network):
    """Daemon of this project on every host, engine `mesh`; with `busy` its workers never sleep and delay nothing."""

    title = "ours"
    interface = "mcast0"
    mtu = 1436

    def __init__(
        self, hosts: int, *, workers: int = 4, sealed: bool = True, busy: bool = False, offloads: bool = True
    ) -> None:
        super().__init__(hosts, offloads=offloads)
        self.workers = workers
        self.sealed = sealed
        self.busy = busy
        self.instances: list[Instance] = []

    @property
    def name(self) -> str:
        return BUSY if self.busy else pipeline_name(self.workers, sealed=self.sealed)

    def address(self, host: Host) -> str:
        return f"10.77.0.{host.index}"

    def start(self) -> None:
        extra = []
        if self.busy:
            config = self.lab.dir / "busy.toml"
            config.write_text('[workers]\nidle = "busy"\nmoderation_us = 0\n')
            extra = ["--config", str(config)]
        key = network_key(self.lab) if self.sealed else None
        self.instances = launch_all(self.lab, key=key, workers=self.workers, extra=extra)

    def wait_members(self, groups: list[str]) -> None:
        source, others = self.instances[0], {instance.name for instance in self.instances[1:]}

        def has_members() -> bool:
            members = {row["group"]: set(row["members"]) for row in source.show("groups")}
            return all(members.get(group) == others for group in groups)

        wait_until(has_members, 10.0, f"{source} knows the members of {len(groups)} groups")

    def close(self) -> None:
        for instance in self.instances:
            instance.disconnect()
        super().close()


BUSY = "ours-4-busy"
"""Each of its workers needs a core, so it is measured only when it is named."""


def pipeline_name(workers: int, *, sealed: bool) -> str:
    return f"ours-{workers}" + ("" if sealed else "-insecure")


# ---------------------------------------------------------------- networks of the kernel


class Native(Network):
    """Multicast without an overlay: the bridge of the underlay floods it."""

    title = "native"
    interface = UNDERLAY_PORT
    mtu = 1500

    def address(self, host: Host) -> str:
        return host.underlay

    def start(self) -> None:
        for host in self.hosts:
            host.run([require("ip"), "route", "add", "224.0.0.0/4", "dev", self.interface])


class Vxlan(Network):
    """Kernel VXLAN with head-end replication: every host has all others in its flood list; no encryption."""

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


# ---------------------------------------------------------------- names


Factory = Callable[..., Network]


def kinds() -> dict[str, Factory]:
    """Return a factory for every kind of network by name; call it with `hosts` and `offloads`."""
    found: dict[str, Factory] = {}
    for workers in (1, 2, 4, 8, 16):
        for sealed in (True, False):
            found[pipeline_name(workers, sealed=sealed)] = _pipeline(workers, sealed=sealed)
    found[BUSY] = _pipeline(4, busy=True)
    classes: tuple[type[Network], ...] = (Native, Vxlan, *vpns.ALL)
    for kind in classes:
        found[kind.title] = kind
    return found


def add_kinds(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the option --kinds, a list of names such as "ours-4,vxlan"."""

    def names_in(text: str) -> list[str]:
        if unknown := sorted(set(text.split(",")) - set(kinds())):
            raise argparse.ArgumentTypeError(f"no such kind: {', '.join(unknown)}")
        return text.split(",")

    parser.add_argument("--kinds", type=names_in, default=default, help=f"some of: {','.join(kinds())}")


def _pipeline(workers: int, *, sealed: bool = True, busy: bool = False) -> Factory:
    return lambda hosts, *, offloads=True: Pipeline(hosts, workers=workers, sealed=sealed, busy=busy, offloads=offloads)


VPN_NAMES = tuple(kind.title for kind in vpns.ALL)


def programs(name: str) -> tuple[str, ...]:
    """Return the programs that must be installed for this kind."""
    return next((kind.programs for kind in vpns.ALL if kind.title == name), ())


def make(name: str, *, hosts: int, offloads: bool = True) -> Network:
    """Return a network that is not started yet; KeyError if `kinds()` has no such name."""
    return kinds()[name](hosts=hosts, offloads=offloads)
