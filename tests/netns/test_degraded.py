"""An instance that lacks memory, its checkpoint or its interface is ready but degraded, and recovers by itself."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pipeline.shm._native import ffi, lib

from pipeline.lab.instance import Instance, launch, launch_command, network_key, program, wait_linked
from pipeline.lab.netns import Lab
from pipeline.lab.programs import require, run_program, wait_until
from pipeline.shm.region import Geometry
from tests.netns.network import Network, fresh_group, wait_route, worker_pid
from tests.netns.sockets import Sockets
from tests.netns.traffic import Receiver, Sender

SMALL_SHM = 'mount -t tmpfs -o size="$1" tmpfs /dev/shm && shift && exec "$@"'


def wait_state(instance: Instance, state: str, reason: str = "") -> dict[str, Any]:
    """Wait until `status` has that state, and that reason if one is given; return it."""

    def has_state() -> bool:
        status = instance.request("status")
        return bool(status["state"] == state and (not reason or reason in status["degraded"]))

    wait_until(has_state, 15.0, f"{instance} is {state} {reason}: {instance.request('status')}")
    found: dict[str, Any] = instance.request("status")
    return found


def events(instance: Instance) -> list[tuple[str, str]]:
    """Return the lines of the log about faults, as (event, reason)."""
    lines = [json.loads(line) for line in instance.process.log.splitlines() if line.startswith("{")]
    return [(line["event"], line["reason"]) for line in lines if line["event"].endswith("degraded")]


def test_full_shared_memory_degrades_the_node_until_space_is_freed(make_lab: Callable[..., Lab]) -> None:
    """Goal: a node that cannot write forwarding entries shows it, and writes them when there is space again.
    Method: a node in a mount namespace whose /dev/shm has room for the region but not for entries.  It is ready and
    degraded: exit code 0 with the reason.  /dev/shm is mounted larger: a stream of the node is complete.  The log has
    one line for the beginning and one for the end."""
    lab = make_lab(2)
    geometry = Geometry.of(lanes=1, mtu=1436)
    size = lib.mp_region_lazy_at(ffi.new("struct mp_geometry *", asdict(geometry))) + 65536
    command = launch_command(lab.hosts[0], key=network_key(lab), peers=lab.hosts)
    narrow = [require("unshare"), "--mount", require("sh"), "-c", SMALL_SHM, "sh", str(size), *command]
    source = Instance(lab.hosts[0], narrow)
    member = launch(lab.hosts[1], key=network_key(lab), peers=lab.hosts)
    for instance in (source, member):
        instance.wait_ready()
    wait_linked([source, member])
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    status = wait_state(source, "degraded", "shared_memory")
    assert status["ready"] is True
    assert "not written: /dev/shm is full" in status["degraded"]["shared_memory"]
    shown = source.host.run([program(), "status", "--name", source.name])
    assert "degraded (" in shown.stdout
    time.sleep(2.5)
    larger = ["mount", "-o", "remount,size=64m", "/dev/shm"]
    run_program([require("nsenter"), "--mount", f"--target={worker_pid(source, 'control')}", *larger])
    assert wait_state(source, "ready")["degraded"] == {}
    sent = Sender(source.host, group, pps=500, size=1200, count=500).sent()
    receiver.account().assert_perfect(sent)
    wait_until(lambda: len(events(source)) == 2, 3.0, "both ends are logged")
    assert events(source) == [("degraded", "shared_memory"), ("no longer degraded", "shared_memory")]


def test_unsaved_checkpoint_degrades_the_node(make_network: Callable[..., Network], sockets: Sockets) -> None:
    """Goal: a node whose control cannot save its state shows it until it is saved.
    Method: control may write to no file, while a program joins a group; then it may again."""
    instance = make_network(1).instances[0]
    control = worker_pid(instance, "control")
    unlimited = resource.prlimit(control, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    sockets.member(instance.host, fresh_group(), 5001)
    status = wait_state(instance, "degraded", "checkpoint")
    assert status["ready"] is True
    resource.prlimit(control, resource.RLIMIT_FSIZE, unlimited)
    wait_state(instance, "ready")
    assert worker_pid(instance, "control") == control


def test_interface_that_is_down_degrades_the_node(make_network: Callable[..., Network]) -> None:
    """Goal: a node whose interface passes no packets shows it until the interface is up.
    Method: `ip link set mcast0 down`, then `up`."""
    instance = make_network(1).instances[0]
    instance.host.run([require("ip"), "link", "set", "mcast0", "down"])
    wait_state(instance, "degraded", "interface")
    time.sleep(1.5)
    instance.host.run([require("ip"), "link", "set", "mcast0", "up"])
    wait_state(instance, "ready")
    wait_until(lambda: len(events(instance)) == 2, 3.0, "both ends are logged")
    assert events(instance) == [("degraded", "interface"), ("no longer degraded", "interface")]
