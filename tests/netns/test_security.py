"""Protection against hosts of the underlay that do not have the network key."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable

import pytest

from pipeline.keys.file import write_network_key
from pipeline.lab.instance import launch, network_key
from pipeline.lab.netns import Lab
from pipeline.lab.programs import wait_until
from tests.netns.network import Network, drops, fresh_group, wait_route
from tests.netns.sockets import Sockets, read_datagrams, read_packets
from tests.netns.traffic import Receiver, Sender

MakeLab = Callable[..., Lab]
MakeNetwork = Callable[..., Network]
UDP_PAYLOAD = 14 + 20 + 8
"""Offset of the payload in a frame: after the headers of Ethernet, IPv4 and UDP."""
MARKER = b"a sentence that is secret on the underlay " * 4


def is_marker_readable(network: Network, sockets: Sockets) -> bool:
    """Send the marker from one host to another; return whether it can be read on the underlay."""
    source, member = network.instances[:2]
    group = fresh_group()
    listener = sockets.member(member.host, group, 5040)
    wait_route(source, group, [member])
    sniffer = sockets.sniffer(network.lab.bridge, member.host.bridge_port)
    sender = sockets.sender(source.host, group)
    for _ in range(10):
        sender.sendto(MARKER, (group, 5040))
    assert [each.payload for each in read_datagrams(listener, 10)] == [MARKER] * 10
    frames = b"".join(read_packets(sniffer, 0.5, lambda frame: b"\x12\x8b" in frame[:60], 10_000))  # port 4747
    assert len(frames) > 10 * len(MARKER)
    return MARKER in frames


def test_payload_cannot_be_read_on_the_underlay(network: Network, sockets: Sockets) -> None:
    """Goal: payload is encrypted on the underlay.
    Method: datagrams with a known sentence arrive; a capture at the bridge's port to the receiver does not have it."""
    assert not is_marker_readable(network, sockets)


def test_insecure_network_works_and_is_readable(make_network: MakeNetwork, sockets: Sockets) -> None:
    """Goal: `--insecure` works without a key and without encryption.  This proves that the test above would find the
    sentence.
    Method: the same on two insecure nodes; then a counted stream."""
    network = make_network(2, sealed=False)
    assert is_marker_readable(network, sockets)
    source, member = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    receiver_sent = Sender(source.host, group, mbit=40, seconds=1).sent()
    receiver.account().assert_perfect(receiver_sent)


@pytest.mark.parametrize("stranger", ["another key", "insecure"])
def test_node_without_the_key_gets_no_link(make_network: MakeNetwork, stranger: str) -> None:
    """Goal: a node with another key, or without a key, gets no link to the network and receives nothing.
    Method: it has nodes of the network as peers and joins a group.  After 3 s no link is up, its receiver has counted
    nothing, and the network's own stream is complete."""
    network = make_network(3)
    intruder, source, member = network.instances
    intruder.stop()
    other_key = network.lab.dir / "other.key"
    write_network_key(other_key)
    key = other_key if stranger == "another key" else None
    outsider = launch(network.hosts[0], key=key, peers=network.hosts)
    outsider.wait_ready()
    network.instances[0] = outsider
    group = fresh_group()
    inside, outside = Receiver(member.host, group), Receiver(outsider.host, group)
    wait_route(source, group, [member])
    sent = Sender(source.host, group, mbit=10, seconds=3).sent()
    inside.account().assert_perfect(sent)
    assert outside.stop().stream()["received"] == 0
    assert [link for link in outsider.show("links") if link["state"] == "up"] == []
    names = {link["peer"] for link in source.show("links") if link["state"] == "up"}
    assert names == {member.name}


def test_garbage_on_both_ports_harms_no_stream(
    network: Network, sockets: Sockets, measured: Callable[..., None]
) -> None:
    """Goal: garbage on the control and data ports is counted or disconnected, and does not harm streams or links.
    Method: during a stream a host of the underlay opens TCP connections with garbage, with parts of a ZeroMQ greeting
    or without data, and sends random datagrams, half of them with a valid first byte.  The stream is complete, the
    links stay up, drops are counted, and all processes are the same as before."""
    source, member, _, stranger = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    workers = {row["pid"] for row in member.show("workers")}
    before = sum(drops(member).values())
    sender = Sender(source.host, group, mbit=20, seconds=3)
    rng = random.Random(4)
    target = (member.host.underlay, 4747)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47)
    openings = [
        b"GET / HTTP/1.0\r\n\r\n",
        greeting,
        greeting + rng.randbytes(5000),
        b"\x01" * 70_000,
        b"",
        rng.randbytes(64),
    ]
    connections = []
    for opening in openings * 3:
        connection = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(2)
        connection.connect(target)
        connection.sendall(opening)
        connections.append(connection)
    flood = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_DGRAM)
    for number in range(2000):
        datagram = rng.randbytes(rng.randrange(1, 1400))
        flood.sendto(bytes([0x10 + number % 4]) + datagram if number % 2 else datagram, target)
        time.sleep(0.0005)
    sent = sender.sent()
    receiver.account().assert_perfect(sent)
    assert network.is_healthy()
    assert {row["pid"] for row in member.show("workers")} == workers
    assert member.process.log.count("control connection refused") <= 3, "one line for each kind of garbage"
    wait_until(lambda: sum(drops(member).values()) - before >= 1900, 3, f"the drops are counted: {drops(member)}")
    measured(**drops(member))


def test_replayed_and_altered_datagrams_are_dropped(network: Network, sockets: Sockets) -> None:
    """Goal: a datagram is not delivered a second time, and not with a changed bit.
    Method: datagrams captured at the bridge's port are sent there again, unchanged and altered.  The receiver gets
    each once, and the drops are counted as `replay` and `authentication`."""
    source, member = network.instances[:2]
    group = fresh_group()
    listener = sockets.member(member.host, group, 5041)
    wait_route(source, group, [member])
    sniffer = sockets.sniffer(network.lab.bridge, member.host.bridge_port)
    sender = sockets.sender(source.host, group)
    for number in range(20):
        sender.sendto(b"%d " % number + MARKER, (group, 5041))
        time.sleep(0.002)
    assert len(read_datagrams(listener, 20, 2)) == 20
    frames = read_packets(sniffer, 0.3, lambda frame: frame[23] == socket.IPPROTO_UDP and len(frame) > len(MARKER), 20)
    assert len(frames) >= 10
    before = drops(member)
    for frame in frames:
        again = bytearray(frame)
        again[40:42] = bytes(2)  # no UDP checksum: in the capture the hardware had still to compute it
        sniffer.send(again)
        again[UDP_PAYLOAD + 13] ^= 1  # a bit of the sequence number: 2^16 ahead, so not a replay
        sniffer.send(again)
    assert read_datagrams(listener, 1, 0.5) == []
    after = drops(member)
    assert after.get("replay", 0) - before.get("replay", 0) == len(frames)
    assert after.get("authentication", 0) - before.get("authentication", 0) == len(frames)


def test_new_network_key_is_private(make_lab: MakeLab) -> None:
    """Goal: only the owner can read a new network key.
    Method: the mode of the file that keygen creates."""
    path = network_key(make_lab(1))
    assert path.stat().st_mode & 0o777 == 0o600
