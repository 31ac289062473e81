"""Laboratory: hosts as network namespaces, connected by a bridge that carries no IP multicast.

    h1 u0 10.99.0.1 ──┐
    h2 u0 10.99.0.2 ──┼── br0 in a namespace of its own: drops multicast, counts bytes per pair of hosts,
    h3 u0 10.99.0.3 ──┘       and on request loses packets, cuts hosts off and limits rates

The demo, the tests in namespaces and the measurements of perf/ use it.  It knows no overlay: the caller runs the
program that carries multicast between the hosts (`instance.py` runs this project's daemon).

Lifecycle: `with Lab(3) as lab` builds it in some tens of milliseconds.  The end of the block, an exception, a SIGINT or
the end of the interpreter removes it with every process in it.  The next lab that is built removes the labs
of killed builders.  Names contain the pid of the builder, so several labs can exist at once.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pipeline.errors import PermissionDeniedError
from pipeline.lab.cleanup import NETNS_DIR, processes_in, remove_lab, remove_stale_labs
from pipeline.lab.programs import (
    COMMAND_TIMEOUT_S,
    STOP_TIMEOUT_S,
    LabError,
    Process,
    require,
    run_ip_batch,
    run_program,
)

HOSTS_MAX = 200
"""Host i has the address 10.99.0.i, and the pair counters grow with the square."""

UNDERLAY_PORT = "u0"

_CLONE_NEWNET = 0x40000000
_OFFLOADS = ("tso", "gso", "gro", "tx-udp-segmentation")
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


# ---------------------------------------------------------------- namespaces and hosts


class Namespace:
    """A named network namespace, with methods that run programs and change settings in it."""

    def __init__(self, netns: str, log_dir: Path) -> None:
        self.netns = netns
        self.log_dir = log_dir
        self.processes: list[Process] = []
        self.close_callbacks: list[Callable[[], None]] = []
        """Called before the lab's processes are stopped, to close connections to them."""

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Move this thread into the namespace; sockets and processes that it creates in the block stay there."""
        home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(NETNS_DIR / self.netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def run(
        self,
        args: Sequence[str],
        *,
        check: bool = True,
        timeout_s: float = COMMAND_TIMEOUT_S,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end.  LabError with its first line of output if it fails and `check` is set."""
        with self.enter():
            return run_program(args, check=check, timeout_s=timeout_s, stdin=stdin, env=env)

    def spawn(
        self, args: Sequence[str], *, label: str, pipe: bool = False, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a program; it is stopped at the latest when the lab is removed."""
        with self.enter():
            process = Process(args, label=label, log_dir=self.log_dir, pipe=pipe, env=env)
        self.processes.append(process)
        return process

    def sysctl(self, name: str, value: int | str) -> None:
        """Set a kernel parameter of this namespace, such as `net.ipv4.igmp_max_memberships` to 4000."""
        with self.enter():
            Path("/proc/sys", *name.split(".")).write_text(f"{value}\n")

    def interface(self, name: str) -> dict[str, Any] | None:
        """Return `ip -s -d -j link show` of one interface, or None if it does not exist."""
        done = self.run([require("ip"), "-s", "-d", "-j", "link", "show", "dev", name], check=False)
        if done.returncode != 0 or not done.stdout.strip():
            return None
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found[0]

    def routes(self) -> list[str]:
        """Return all routes of all tables, IPv4 and IPv6, as `ip route` prints them."""
        lines: list[str] = []
        for family in ("-4", "-6"):
            done = self.run([require("ip"), family, "route", "show", "table", "all"], check=False)
            lines += [line.strip() for line in done.stdout.splitlines() if line.strip()]
        return lines

    def pids(self) -> list[int]:
        """Return the pids of all processes in the namespace."""
        return processes_in([self.netns])


class Host(Namespace):
    """One host of a lab: a namespace with a port to the underlay."""

    def __init__(self, index: int, *, tag: str, log_dir: Path) -> None:
        super().__init__(f"{tag}-h{index}", log_dir)
        self.index = index
        self.name = self.netns
        self.underlay = f"10.99.0.{index}"
        self.underlay6 = f"fd99::{index:x}"
        self.bridge_port = f"p{index}"

    def __repr__(self) -> str:
        return self.name


# ---------------------------------------------------------------- the laboratory


class Lab:
    """Hosts and the bridge between them; a context manager.

    `offloads=False` turns segmentation and receive offloads of the underlay off, so that each datagram crosses the
    bridge alone.  Byte counts and losses are then those of a real network; with offloads a super-packet counts as one.
    """

    def __init__(self, hosts: int, *, offloads: bool = True, mtu: int = 1500) -> None:
        if not 1 <= hosts <= HOSTS_MAX:
            raise LabError(f"a lab has 1 to {HOSTS_MAX} hosts, not {hosts}")
        self.tag = f"lab{os.getpid()}x{next(_numbers)}"
        self.offloads = offloads
        self.mtu = mtu
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.tag}-"))
        self.hosts = [Host(i, tag=self.tag, log_dir=self.dir) for i in range(1, hosts + 1)]
        self.bridge = Namespace(f"{self.tag}-br", self.dir)
        self._losses: dict[tuple[str | None, str], float] = {}
        self._islands: list[tuple[str, ...]] = []
        self._limited: set[str] = set()
        self._open = False

    def __enter__(self) -> Self:
        atexit.register(self.close)
        self._open = True
        try:
            remove_stale_labs()
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- building

    def _build(self) -> None:
        nft = require("nft")
        if not self.offloads:
            require("ethtool")
        spaces: list[Namespace] = [self.bridge, *self.hosts]
        try:
            run_ip_batch(None, [f"netns add {space.netns}" for space in spaces])
        except LabError as error:
            if "not permitted" in str(error) or "denied" in str(error):
                raise PermissionDeniedError(f"a laboratory of network namespaces needs root: {error}") from None
            raise
        ports = ["link add br0 type bridge mcast_snooping 0 forward_delay 0 stp_state 0", "link set br0 up"]
        for host in self.hosts:
            ports.append(
                f"link add {host.bridge_port} mtu {self.mtu} type veth"
                f" peer name {UNDERLAY_PORT} mtu {self.mtu} netns {host.netns}"
            )
            ports.append(f"link set {host.bridge_port} master br0 up")
        run_ip_batch(self.bridge.netns, ports)
        for host in self.hosts:
            run_ip_batch(host.netns, self._host_commands(host))
        if not self.offloads:
            self.disable_offloads()
        self.bridge.run([nft, "-f", "-"], stdin=self._ruleset())

    def _host_commands(self, host: Host) -> list[str]:
        return [
            "link set lo up",
            f"addr add {host.underlay}/24 dev {UNDERLAY_PORT}",
            f"addr add {host.underlay6}/64 dev {UNDERLAY_PORT} nodad",
            f"link set {UNDERLAY_PORT} up",
        ]

    def disable_offloads(self) -> None:
        """As `offloads=False`, from now on."""
        switches = [word for feature in _OFFLOADS for word in (feature, "off")]
        for host in self.hosts:
            host.run([require("ethtool"), "-K", UNDERLAY_PORT, *switches])
            self.bridge.run([require("ethtool"), "-K", host.bridge_port, *switches])

    def _ruleset(self) -> str:
        """Return the rules of the bridge: one look-up per packet, whatever the number of hosts.

        Neighbour discovery is multicast too, and IPv6 has no underlay without it.
        """
        pairs = [(a, b) for a in self.hosts for b in self.hosts if a is not b]
        counters = "\n".join(f"counter pair_{a.index}_{b.index} {{}}" for a, b in pairs)
        elements = ", ".join(f'"{a.bridge_port}" . "{b.bridge_port}" : "pair_{a.index}_{b.index}"' for a, b in pairs)
        count = "counter name iifname . oifname map @pairs" if pairs else ""
        pair_map = f"map pairs {{ type ifname . ifname : counter; elements = {{ {elements} }}; }}" if pairs else ""
        return f"""
            table bridge lab {{
              counter multicast {{}}
              {counters}
              {pair_map}
              chain impair {{}}
              chain forward {{
                type filter hook forward priority 0
                icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
                ip daddr 224.0.0.0/4 counter name multicast drop
                ip6 daddr ff00::/8 counter name multicast drop
                jump impair
                {count}
              }}
            }}"""

    # -- removing

    def close(self) -> None:
        """Stop every process in the lab and remove it, once.  SIGINT and SIGTERM wait until it is done."""
        if not self._open:
            return
        self._open = False
        atexit.unregister(self.close)
        with _signals_held():
            for callback in [callback for host in self.hosts for callback in host.close_callbacks]:
                callback()
            processes = [p for space in [*self.hosts, self.bridge] for p in space.processes]
            for process in processes:
                process.signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.popen.wait(max(0.0, deadline - time.monotonic()))
                process.kill()
            remove_lab(self.tag, [space.netns for space in [*self.hosts, self.bridge]])

    # -- measuring the underlay

    def pair_bytes(self) -> dict[tuple[int, int], int]:
        """Return the bytes of IP that the bridge has forwarded from host i to host j so far, by (i, j)."""
        return {
            (int(words[1]), int(words[2])): count["bytes"]
            for name, count in self._counters().items()
            if len(words := name.split("_")) == 3
        }

    def bytes_between(self, source: Host, target: Host) -> int:
        """Return the bytes of IP that the bridge has forwarded from one host to another so far."""
        return self.pair_bytes()[source.index, target.index]

    def multicast_packets(self) -> int:
        """Return the number of native multicast packets that the bridge has dropped so far."""
        packets: int = self._counters()["multicast"]["packets"]
        return packets

    def _counters(self) -> dict[str, dict[str, int]]:
        listed = self.bridge.run([require("nft"), "-j", "list", "counters", "table", "bridge", "lab"]).stdout
        return {
            item["counter"]["name"]: item["counter"] for item in json.loads(listed)["nftables"] if "counter" in item
        }

    # -- impairing the underlay

    def loss(self, target: Host, percent: float, *, source: Host | None = None) -> None:
        """Drop this share of the IP packets to `target` (if given, only those from `source`); 0 drops none."""
        key = (source.bridge_port if source else None, target.bridge_port)
        self._losses[key] = percent
        self._load_impairments()

    def partition(self, island: Collection[Host]) -> None:
        """Drop every frame between these hosts and all others, ARP included."""
        self._islands.append(tuple(host.bridge_port for host in island))
        self._load_impairments()

    def rate(self, target: Host, mbit: float) -> None:
        """Limit the rate to `target`, in Mbit/s, with a queue of 50 ms; 0 removes the limit."""
        tc = require("tc")
        if target.bridge_port in self._limited:
            self.bridge.run([tc, "qdisc", "del", "dev", target.bridge_port, "root"])
            self._limited.discard(target.bridge_port)
        if mbit:
            shape = ["tbf", "rate", f"{mbit}mbit", "burst", "64kb", "latency", "50ms"]
            self.bridge.run([tc, "qdisc", "add", "dev", target.bridge_port, "root", *shape])
            self._limited.add(target.bridge_port)

    def plug(self, host: Host, *, connected: bool) -> None:
        """Connect or disconnect the cable of a host: it loses the carrier and keeps its addresses."""
        run_ip_batch(self.bridge.netns, [f"link set {host.bridge_port} {'up' if connected else 'down'}"])

    def heal(self) -> None:
        """Remove every loss, partition and limit."""
        self._losses.clear()
        self._islands.clear()
        self._load_impairments()
        for host in self.hosts:
            if host.bridge_port in self._limited:
                self.rate(host, 0)

    def _load_impairments(self) -> None:
        rules = ["flush chain bridge lab impair"]
        for ports in self._islands:
            names = "{ " + ", ".join(f'"{port}"' for port in ports) + " }"
            rules.append(f"add rule bridge lab impair iifname {names} oifname != {names} drop")
            rules.append(f"add rule bridge lab impair iifname != {names} oifname {names} drop")
        for (source, target), percent in self._losses.items():
            if percent:
                match = f'oifname "{target}"' + (f' iifname "{source}"' if source else "")
                share = f"numgen random mod 10000 < {round(percent * 100)}" if percent < 100 else ""
                rules.append(f"add rule bridge lab impair ether type {{ ip, ip6 }} {match} {share} drop")
        self.bridge.run([require("nft"), "-f", "-"], stdin="\n".join(rules) + "\n")


# ---------------------------------------------------------------- system calls and commands


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise LabError(f"cannot enter a network namespace: {os.strerror(number)}")
