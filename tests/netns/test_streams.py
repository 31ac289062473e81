"""Streams of numbered datagrams and of real programs: no loss, no duplicate, no packet at a host without members."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from pipeline.lab.mpegts import StreamMeter
from pipeline.lab.programs import Process, require, wait_until
from tests.netns.network import Network, fresh_group, fresh_group6, wait_route
from tests.netns.traffic import Receiver, Sender

Measured = Callable[..., None]


def test_stream_of_200_mbit_to_three_receivers_is_complete(network: Network, measured: Measured) -> None:
    """Goal: a stream of 200 Mbit/s reaches three receivers without loss.
    Method: 4 s of datagrams of 1316 bytes; each receiver accounts for each datagram."""
    source, *members = network.instances
    group = fresh_group()
    receivers = [Receiver(member.host, group) for member in members]
    wait_route(source, group, members)
    report = Sender(source.host, group, mbit=200, seconds=4).report()
    accounts = [receiver.account() for receiver in receivers]
    measured(sent=report["sent"], slipped_ms=report["slipped_ms"], p99_us=accounts[0].latency_us["p99"])
    assert report["sent"] * 1316 * 8 / 4e6 > 150, "the sender was not scheduled often enough to test anything"
    for account in accounts:
        account.assert_perfect(report["sent"])


@pytest.mark.parametrize("family", [4, 6])
def test_iperf_measures_no_loss(network: Network, family: int, measured: Measured) -> None:
    """Goal: an unmodified iperf 2 measures no loss, with IPv4 and IPv6.
    Method: iperf servers on three hosts are bound to the group, a client sends 20 Mbit/s with TTL 1 for 2 s; the
    servers' reports count."""
    iperf = require("iperf")
    source, *members = network.instances
    group = fresh_group() if family == 4 else fresh_group6()
    version = [] if family == 4 else ["-V"]
    common = ["-u", "-p", "5201", "-l", "1316"]
    servers = [
        member.host.spawn(
            [iperf, "-s", *version, "-B", f"{group}%mcast0", *common, "-w", "4M", "-y", "C"], label="iperf"
        )
        for member in members
    ]
    wait_route(source, group, members)
    target = group if family == 4 else f"{group}%mcast0"
    client = ["-c", target, *version, "-T", "1", "-b", "20M", "-t", "2", *common]
    source.host.run([iperf, *client, *(["-B", source.ip4] if family == 4 else [])])
    for member, server in zip(members, servers, strict=True):
        report = wait_until(partial(iperf_report, server), 5, f"iperf reports on {member}")
        lost, total = report or (-1, 0)
        measured(**{f"lost_{member.host.index}": f"{lost}/{total}"})
        assert lost == 0
        assert total > 3000


def iperf_report(server: Process) -> tuple[int, int] | None:
    """Return lost and total datagrams from the CSV line that a server prints at the end of a stream."""
    for line in server.output.splitlines():
        words = line.split(",")
        if len(words) >= 13 and int(words[11]) > 0:
            return int(words[10]), int(words[11])
    return None


def test_video_by_ffmpeg_has_no_continuity_error(network: Network, measured: Measured) -> None:
    """Goal: video by plain ffmpeg arrives without a continuity error.
    Method: ffmpeg encodes a test picture (MPEG-2, constant mux rate of 11 Mbit/s) and sends it for 4 s; ffmpeg on two
    hosts copies it to a meter of continuity counters."""
    ffmpeg = [require("ffmpeg"), "-nostdin", "-v", "warning"]
    source, *members = network.instances[:3]
    group = fresh_group()
    meters = [StreamMeter() for _ in members]
    threads = []
    for member, meter in zip(members, meters, strict=True):
        url = f"udp://{group}:5004?fifo_size=50000"
        command = [*ffmpeg, "-f", "data", "-i", url, "-map", "0", "-c", "copy", "-f", "data", "pipe:1"]
        receiver = member.host.spawn(command, label="ffmpeg", pipe=True)
        threads.append(threading.Thread(target=read_stream, args=(receiver, meter), daemon=True))
        threads[-1].start()
    wait_route(source, group, members, timeout_s=20)  # a player that is not in the page cache starts slowly
    encoder = "-re -f lavfi -i testsrc2=size=720x576:rate=25 -t 4 -c:v mpeg2video -b:v 10M -maxrate 10M -minrate 10M"
    muxer = ["-bufsize", "2M", "-muxrate", "11M", "-f", "mpegts", f"udp://{group}:5004?pkt_size=1316"]
    source.host.run([*ffmpeg, *encoder.split(), *muxer])
    time.sleep(0.5)
    network.tidy()
    for thread in threads:
        thread.join(5)
    for meter in meters:
        measured(packets=meter.packets, jitter_ms=meter.jitter_s * 1e3)
        assert meter.packets > 25000
        assert meter.continuity_errors == 0


def read_stream(receiver: Process, meter: StreamMeter) -> None:
    while data := receiver.popen.stdout.read1(65536):  # type: ignore[union-attr]
        meter.feed(data, time.monotonic())


def test_streams_of_several_sources_in_one_group(network: Network) -> None:
    """Goal: every member receives the stream of every source; a source's own host has its copy from the kernel.
    Method: three hosts send to one group at the same time, four hosts receive; each of 4 × 3 streams is complete."""
    group = fresh_group()
    instances = network.instances
    receivers = [Receiver(instance.host, group, streams=3) for instance in instances]
    for source in instances[:3]:
        wait_route(source, group, [other for other in instances if other is not source])
    senders = [Sender(source.host, group, stream=i, mbit=8, seconds=1.5) for i, source in enumerate(instances[:3])]
    sent = [sender.sent() for sender in senders]
    for receiver in receivers:
        account = receiver.account()
        for stream, number in enumerate(sent):
            account.assert_perfect(number, stream=stream)


def test_each_group_reaches_only_its_members(network: Network) -> None:
    """Goal: each of many groups reaches its own members, and datagrams keep their group.
    Method: one host sends to 60 groups in turn.  Two hosts have joined 30 each and check the group of each datagram; a
    third host without members gets no bytes."""
    source, left, right, other = network.instances
    halves = [("239.83.1.1+30", "239.83.1.30", left), ("239.83.2.1+30", "239.83.2.30", right)]
    receivers = [Receiver(member.host, groups) for groups, _, member in halves]
    for _, last, member in halves:
        wait_route(source, last, [member])
    before = network.lab.bytes_between(source.host, other.host)
    senders = [Sender(source.host, groups, pps=1500, count=1500) for groups, _, _ in halves]
    sent = [sender.sent() for sender in senders]
    for receiver, number in zip(receivers, sent, strict=True):
        account = receiver.account()
        account.assert_perfect(number)
        assert account.stream()["groups"] == 30
    assert network.lab.bytes_between(source.host, other.host) - before < 20_000  # heartbeats and probes


def test_hosts_without_members_get_no_bytes(network: Network, measured: Measured) -> None:
    """Goal: a group takes bandwidth only on the links to its members.
    Method: bytes per pair of hosts on the bridge during a stream of 20 Mbit/s to one of three hosts, and during one to
    a group without members."""
    source, member, *others = network.instances
    group, empty_group = fresh_group(), fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    before = network.lab.pair_bytes()
    sent = Sender(source.host, group, mbit=20, seconds=1.5).sent()
    Sender(source.host, empty_group, mbit=20, seconds=0.5).sent()
    after = network.lab.pair_bytes()
    receiver.account().assert_perfect(sent)
    grown = {pair: after[pair] - before[pair] for pair in after}
    other_bytes = max(grown[source.host.index, other.host.index] for other in others)
    member_bytes = grown[source.host.index, member.host.index]
    measured(member_bytes=member_bytes, other_bytes=other_bytes)
    assert sent * 1316 < member_bytes < sent * 1316 * 1.15
    assert other_bytes < 20_000  # heartbeats and probes


@pytest.mark.parametrize("loop", [True, False])
def test_local_receiver_gets_only_the_kernel_copy(network: Network, loop: bool) -> None:
    """Goal: a receiver on the sending host gets exactly the kernel's own copy, and no echo from the overlay.
    Method: a receiver on the sender's host and one on another host.  With IP_MULTICAST_LOOP the local one gets each
    datagram once, without it none."""
    source, member = network.instances[:2]
    group = fresh_group()
    local, remote = Receiver(source.host, group), Receiver(member.host, group)
    wait_route(source, group, [member])
    sent = Sender(source.host, group, pps=2000, count=1000, loop=loop).sent()
    remote.account().assert_perfect(sent)
    if loop:
        local.account().assert_perfect(sent)
    else:
        assert local.stop().stream()["received"] == 0


def test_ipv6_stream_is_complete(network: Network) -> None:
    """Goal: a stream to an IPv6 group is complete.
    Method: 1 s of 40 Mbit/s to an ff15:: group with three members."""
    source, *members = network.instances
    group = fresh_group6()
    receivers = [Receiver(member.host, group) for member in members]
    wait_route(source, group, members)
    sent = Sender(source.host, group, mbit=40, seconds=1).sent()
    for receiver in receivers:
        receiver.account().assert_perfect(sent)


def test_small_datagrams_are_complete_and_in_order(network: Network, measured: Measured) -> None:
    """Goal: small packets, which share overlay datagrams, are neither lost nor reordered.
    Method: payloads of 64 bytes at 30,000 a second for 2 s to two hosts."""
    source, *members = network.instances[:3]
    group = fresh_group()
    receivers = [Receiver(member.host, group) for member in members]
    wait_route(source, group, members)
    report = Sender(source.host, group, size=64, pps=30_000, seconds=2).report()
    for receiver in receivers:
        account = receiver.account()
        account.assert_perfect(report["sent"])
        assert account.stream()["reordered"] == 0
    measured(sent=report["sent"])
