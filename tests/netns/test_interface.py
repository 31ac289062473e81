"""Repair of the interface and of the runtime directory after another program has changed them."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from pipeline.io import rundir
from pipeline.lab.instance import INTERFACE, Instance, program
from pipeline.lab.programs import wait_until
from tests.netns.network import Network, fresh_group, fresh_group6, wait_route, worker_pid
from tests.netns.sockets import Sockets, read_datagrams

PACKETS = 20


def lasting_routes(instance: Instance) -> set[str]:
    """Return the routes of the interface, without those of link-local addresses, which change at each creation."""
    return {route for route in instance.host.routes() if INTERFACE in route and "local fe80" not in route}


def assert_delivers(source: Instance, member: Instance, sockets: Sockets, group: str) -> None:
    receiver = sockets.member(member.host, group, 5001)
    wait_route(source, group, [member])
    sender = sockets.sender(source.host, group)
    for _ in range(PACKETS):
        sender.sendto(b"x", (group, 5001))
    assert len(read_datagrams(receiver, PACKETS)) == PACKETS


@pytest.mark.parametrize("commands", [("set mcast0 down", "set mcast0 up"), ("set mcast0 down", "del mcast0")])
def test_interface_is_restored(network: Network, sockets: Sockets, commands: tuple[str, ...]) -> None:
    """Goal: a node restores its interface, with addresses and routes, after it was set down or deleted, and logs it.
    Method: `ip link` in the host of a running node.  The routes are those from before, groups of both families work
    in both directions, and no process was restarted."""
    one, other = network.instances[:2]
    routes, pids = lasting_routes(one), one.pids()
    for command in commands:
        one.host.run(["ip", "link", *command.split()])
    wait_until(lambda: lasting_routes(one) == routes, 3, f"{one} has its routes again")
    for group in (fresh_group(), fresh_group6()):
        assert_delivers(one, other, sockets, group)
        assert_delivers(other, one, sockets, group)
    assert one.pids() == pids
    assert '"level": "warning"' in one.process.log.splitlines()[-1]


def test_runtime_directory_is_restored(network: Network) -> None:
    """Goal: a restarted control process recreates a runtime directory that was deleted, since its sockets are there.
    Method: delete the directory and kill control; `pipeline status` reaches the node again."""
    instance = network.instances[0]
    control = worker_pid(instance, "control")
    shutil.rmtree(rundir.ROOT / instance.name)
    os.kill(control, signal.SIGKILL)
    status = instance.host.run([program(), "status", "--name", instance.name, "--wait", "3"])
    assert "ready" in status.stdout
    instance.disconnect()
