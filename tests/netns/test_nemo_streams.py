"""Typical traffic over twelve daemons with the engine nemo, with and without loss on the links.

A program on every host joins all groups at the start and stays a member.  So the trees are complete when a test
begins, and the test's own receivers do not change them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.lab.mpegts import StreamMeter
from pipeline.lab.netns import Host
from pipeline.lab.programs import Process, require
from tests.netns.network import Network, fresh_group
from tests.netns.traffic import PORT, Receiver, Sender
from tests.netns.trees import wait_settled

HOSTS = 12
STREAMS = 7
ANNOUNCEMENTS = "224.2.127.254"
"""Group in which SAP announces sessions of global scope, on port 9875 (RFC 2974)."""
SAP_PORT = 9875
SETTLE_S = 50.0
STREAM_MBIT = float(os.environ.get("MCAST_TEST_STREAM_MBIT", "4"))
"""Rate of each of seven streams.  At 11 Mbit/s the daemons and receivers of twelve hosts need all of two cores, so
other work makes the test fail: only a machine that does nothing else can run it at that rate."""

Measured = Callable[..., None]


def with_members(network: Network, groups: list[str]) -> Network:
    """Join all groups on every host; wait until the trees from the first host are complete."""
    for host in network.hosts:
        Receiver(host, ",".join(groups), port=PORT + 1)
    wait_settled(network.instances, network.instances[0], groups, SETTLE_S)
    return network


@pytest.fixture(scope="module")
def groups() -> list[str]:
    return [fresh_group() for _ in range(STREAMS)]


@pytest.fixture(scope="module")
def nemo(groups: list[str]) -> Iterator[Network]:
    with Network(HOSTS, workers=1, extra=("--overlay", "nemo")) as network:
        yield with_members(network, [*groups, ANNOUNCEMENTS])


def total(network: Network, counter: str) -> int:
    """Return the sum of a counter over all nodes."""
    return sum(each.show("counters")[counter] for each in network.instances)


def test_announcements_reach_every_node(nemo: Network) -> None:
    """Goal: session announcements of every node reach every other node.
    Method: all nodes send SAP packets of two sizes, two a second, and receive; each of 12 × 12 streams is complete."""
    receivers = [Receiver(host, ANNOUNCEMENTS, port=SAP_PORT, streams=HOSTS) for host in nemo.hosts]
    senders = [
        Sender(host, ANNOUNCEMENTS, port=SAP_PORT, stream=number, size=(180, 420), pps=2, count=5, ttl=15)
        for number, host in enumerate(nemo.hosts, 1)
    ]
    sent = [sender.sent() for sender in senders]
    for receiver in receivers:
        account = receiver.account()
        for number, count in enumerate(sent, 1):
            account.assert_perfect(count, stream=number)


def test_many_slow_sources_reach_every_node(nemo: Network, groups: list[str]) -> None:
    """Goal: with many slow sources in one group every node receives every source, as in a chat.
    Method: twelve senders of ten short messages a second each for 3 s; every host counts every stream."""
    receivers = [Receiver(host, groups[0], streams=HOSTS) for host in nemo.hosts]
    senders = [
        Sender(host, groups[0], stream=number, size=(80, 300, 120), pps=10, seconds=3)
        for number, host in enumerate(nemo.hosts, 1)
    ]
    sent = [sender.sent() for sender in senders]
    for receiver in receivers:
        account = receiver.account()
        for number, count in enumerate(sent, 1):
            account.assert_perfect(count, stream=number)


def test_video_has_no_continuity_error(nemo: Network, groups: list[str], measured: Measured) -> None:
    """Goal: video of 1.5 Mbit/s by plain ffmpeg arrives without a continuity error, although its packets take the trees
    of all stripes.
    Method: ffmpeg sends a test picture for 5 s; ffmpeg on three hosts copies it to a meter of continuity counters."""
    meters = play_video(nemo, groups[1])
    measured(jitter_ms=max(meter.jitter_s for meter in meters) * 1e3)
    assert all(meter.packets > 4000 for meter in meters)
    assert not any(meter.continuity_errors for meter in meters)


def play_video(network: Network, group: str) -> list[StreamMeter]:
    """Send a test picture from the first host; return the meters of three receiving hosts."""
    ffmpeg = [require("ffmpeg"), "-nostdin", "-v", "warning"]
    viewers = network.hosts[3::4]
    meters = [StreamMeter() for _ in viewers]
    threads = [threading.Thread(target=view, args=(host, group, meter), daemon=True) for host, meter in
               zip(viewers, meters, strict=True)]  # fmt: skip
    for thread in threads:
        thread.start()
    time.sleep(2)  # the players join; a later join would be no error, so this time is not critical
    encoder = "-re -f lavfi -i testsrc2=size=320x240:rate=25 -t 5 -c:v mpeg2video -b:v 1.2M -maxrate 1.2M -minrate 1.2M"
    muxer = ["-bufsize", "400k", "-muxrate", "1.5M", "-f", "mpegts", f"udp://{group}:5004?pkt_size=1316&ttl=1"]
    network.hosts[0].run([*ffmpeg, *encoder.split(), *muxer])
    time.sleep(0.5)
    for host in viewers:
        process = next(each for each in host.processes if each.label == "viewer")
        process.kill()
        host.processes.remove(process)
    for thread in threads:
        thread.join(5)
    return meters


def view(host: Host, group: str, meter: StreamMeter) -> None:
    """Feed a meter with the stream that a player on this host receives."""
    url = f"udp://{group}:5004?fifo_size=50000"
    command = ["-nostdin", "-v", "warning", "-f", "data", "-i", url, "-map", "0", "-c", "copy", "-f", "data", "pipe:1"]
    player: Process = host.spawn([require("ffmpeg"), *command], label="viewer", pipe=True)
    while data := player.popen.stdout.read1(65536):  # type: ignore[union-attr]
        meter.feed(data, time.monotonic())


def test_seven_streams_reach_eleven_nodes(nemo: Network, groups: list[str], measured: Measured) -> None:
    """Goal: seven streams of one node reach eleven others.
    Method: each at STREAM_MBIT for 4 s to a group of its own; at most one datagram in 10,000 may be missing."""
    source, *members = nemo.hosts
    receivers = [Receiver(host, ",".join(groups), streams=STREAMS) for host in members]
    streams = enumerate(groups, 1)
    senders = [Sender(source, group, stream=number, mbit=STREAM_MBIT, seconds=4) for number, group in streams]
    sent = [sender.sent() for sender in senders]
    accounts = [receiver.account() for receiver in receivers]
    counts = [account.stream(number) for account in accounts for number in range(1, STREAMS + 1)]
    expected = len(members) * sum(sent)
    lost = expected - sum(each["unique"] for each in counts)
    reordered = sum(each["reordered"] for each in counts)
    measured(sent=sum(sent), lost=lost, reordered=reordered, resent=total(nemo, "resent"))
    assert not any(each["duplicates"] for each in counts)
    assert lost <= expected / 10_000


def lossy_stream(network: Network, group: str) -> tuple[int, int, int]:
    """Send 1.5 Mbit/s for 8 s while every link loses 1 % of its packets; return expected, lost, retransmitted."""
    source, *members = network.hosts
    network.lab.disable_offloads()  # else one loss takes a whole super-packet
    receivers = [Receiver(host, group) for host in members]
    for host in network.hosts:
        network.lab.loss(host, 1)
    before = total(network, "resent")
    sent = Sender(source, group, mbit=1.5, seconds=8).sent()
    time.sleep(0.5)
    network.lab.heal()
    unique = sum(receiver.stop().stream()["unique"] for receiver in receivers)
    return sent * len(members), sent * len(members) - unique, total(network, "resent") - before


def test_loss_is_repaired(nemo: Network, groups: list[str], tmp_path: Path, measured: Measured) -> None:
    """Goal: with 1 % loss on every link repair reduces the loss to less than a fifth, and retransmits less than 5 % of
    the stream.
    Method: the same stream in this network and in a second one with repair = "none"."""
    expected, lost, resent = lossy_stream(nemo, groups[2])
    config = tmp_path / "none.toml"
    config.write_text('[overlay.nemo]\nrepair = "none"\n')
    with Network(HOSTS, workers=1, extra=("--overlay", "nemo", "--config", str(config))) as unrepaired:
        with_members(unrepaired, groups[2:3])
        unrepaired_expected, unrepaired_lost, unrepaired_resent = lossy_stream(unrepaired, groups[2])
    measured(lost_percent=100 * lost / expected, unrepaired_percent=100 * unrepaired_lost / unrepaired_expected)
    measured(resent_percent=100 * resent / expected)
    assert unrepaired_resent == 0
    assert unrepaired_lost > unrepaired_expected / 100
    assert lost < unrepaired_lost / 5
    assert 0 < resent < expected / 20
