"""The laboratory itself: it carries unicast and no multicast, impairs packets as requested, and counts exactly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial

from pipeline.lab.cleanup import NETNS_DIR
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require, wait_until
from tests.netns.sockets import BUFFER_BYTES, SO_RCVBUFFORCE, Sockets, read_datagrams
from tests.netns.traffic import Receiver, Sender

MakeLab = Callable[..., Lab]


def connect_by_vxlan(lab: Lab) -> None:
    """Connect the hosts by kernel VXLAN, which sends a copy of each multicast frame to every other host."""
    for host in lab.hosts:
        ip = [require("ip"), "-n", host.netns]
        link = ["vxlan", "id", "77", "dstport", "4789", "local", host.underlay, "dev", "u0", "nolearning"]
        host.run([*ip, "link", "add", "mcast0", "type", *link])
        host.run([*ip, "link", "set", "mcast0", "mtu", "1436", "up"])
        host.run([*ip, "addr", "add", f"10.77.0.{host.index}/16", "dev", "mcast0"])
        host.run([*ip, "route", "add", "224.0.0.0/4", "dev", "mcast0"])
        for other in lab.hosts:
            if other is not host:
                entry = ["00:00:00:00:00:00", "dev", "mcast0", "dst", other.underlay]
                host.run([require("bridge"), "fdb", "append", *entry])


def delivered(sockets: Sockets, source: Host, target: Host, count: int = 1, *, size: int = 1) -> int:
    """Send `count` unicast datagrams over the underlay; return the number that arrive."""
    sender = sockets.open(source, socket.AF_INET, socket.SOCK_DGRAM)
    with sockets.open(target, socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        receiver.bind((target.underlay, 9000))
        for _ in range(count):
            sender.sendto(bytes(size), (target.underlay, 9000))
        return len(read_datagrams(receiver, count, 0.3))


def test_underlay_carries_unicast_and_no_multicast(
    make_lab: MakeLab, sockets: Sockets, measured: Callable[..., None]
) -> None:
    """Goal: every multicast packet that arrives has come through an overlay.
    Method: unicast between two hosts arrives and is counted.  A stream to a group on the underlay's interface does not
    arrive, and the bridge has counted every packet of it as dropped."""
    began = time.monotonic()
    lab = make_lab(3)
    measured(build_ms=(time.monotonic() - began) * 1e3)
    a, b, _ = lab.hosts
    assert delivered(sockets, a, b, 10) == 10
    assert lab.bytes_between(a, b) >= 290
    receiver = Receiver(b, "239.1.2.3", interface="u0")
    before = lab.multicast_packets()
    assert Sender(a, "239.1.2.3", interface="u0", pps=2000, count=200).sent() == 200
    assert receiver.stop().stream()["received"] == 0
    assert lab.multicast_packets() - before >= 200


def test_impairments_have_effect_until_they_end(make_lab: MakeLab, sockets: Sockets) -> None:
    """Goal: loss, partition, rate limit and a pulled cable have their effect until they end.
    Method: unicast datagrams between three hosts before, during and after each."""
    lab = make_lab(3)
    a, b, c = lab.hosts
    assert delivered(sockets, a, b) == 1
    lab.loss(b, 50)
    assert 20 < delivered(sockets, a, b, 100) < 80
    assert delivered(sockets, b, a, 100) == 100
    lab.heal()
    assert delivered(sockets, a, b, 100) == 100
    lab.partition([b])
    assert delivered(sockets, a, b) == 0
    assert delivered(sockets, a, c) == 1
    lab.heal()
    assert delivered(sockets, a, b) == 1
    lab.rate(b, 1)  # the bucket holds 64 KiB and the queue 50 ms: at most 80 of 400 datagrams
    assert 20 < delivered(sockets, a, b, 400, size=1400) < 120
    lab.heal()
    assert delivered(sockets, a, b, 400, size=1400) == 400
    lab.plug(b, connected=False)
    assert delivered(sockets, a, b) == 0
    lab.plug(b, connected=True)
    wait_until(lambda: delivered(sockets, a, b) == 1, 3, "the cable carries again")


def test_traffic_tool_counts_exactly(make_lab: MakeLab) -> None:
    """Goal: the account of the traffic tool is exact.
    Method: over kernel VXLAN a stream arrives complete.  With 10 % loss the account agrees with the number sent.  A
    source-specific receiver counts one of two sources."""
    lab = make_lab(3)
    connect_by_vxlan(lab)
    a, b, c = lab.hosts
    receivers = [Receiver(host, "239.1.2.3") for host in (b, c)]
    sent = Sender(a, "239.1.2.3", mbit=20, seconds=0.5).sent()
    for receiver in receivers:
        receiver.account().assert_perfect(sent)
    lab.loss(b, 10)
    receiver = Receiver(b, "239.1.2.3")
    sent = Sender(a, "239.1.2.3", pps=4000, count=2000).sent()
    counts = receiver.account().stream()
    assert counts["unique"] + counts["lost"] == sent
    assert 100 < counts["lost"] < 300
    lab.heal()
    receiver = Receiver(b, "232.1.2.3", sources=["10.77.0.1"])
    other = Sender(c, "232.1.2.3", stream=3, pps=1000, count=300)
    sent = Sender(a, "232.1.2.3", pps=1000, count=300).sent()
    account = receiver.account()
    account.assert_perfect(sent)
    assert account.stream(3)["received"] == 0
    other.sent()


def test_interrupted_and_killed_labs_are_removed(make_lab: MakeLab) -> None:
    """Goal: no laboratory is left on the machine.
    Method: programs that hold a laboratory with a process in it.  One gets SIGINT, one ends without closing it: both
    remove it themselves.  One gets SIGKILL: the next laboratory removes it."""
    code = """
        import sys, time
        from pipeline.lab.netns import Lab
        lab = Lab(2).__enter__()
        lab.hosts[0].spawn(["sleep", "100"], label="sleep")
        print(lab.tag, flush=True)
        time.sleep(float(sys.argv[1]))
    """
    for number, seconds in ((signal.SIGINT, "30"), (None, "0"), (signal.SIGKILL, "30")):
        command = [sys.executable, "-c", textwrap.dedent(code), seconds]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as holder:
            assert holder.stdout is not None
            tag = holder.stdout.readline().strip()
            assert tag.startswith(f"lab{holder.pid}x")
            if number is not None:
                holder.send_signal(number)
            holder.wait(10)
        if number == signal.SIGKILL:
            assert not is_gone(tag)
            make_lab(1)
        wait_until(partial(is_gone, tag), 2, f"{tag} is gone")


def is_gone(tag: str) -> bool:
    return not any(name.startswith(f"{tag}-") for name in os.listdir(NETNS_DIR))
