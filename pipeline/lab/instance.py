"""Instances of this project's daemon in the hosts of a laboratory: launch, query, stop.

Host i has the overlay addresses 10.77.0.i and fd77::i unless the caller gives others.  Requests go through `client.py`
in this process: the demo queries each node twice a second, and a command for each query would cost more than the nodes.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from pipeline import limits
from pipeline.client import Client, running_pid
from pipeline.errors import PipelineError
from pipeline.keys import file as key_file
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import LabError, wait_until

INTERFACE = "mcast0"
READY_TIMEOUT_S = 10.0
"""A node is ready within a tenth of this; on a busy host it may take longer."""


def program() -> str:
    """Return the path of the `pipeline` command of this interpreter's environment."""
    path = Path(sys.executable).with_name("pipeline")
    if not path.exists():
        raise LabError(f"there is no {path}: install this project into the environment of {sys.executable}")
    return str(path)


def network_key(lab: Lab) -> Path:
    """Return the file of the lab's network key; create it as `pipeline keygen` does if it does not exist."""
    path = lab.dir / "network.key"
    if not path.exists():
        key_file.write_network_key(path)
    return path


def launch_command(
    host: Host,
    *,
    key: Path | None,
    peers: Sequence[Host] = (),
    workers: int | str = 4,
    addresses: Sequence[str] | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the command line that launches an instance on the host; without a key it has `--insecure`."""
    if addresses is None:
        addresses = (f"10.77.0.{host.index}/16", f"fd77::{host.index:x}/64")
    return [
        *(program(), "launch", "--name", host.name, "--workers", str(workers), "--tun", INTERFACE),
        *(["--key", str(key)] if key else ["--insecure"]),
        *("--listen", f"{host.underlay}:{limits.PORT}"),
        *[word for peer in peers if peer is not host for word in ("--peer", f"{peer.underlay}:{limits.PORT}")],
        *[word for address in addresses for word in ("--address", address)],
        *extra,
    ]


class Instance:
    """A launched daemon: requests to its control process, its processes, its end."""

    def __init__(self, host: Host, command: Sequence[str]) -> None:
        self.host = host
        self.name = host.name
        self.ip4 = f"10.77.0.{host.index}"
        self.ip6 = f"fd77::{host.index:x}"
        self.process = host.spawn(command, label="launch")
        self._client: Client | None = None
        host.close_callbacks.append(self.disconnect)

    def __repr__(self) -> str:
        return self.name

    # -- requests

    def request(self, verb: str, noun: str = "", *, timeout_s: float = 5.0) -> Any:
        """Return the value of `pipeline VERB NOUN --json`.  PipelineError if control does not reply."""
        if self._client is None:
            self._client = Client(self.name)
        return self._client.request(verb, noun, timeout_s=timeout_s)

    def show(self, noun: str) -> Any:
        """Return the value of `pipeline show NOUN --json`."""
        return self.request("show", noun)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until all its processes are ready.  LabError with the end of its log if it ends, or after the time."""
        wait_until(self._is_ready, timeout_s, f"{self.name} is ready: {self.process.log[-500:]}", every_s=0.005)

    def _is_ready(self) -> bool:
        if not self.process.alive():
            raise LabError(f"{self.name} ended with {self.process.popen.returncode}: {self.process.log[-500:]}")
        if running_pid(self.name) is None:
            return False
        with contextlib.suppress(PipelineError):
            return bool(self.request("status", timeout_s=1.0)["ready"])
        return False

    def is_linked_to(self, others: Sequence[Instance]) -> bool:
        """Return whether its links to all the others are up."""
        up = {link["peer"] for link in self.show("links") if link["state"] == "up"}
        return up >= {other.name for other in others if other is not self}

    def has_members(self, group: str, members: Sequence[Instance]) -> bool:
        """Return whether it knows exactly these remote members of the group."""
        found: list[str] = next((row["members"] for row in self.show("groups") if row["group"] == group), [])
        return set(found) == {member.name for member in members if member is not self}

    def wait_members(self, group: str, members: Sequence[Instance], timeout_s: float = 10.0) -> None:
        """Wait until it knows exactly these remote members of the group."""
        wait_until(lambda: self.has_members(group, members), timeout_s, f"{self.name} has {members} in {group}")

    # -- processes

    def processes(self) -> list[psutil.Process]:
        """Return the supervisor and its descendants."""
        try:
            supervisor = psutil.Process(self.process.pid)
            return [supervisor, *supervisor.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def pids(self) -> list[int]:
        """Return the pids of the supervisor and its descendants."""
        return [process.pid for process in self.processes()]

    def cpu_s(self) -> float:
        """Return the CPU time of all its processes so far in seconds, exact to the nanosecond (from schedstat)."""
        total_ns = 0
        for pid in self.pids():
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    total_ns += int(path.read_text().split()[0])
        return total_ns / 1e9

    def pss_bytes(self) -> int:
        """Return the memory of all its processes in bytes; shared pages count once."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
        return total

    # -- end

    def stop(self, timeout_s: float = 10.0) -> int:
        """Send SIGTERM and wait; return the exit code."""
        self.disconnect()
        return self.process.stop(timeout_s)

    def disconnect(self) -> None:
        """Close the connection to its control process; the next request opens a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None


def launch(host: Host, **options: Any) -> Instance:
    """Launch an instance on a host; the options are those of `launch_command`."""
    return Instance(host, launch_command(host, **options))


def launch_all(lab: Lab, *, key: Path | None, workers: int = 4, extra: Sequence[str] = ()) -> list[Instance]:
    """Launch an instance on every host, each a peer of all others; wait until all are ready and linked."""
    instances = [launch(host, key=key, peers=lab.hosts, workers=workers, extra=extra) for host in lab.hosts]
    for instance in instances:
        instance.wait_ready()
    wait_linked(instances)
    return instances


def wait_linked(instances: Sequence[Instance], timeout_s: float = 10.0) -> None:
    """Wait until every instance has links to all others."""
    for instance in instances:
        wait_until(partial(instance.is_linked_to, instances), timeout_s, f"{instance.name} is linked to all")
