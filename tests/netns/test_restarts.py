"""Killed workers, control processes and supervisors under load: loss of a stream, and time until recovery."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from pipeline.lab.instance import Instance
from pipeline.lab.programs import wait_until
from tests.netns.network import Network, drops, fresh_group, leftovers, wait_route, worker_pid
from tests.netns.sockets import Sockets, read_datagrams
from tests.netns.traffic import Receiver, Sender

Measured = Callable[..., None]
SENDING_ROLES = ("tun_ingress", "classify", "overlay_egress")


def is_restarted(instance: Instance, role: str, old_pid: int, before: int) -> bool:
    row = next(row for row in instance.show("workers") if row["role"] == role)
    return bool(row["pid"] != old_pid and row["state"] == "ready" and row["restarts"] == before + 1)


def restarts(instance: Instance, role: str) -> int:
    return int(next(row["restarts"] for row in instance.show("workers") if row["role"] == role))


@pytest.mark.parametrize("role", [*SENDING_ROLES, "overlay_ingress"])
def test_killed_worker_interrupts_for_less_than_a_second(network: Network, role: str, measured: Measured) -> None:
    """Goal: a worker that is killed under load is restarted and counted, and the stream is interrupted for less than
    one second.
    Method: 40 Mbit/s, kill -9 of one worker of the sending or receiving node.  The longest gap at the receiver is
    below one second, and the stream continues to its end."""
    source, member = network.instances[:2]
    victim = source if role in SENDING_ROLES else member
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    pid, before = worker_pid(victim, role), restarts(victim, role)
    sender = Sender(source.host, group, mbit=40, seconds=2.5)
    time.sleep(0.7)
    os.kill(pid, signal.SIGKILL)
    wait_until(partial(is_restarted, victim, role, pid, before), 2, f"{role} is restarted")
    sent = sender.sent()
    counts = receiver.account().stream()
    measured(gap_ms=counts["gap_ms"], lost=counts["lost"], sent=sent)
    assert counts["gap_ms"] < 1000
    assert counts["lost"] < sent * 0.4
    assert counts["duplicates"] == 0
    assert counts["last_s"] - counts["first_s"] > 2.4, "the stream did not continue to its end"


def test_killed_control_loses_nothing(network: Network, sockets: Sockets, measured: Measured) -> None:
    """Goal: without control the data plane forwards by the last forwarding table, and nothing is lost.
    Method: 100 Mbit/s over three links; control of the sending and of one receiving node is killed.  Every datagram
    arrives, neither node loses a link or a member, and a later join works."""
    source, *members = network.instances
    group = fresh_group()
    receivers = [Receiver(member.host, group) for member in members]
    wait_route(source, group, members)
    victims = [(each, worker_pid(each, "control"), restarts(each, "control")) for each in (source, members[0])]
    sender = Sender(source.host, group, mbit=100, seconds=3)
    time.sleep(0.5)
    for _, pid, _ in victims:
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    for instance, pid, before in victims:
        wait_until(partial(is_restarted, instance, "control", pid, before), 2, f"control of {instance} is restarted")
    measured(back_ms=(time.monotonic() - began) * 1e3)
    sent = sender.sent()
    for receiver in receivers:
        receiver.account().assert_perfect(sent)
    assert network.is_healthy()
    late = fresh_group()
    listener = sockets.member(members[0].host, late, 5030)
    wait_route(source, late, [members[0]])
    sockets.sender(source.host, late).sendto(b"after", (late, 5030))
    assert [each.payload for each in read_datagrams(listener, 1)] == [b"after"]


def test_join_during_restart_of_control_is_not_lost(network: Network, sockets: Sockets) -> None:
    """Goal: a join during a restart of control is not lost.
    Method: control of the member's node is killed, and a group is joined immediately after; the other node gets the
    route."""
    source, member = network.instances[:2]
    group = fresh_group()
    os.kill(worker_pid(member, "control"), signal.SIGKILL)
    sockets.member(member.host, group, 5031)
    wait_route(source, group, [member], timeout_s=4)


def test_node_recovers_when_all_workers_are_killed(network: Network, measured: Measured) -> None:
    """Goal: a node recovers by itself when control and all workers are killed together.
    Method: kill -9 of every process except the supervisor on both ends of a stream; a later stream is complete."""
    source, member = network.instances[:2]
    group = fresh_group()
    receiver = Receiver(member.host, group, streams=2)
    wait_route(source, group, [member])
    victims = {each: {row["pid"] for row in each.show("workers")} for each in (source, member)}
    sender = Sender(source.host, group, stream=1, mbit=20, seconds=3)
    time.sleep(0.5)
    began = time.monotonic()
    for pid in [pid for pids in victims.values() for pid in pids]:
        os.kill(pid, signal.SIGKILL)
    for instance, pids in victims.items():
        wait_until(partial(has_only_new_workers, instance, pids), 3, f"all workers of {instance} are restarted")
    measured(back_ms=(time.monotonic() - began) * 1e3)
    sender.sent()
    sent = Sender(source.host, group, stream=2, mbit=20, seconds=1).sent()
    account = receiver.account()
    account.assert_perfect(sent, stream=2)
    measured(gap_ms=account.stream(1)["gap_ms"])
    assert account.stream(1)["gap_ms"] < 2000


def has_only_new_workers(instance: Instance, old: set[int]) -> bool:
    rows = instance.show("workers")
    return not old & {row["pid"] for row in rows} and all(row["state"] == "ready" for row in rows)


def test_killed_supervisor_leaves_no_process_or_interface(network: Network, measured: Measured) -> None:
    """Goal: within 3 s of kill -9 of the supervisor its processes, interface and routes are gone; the next launch with
    that name removes the rest and works.
    Method: kill -9 during a stream, search for leftovers, launch again, and send to a member again."""
    source, member = network.instances[:2]
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sender = Sender(source.host, group, mbit=10, seconds=1)
    pids = source.pids()
    source.process.popen.kill()
    began = time.monotonic()
    wait_until(lambda: not live_leftovers(source, pids), 3, f"nothing is left: {live_leftovers(source, pids)}")
    measured(gone_ms=(time.monotonic() - began) * 1e3)
    sender.process.kill()
    receiver.process.kill()
    renewed = network.relaunch(0)
    receiver = Receiver(member.host, group)
    wait_route(renewed, group, [member])
    sent = Sender(renewed.host, group, mbit=10, seconds=0.5).sent()
    receiver.account().assert_perfect(sent)
    assert not drops(renewed).get("restart_skip")


def live_leftovers(instance: Instance, pids: list[int]) -> list[str]:
    """List what a killed supervisor must not leave: processes, interface, routes.  The next launch removes files."""
    found = [part for part in leftovers(instance.host, pids) if not part.startswith("/")]
    traffic_programs = {process.pid for process in instance.host.processes}
    return [part for part in found if not any(part == f"process {pid} in the namespace" for pid in traffic_programs)]


def test_failed_link_goes_down_in_3_s_and_returns(network: Network, measured: Measured) -> None:
    """Goal: a failed link is down within 3 s and comes up again by itself.
    Method: one host is cut off.  Its links go down on both sides; when it is reachable again they come up, and a group
    of which it is a member works again."""
    source, member = network.instances[:2]
    group = fresh_group()
    receiver = Receiver(member.host, group, streams=1)
    wait_route(source, group, [member])
    network.lab.partition([member.host])
    began = time.monotonic()
    wait_until(lambda: not source.is_linked_to([member]), 5, "the link is down")
    measured(down_s=time.monotonic() - began)
    assert time.monotonic() - began <= 3.1
    wait_until(lambda: not member.is_linked_to([source]), 2, "the link is down on the other side")
    network.lab.heal()
    began = time.monotonic()
    wait_until(network.is_healthy, 10, "all links are up again")
    measured(up_s=time.monotonic() - began)
    wait_route(source, group, [member])
    sent = Sender(source.host, group, mbit=10, seconds=0.5).sent()
    receiver.account().assert_perfect(sent)
