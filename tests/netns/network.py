"""Network of namespaced hosts with a running instance on each, and questions that tests put to an instance.

Every test takes new groups (`fresh_group`), so tests that share a network cannot disturb each other.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psutil

from pipeline.errors import PipelineError
from pipeline.io import rundir
from pipeline.lab.instance import Instance, launch, launch_all, network_key, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import wait_until

INTERFACE = "mcast0"
SHM = Path("/dev/shm")
_groups = itertools.count(1)


def fresh_group() -> str:
    """Return an IPv4 group that no other test uses."""
    number = next(_groups)
    return f"239.81.{number // 250}.{number % 250 + 1}"


def fresh_group6(prefix: str = "ff15::81") -> str:
    """Return an IPv6 group that no other test uses."""
    return f"{prefix}:{next(_groups):x}"


class Network:
    """Context manager: hosts with instances that are ready and linked."""

    def __init__(
        self, hosts: int, *, workers: int = 4, sealed: bool = True, extra: Sequence[str] = (), **lab: Any
    ) -> None:
        self.lab = Lab(hosts, **lab)
        self.workers = workers
        self.sealed = sealed
        self.extra = extra
        self.instances: list[Instance] = []

    def __enter__(self) -> Self:
        self.lab.__enter__()
        try:
            for host in self.lab.hosts:
                host.sysctl("net.ipv4.igmp_max_memberships", 10000)
            self.instances = launch_all(self.lab, key=self.key, workers=self.workers, extra=self.extra)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.lab.close()

    @property
    def key(self) -> Path | None:
        return network_key(self.lab) if self.sealed else None

    @property
    def hosts(self) -> list[Host]:
        return self.lab.hosts

    def relaunch(self, index: int, **options: Any) -> Instance:
        """Launch a new instance in place of one that has ended; wait until it is ready and linked."""
        instance = launch(self.hosts[index], key=self.key, peers=self.hosts, workers=self.workers, **options)
        self.instances[index] = instance
        instance.wait_ready()
        wait_linked(self.instances)
        return instance

    def is_healthy(self) -> bool:
        """Return whether every instance runs and is linked to all others."""
        with contextlib.suppress(PipelineError):
            return all(each.process.alive() and each.is_linked_to(self.instances) for each in self.instances)
        return False

    def tidy(self) -> None:
        """End the programs that a test has started, and remove loss and partitions from the underlay."""
        daemons = {instance.process for instance in self.instances}
        for host in self.hosts:
            for process in host.processes:
                if process not in daemons:
                    process.kill()
            host.processes = [process for process in host.processes if process in daemons]
        for process in self.lab.bridge.processes:
            process.kill()
        self.lab.heal()

    def logs(self, lines: int = 8) -> str:
        """Return the last lines of every instance's log."""
        parts = []
        for instance in self.instances:
            state = "runs" if instance.process.alive() else f"ended with {instance.process.popen.returncode}"
            parts.append(f"--- {instance.name} ({state})")
            parts += instance.process.log.splitlines()[-lines:]
        return "\n".join(parts)


# ---------------------------------------------------------------- state of an instance


def wait_route(instance: Instance, group: str, members: Sequence[Instance], timeout_s: float = 5.0) -> None:
    """Wait until the instance forwards packets of its own programs for the group to exactly these members."""
    expected = sorted(member.name for member in members)

    def has_route() -> bool:
        return any(
            row["side"] == "host" and row["group"] == group and row["next_hops"] == expected
            for row in instance.show("routes")
        )

    wait_until(
        has_route, timeout_s, f"{instance} sends {group} to {expected}: {instance.show('routes')}", every_s=0.005
    )


def worker_pid(instance: Instance, role: str, lane: int = 0) -> int:
    """Return the pid of one process of an instance; role and lane as in `show workers`."""
    found: int = next(row["pid"] for row in instance.show("workers") if (row["role"], row["lane"]) == (role, lane))
    return found


def drops(instance: Instance) -> dict[str, int]:
    """Return the drop counters that are not 0."""
    return {reason: count for reason, count in instance.show("counters")["drops"].items() if count}


def leftovers(host: Host, pids: Sequence[int] = ()) -> list[str]:
    """List what a stopped instance has left on the host: interface, routes, processes, shared memory, files."""
    found = []
    if host.interface(INTERFACE):
        found.append(f"interface {INTERFACE}")
    found += [f"route {route}" for route in host.routes() if INTERFACE in route]
    found += [f"process {pid}" for pid in pids if is_running(pid)]
    found += [f"process {pid} in the namespace" for pid in host.pids() if is_running(pid)]
    found += [str(path) for path in SHM.glob(f"*{host.name}*")]
    if (rundir.ROOT / host.name).exists():
        found.append(str(rundir.ROOT / host.name))
    return found


def is_running(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_one_line(done: Any, code: int, *words: str) -> None:
    """Check the form of a refusal: this exit code, one line on stderr with these words, nothing on stdout."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == code, f"{done.returncode}: {done.stderr}"
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in lines[0], lines[0]
