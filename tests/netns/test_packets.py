"""Single packets through the overlay: payload, TTL, scope, unicast, and malformed packets."""

from __future__ import annotations

import hashlib
import random
import re
import socket
import struct
import sys
import time

import pytest

from pipeline.lab.programs import require, wait_until
from tests.netns.network import Network, fresh_group, fresh_group6, wait_route
from tests.netns.sockets import Sockets, goes_to, read_datagrams, read_packets

PORT = 5010
SIZES = (0, 1, 2, 7, 63, 512, 1316, 1388, 1408, 1409, 1472, 2816, 9000, 32768, 60000)
"""Empty and tiny payloads, 1316 (7 MPEG-TS packets), the largest of one packet (1436 − 28 and 1436 − 48), fragments."""


@pytest.mark.parametrize("family", [4, 6])
def test_payloads_arrive_byte_for_byte(network: Network, sockets: Sockets, family: int) -> None:
    """Goal: a datagram of any size arrives unchanged, also as IP fragments.
    Method: random payloads of 0 to 60,000 bytes, each size twice, to three hosts; contents and order are compared."""
    source, *members = network.instances
    group = fresh_group() if family == 4 else fresh_group6()
    listeners = [sockets.member(member.host, group, PORT) for member in members]
    wait_route(source, group, members)
    rng = random.Random(family)
    payloads = [rng.randbytes(size) for size in SIZES * 2]
    sender = sockets.sender(source.host, group)
    for payload in payloads:
        sender.sendto(payload, (group, PORT))
        time.sleep(0.005)
    for listener in listeners:
        got = [datagram.payload for datagram in read_datagrams(listener, len(payloads), 5)]
        assert [len(payload) for payload in got] == [len(payload) for payload in payloads]
        assert got == payloads


@pytest.mark.parametrize("family", [4, 6])
def test_ttl_and_source_are_kept(network: Network, sockets: Sockets, family: int) -> None:
    """Goal: the overlay is one link, so it keeps TTL, hop limit and source address.
    Method: datagrams with TTL 1, 2, 64 and 255, received with their TTL."""
    source, member = network.instances[:2]
    group = fresh_group() if family == 4 else fresh_group6()
    listener = sockets.member(member.host, group, PORT)
    wait_route(source, group, [member])
    for ttl in (1, 2, 64, 255):
        sockets.sender(source.host, group, ttl=ttl).sendto(b"x", (group, PORT))
    got = read_datagrams(listener, 4)
    assert [datagram.ttl for datagram in got] == [1, 2, 64, 255]
    assert {datagram.source for datagram in got} == {source.ip4 if family == 4 else source.ip6}


def test_first_datagram_of_a_flow_arrives(network: Network, sockets: Sockets) -> None:
    """Goal: the first datagram of a flow is not lost, since membership makes the routes, not traffic.
    Method: one datagram to each of 30 groups that have members and no earlier traffic."""
    source, member = network.instances[:2]
    groups = [fresh_group() for _ in range(15)] + [fresh_group6() for _ in range(15)]
    listeners = [sockets.member(member.host, group, PORT) for group in groups]
    for group in groups:
        wait_route(source, group, [member])
    for group in groups:
        sockets.sender(source.host, group).sendto(group.encode(), (group, PORT))
    got = [read_datagrams(listener, 1, 2) for listener in listeners]
    assert [each[0].payload.decode() if each else None for each in got] == groups


@pytest.mark.parametrize("group", ["224.0.0.251", "224.0.0.100", "ff02::fb", "ff02::1:3"])
def test_link_scope_reaches_non_members(network: Network, sockets: Sockets, group: str) -> None:
    """Goal: link-local groups are flooded to every node, also without members.
    Method: ten datagrams, captured on the interfaces of three hosts without members.  A capture may show several
    datagrams as one super-packet."""
    source, *others = network.instances
    sniffers = [sockets.sniffer(other.host, "mcast0") for other in others]
    sender = sockets.sender(source.host, group)
    for number in range(10):
        sender.sendto(b"question %d" % number, (group, 5353))
    for sniffer in sniffers:
        captured = b""
        while b"question 9" not in captured:
            packets = read_packets(sniffer, 3, goes_to(group, protocol=17))
            assert packets, captured
            captured += packets[0]
        assert re.findall(rb"question (\d)", captured) == [b"%d" % number for number in range(10)]


def test_foreign_unicast_and_node_scope_stay_on_the_host(network: Network, sockets: Sockets) -> None:
    """Goal: unicast to an address of no node, and node-scope groups, do not cross the overlay.
    Method: one datagram of each, then a marker to a link-local group.  The other host's capture has only the marker,
    and drops are counted."""
    source, other = network.instances[:2]
    sniffer = sockets.sniffer(other.host, "mcast0")
    before = sum(source.show("counters")["drops"].values())
    sockets.sender(source.host, "ff01::99").sendto(b"secret", ("ff01::99", PORT))
    sockets.sender(source.host, "10.77.200.200").sendto(b"secret", ("10.77.200.200", PORT))
    sockets.sender(source.host, "224.0.0.251").sendto(b"marker", ("224.0.0.251", 5353))
    captured = read_packets(sniffer, 2, lambda packet: b"secret" in packet or b"marker" in packet)
    assert len(captured) == 1
    assert b"marker" in captured[0]
    assert sum(source.show("counters")["drops"].values()) > before


# ---------------------------------------------------------------- unicast


@pytest.mark.parametrize("size", [56, 1400, 8000])
def test_ping_between_overlay_addresses(network: Network, size: int) -> None:
    """Goal: unicast between overlay addresses works, also in fragments.
    Method: three pings from one host to the IPv4, IPv6 and link-local IPv6 address of each other host, none lost.  The
    link-local ones matter because a request from such an address is answered to it."""
    source, *others = network.instances
    for other in others:
        for address in (other.ip4, other.ip6, f"fe80::{other.host.index:x}%mcast0"):
            command = [require("ping"), "-n", "-q", "-c", "3", "-i", "0.01", "-W", "2", "-s", str(size), address]
            assert " 0% packet loss" in source.host.run(command, timeout_s=10).stdout


@pytest.mark.parametrize("family", [4, 6])
def test_tcp_between_overlay_addresses(network: Network, sockets: Sockets, family: int) -> None:
    """Goal: TCP connections between overlay addresses work, as programs use them after discovery.
    Method: 8 MiB of random bytes over one connection between two hosts; hashes are compared."""
    client, server = network.instances[:2]
    address = server.ip4 if family == 4 else server.ip6
    code = (
        "import hashlib, socket, sys\n"
        "listener = socket.create_server((sys.argv[1], 7000), family=socket.AF_INET6 if ':' in sys.argv[1] else 2)\n"
        "print('listening', flush=True)\n"
        "connection, digest = listener.accept()[0], hashlib.sha256()\n"
        "while data := connection.recv(1 << 16): digest.update(data)\n"
        "print(digest.hexdigest(), flush=True)\n"
    )
    process = server.host.spawn([sys.executable, "-c", code, address], label="tcp")
    wait_until(lambda: "listening" in process.output, 5, "the server listens")
    data = random.Random(family).randbytes(8 << 20)
    family_number = socket.AF_INET if family == 4 else socket.AF_INET6
    with sockets.open(client.host, family_number, socket.SOCK_STREAM) as connection:
        connection.settimeout(15)
        connection.connect((address, 7000))
        connection.sendall(data)
    process.wait(15)
    assert process.output.split()[-1] == hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- malformed


def ipv4(source: str, destination: str, *, first: int = 0x45, length: int | None = None, checksum: int = 0) -> bytes:
    """Return an IPv4 packet with 8 bytes of payload; `checksum` is added to the correct checksum."""
    size = 28 if length is None else length
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", first, 0, size, 1, 0, 1, 17, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    correct = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack("!H", (correct + checksum) & 0xFFFF) + head[12:] + bytes(8)


def ipv6(source: str, destination: str, *, length: int = 8) -> bytes:
    """Return an IPv6 packet with 8 bytes of UDP."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", 6 << 28, length, 17, 1) + addresses + bytes(8)


MALFORMED = {
    "truncated": ipv4("10.77.0.1", "239.1.1.1")[:12],
    "ip_version": ipv4("10.77.0.1", "239.1.1.1", first=0x55),
    "ip_header": ipv4("10.77.0.1", "239.1.1.1", first=0x44),
    "ip_length": ipv4("10.77.0.1", "239.1.1.1", length=99),
    "ip_checksum": ipv4("10.77.0.1", "239.1.1.1", checksum=1),
    "ip_source": ipv4("239.9.9.9", "239.1.1.1"),
    "not_overlay": ipv4("10.77.0.1", "10.77.99.99"),
    "no_member": ipv4("10.77.0.1", "239.82.99.99"),
    "node_scope": ipv6("fd77::1", "ff01::1234"),
}


def test_malformed_packets_are_counted_by_reason(network: Network, sockets: Sockets) -> None:
    """Goal: a malformed packet from the interface increments the drop counter of its reason.
    Method: packets with one fault each are sent 50 times on the interface.  The counter of the fault grows by 50, no
    packet reaches another host, and the workers are the same as before."""
    node, other = network.instances[:2]
    workers = {row["pid"] for row in node.show("workers")}
    raw = sockets.sniffer(node.host, "mcast0")
    sniffer = sockets.sniffer(other.host, "mcast0")
    for reason, packet in MALFORMED.items():
        before = node.show("counters")["drops"][reason]
        for _ in range(50):
            raw.send(packet)

        def are_counted(reason: str = reason, expected: int = before + 50) -> bool:
            return bool(node.show("counters")["drops"][reason] >= expected)

        wait_until(are_counted, 2, f"50 packets are counted as {reason}: {node.show('counters')['drops']}")
    assert read_packets(sniffer, 0.3, lambda packet: packet in MALFORMED.values()) == []
    assert {row["pid"] for row in node.show("workers")} == workers
