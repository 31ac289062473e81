"""Floods of connections from the underlay and of joins from a local program: their cost for a node is bounded."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from pipeline import limits
from pipeline.lab.programs import wait_until
from pipeline.messages import Goodbye, Heartbeat
from tests.netns.member import Member
from tests.netns.network import Network, fresh_group, wait_route, worker_pid
from tests.netns.sockets import Sockets
from tests.netns.traffic import Receiver, Sender

MakeNetwork = Callable[..., Network]
Measured = Callable[..., None]
SLOW_PAIRS = 40
"""Changes of a member's link that it makes slowly enough to answer the probes between them."""
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47)


def rss_mb(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


def test_exhausted_descriptors_harm_no_link(make_network: MakeNetwork, sockets: Sockets, measured: Measured) -> None:
    """Goal: silent connections that take all file descriptors of control harm no link, and keep peers out only while
    they are open.
    Method: control may have 200 descriptors; 400 connections stay open during a stream.  The process of control stays,
    its log has few lines more, the stream is complete and the link up.  A restarted peer links afterwards."""
    network = make_network(3)
    source, target, stranger = network.instances
    group = fresh_group()
    receiver = Receiver(target.host, group)
    wait_route(source, group, [target])
    control = worker_pid(target, "control")
    resource.prlimit(control, resource.RLIMIT_NOFILE, (200, 200))
    sender = Sender(source.host, group, mbit=5, seconds=5)
    lines = len(target.process.log.splitlines())
    connections = []
    for _ in range(400):
        connection = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        connection.connect_ex((target.host.underlay, 4747))
        connections.append(connection)
    time.sleep(4)
    receiver.account().assert_perfect(sender.sent())
    assert worker_pid(target, "control") == control
    assert target.is_linked_to([source, target])
    measured(log_lines=len(target.process.log.splitlines()) - lines)
    assert len(target.process.log.splitlines()) - lines <= limits.LOG_SUBJECT_BURST + 4
    network.instances[2].stop()
    for connection in connections:
        connection.close()
    network.relaunch(2)


def test_failed_handshakes_keep_no_memory(make_network: MakeNetwork, sockets: Sockets, measured: Measured) -> None:
    """Goal: failed handshakes do not make the memory of control grow.
    Method: six series of 600 connections that stop at every stage of a handshake.  The first series fills the memory
    that is kept for reuse; after it the resident memory grows by less than 2 MB."""
    network = make_network(2)
    target, stranger = network.instances
    control = worker_pid(target, "control")
    hello = b"\x04" + bytes([200]) + b"\x05HELLO\x01\x00" + bytes(72) + os.urandom(120)
    openings = (b"", GREETING[:10], GREETING, GREETING + hello, os.urandom(3000), GREETING + os.urandom(3000))
    sizes = []
    for _ in range(6):
        series = []
        for number in range(600):
            connection = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_STREAM)
            connection.connect((target.host.underlay, 4747))
            with contextlib.suppress(ConnectionError):
                connection.sendall(openings[number % len(openings)])
            series.append(connection)
        time.sleep(2.5)  # longer than a handshake may take
        for connection in series:
            connection.close()
        sizes.append(rss_mb(control))
    measured(connections=6 * 600, control_mb=" ".join(f"{size:.1f}" for size in sizes))
    assert sizes[-1] - sizes[0] < 2.0
    assert network.is_healthy()


JOINER = """
import os, socket, struct, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
index, end = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
number = 0
socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
held = [None] * 4000
while time.monotonic() < end:
    for at in range(len(held)):
        sock = socks[at % 50]
        if held[at]:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, held[at])
        number += 1
        held[at] = struct.pack("=4s4si", (0xEF000000 + number).to_bytes(4, "big"), bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, held[at])
print(number)
"""


def test_endless_joins_of_a_local_user_are_bounded(
    make_network: MakeNetwork, sockets: Sockets, measured: Measured
) -> None:
    """Goal: an unprivileged program that joins and leaves groups as fast as possible takes bounded memory on its host;
    streams are complete, links stay up, and other programs can join.
    Method: user `nobody` changes 4,000 memberships again and again for 6 s."""
    network = make_network(2)
    source, member = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    control = worker_pid(member, "control")
    before = rss_mb(control)
    sender = Sender(source.host, group, mbit=5, seconds=6)
    index = str(sockets.index(member.host, "mcast0"))
    with member.host.enter():
        joiner = subprocess.Popen([sys.executable, "-c", JOINER, index, "6"], stdout=subprocess.PIPE, text=True)
    time.sleep(3)
    late = fresh_group()
    listener = sockets.member(member.host, late, 5055)
    began = time.monotonic()
    wait_route(source, late, [member], timeout_s=20)
    joined_s = time.monotonic() - began
    printed, _ = joiner.communicate(timeout=30)
    receiver.account().assert_perfect(sender.sent())
    measured(joins=int(printed), late_join_s=joined_s, control_mb=f"{before:.1f} {rss_mb(control):.1f}")
    assert worker_pid(member, "control") == control
    assert rss_mb(control) - before < 150
    wait_until(network.is_healthy, 5.0, "the links are up")
    listener.close()


def test_flapping_member_writes_few_log_lines(make_network: MakeNetwork, measured: Measured) -> None:
    """Goal: a member whose link goes up and down all the time does not fill the disk with the log of another node, and
    the lines about other peers are written.
    Method: a program sends 1,500 pairs of a Heartbeat, after which it answers probes, so that its link is up, and a
    Goodbye; then an honest node is restarted.  The log of the target has the limited number of lines about the member,
    both changes of the honest node, and at the end the number of the lines that are not written."""
    network = make_network(2, sealed=False)
    target, honest = network.instances
    with Member(honest.host, None, name="flapping") as member:
        member.meet(target, acknowledges=False)
        head, stamp, answered = member.forger.header(), member.records[target.name].stamp, 0
        for pair in range(1500):
            number = member.forger.number + 2
            heartbeat = Heartbeat(number=number, acked_stamp=stamp, directory_digest=b"", **head)
            member.send(target, member.seal(target, heartbeat))
            time.sleep(0.3 if pair < SLOW_PAIRS else 0.001)
            answered += member.answer_probes(target)
            time.sleep(0.1 if pair < SLOW_PAIRS else 0)
            member.send(target, member.seal(target, Goodbye(number=number + 1, **head)))
        honest.stop()
        network.relaunch(1)
    lines = target.process.log.splitlines()
    written = sum('"flapping"' in line for line in lines)
    assert sum("link down" in line and honest.name in line for line in lines) >= 1
    assert sum("link up" in line and honest.name in line for line in lines) >= 2
    target.stop()
    sums = [line for line in target.process.log.splitlines() if " more in " in line]
    measured(lines=written, sums=len(sums), answered_probes=answered)
    assert written <= 2 * (limits.LOG_SUBJECT_BURST + 1)
    assert any("link up" in line and "flapping" in line for line in sums)
