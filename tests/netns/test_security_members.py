"""Limits for members of the overlay and for programs on their hosts: sources, groups and rates."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.lab.instance import Instance
from pipeline.lab.netns import Lab
from pipeline.lab.programs import require, wait_until
from tests.netns.network import Network, drops, fresh_group, fresh_group6, wait_route
from tests.netns.sockets import Sockets, read_datagrams
from tests.netns.traffic import Receiver, Sender

MakeNetwork = Callable[..., Network]
PORT = 5040


def configured(lab: Lab, text: str) -> Sequence[str]:
    """Write a configuration file; return the flags of `launch` for it."""
    path: Path = lab.dir / "security.toml"
    path.write_text(text)
    return ("--config", str(path))


def udp_v4(source: str, group: str, payload: bytes) -> bytes:
    """Return a packet for a raw socket; the kernel fills in lengths and checksum."""
    udp = struct.pack("!HHHH", 4000, PORT, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton(source) + socket.inet_aton(group)
    return struct.pack("!BBHHHBBH", 0x45, 0, 0, 1, 0, 1, socket.IPPROTO_UDP, 0) + addresses + udp


def send_from(sockets: Sockets, sender: Instance, source: str, group: str, payload: bytes) -> None:
    raw = sockets.open(sender.host, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    index = sockets.index(sender.host, "mcast0")
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
    raw.sendto(udp_v4(source, group, payload), (group, 0))


def test_spoofed_source_is_dropped_by_the_sender(network: Network, sockets: Sockets) -> None:
    """Goal: a program cannot send with the source address of another node.
    Method: a raw socket sends from its own address, which arrives, and from two others, which are counted as drops."""
    source, member, other = network.instances[:3]
    group = fresh_group()
    listener = sockets.member(member.host, group, PORT)
    wait_route(source, group, [member])
    before = drops(source).get("foreign_source", 0)
    send_from(sockets, source, source.ip4, group, b"own")
    send_from(sockets, source, other.ip4, group, b"spoofed")
    send_from(sockets, source, "192.0.2.1", group, b"foreign")
    assert [each.payload for each in read_datagrams(listener, 3, 0.5)] == [b"own"]
    assert drops(source)["foreign_source"] - before == 2


def test_spoofed_source_is_dropped_by_the_receiver(make_network: MakeNetwork, sockets: Sockets) -> None:
    """Goal: every receiver drops packets with a source that is no address of their origin.
    Method: one node runs with `allow_foreign_sources` and sends as in the test above.  A receiver with the same
    setting, which is meant for routed islands, gets all packets; one without it gets only those from the node's own
    address."""
    network = make_network(3)
    flags = configured(network.lab, "[security]\nallow_foreign_sources = true\n")
    for index in (0, 2):
        network.instances[index].stop()
        network.relaunch(index, extra=flags)
    spoofer, strict, island = network.instances
    island.host.run([require("ip"), "route", "add", "192.0.2.0/24", "dev", "mcast0"])  # else its kernel drops them
    group = fresh_group()
    at_strict, at_island = (sockets.member(each.host, group, PORT) for each in (strict, island))
    wait_route(spoofer, group, [strict, island])
    send_from(sockets, spoofer, spoofer.ip4, group, b"own")
    send_from(sockets, spoofer, strict.ip4, group, b"spoofed")
    send_from(sockets, spoofer, "192.0.2.1", group, b"foreign")
    assert {each.payload for each in read_datagrams(at_island, 3)} == {b"own", b"spoofed", b"foreign"}
    assert [each.payload for each in read_datagrams(at_strict, 3, 0.5)] == [b"own"]
    assert drops(strict)["foreign_source"] == 2


def test_link_local_sources_pass(network: Network, sockets: Sockets) -> None:
    """Goal: packets from link-local IPv6 addresses pass, although no directory record lists these addresses.
    Method: a datagram to ff02::… and one to a group of wider scope, from the interface's link-local address."""
    source, member = network.instances[:2]
    for group in ("ff02::8181", fresh_group6()):
        listener = sockets.open(member.host, socket.AF_INET6, socket.SOCK_DGRAM)
        membership = socket.inet_pton(socket.AF_INET6, group) + struct.pack("=i", sockets.index(member.host, "mcast0"))
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
        listener.bind(("::", 0))
        if not group.startswith("ff02"):
            wait_route(source, group, [member])
        sender = sockets.sender(source.host, group)
        shown = source.host.run([require("ip"), "-6", "-o", "addr", "show", "dev", "mcast0", "scope", "link"]).stdout
        address = shown.split()[3].partition("/")[0]
        sender.bind((address, 0, 0, sockets.index(source.host, "mcast0")))
        sender.sendto(b"local", (group, listener.getsockname()[1]))
        listener.settimeout(2)
        assert listener.recv(100) == b"local", group


def test_groups_are_allowed_and_denied(make_network: MakeNetwork, sockets: Sockets) -> None:
    """Goal: the lists of [groups] limit the groups that a host sends to, joins and receives, link scope included.
    Method: one node with lists and one without; each combination is sent once, and drops are counted."""
    lists = 'send_allow = ["239.0.0.0/8"]\nsend_deny = ["239.9.0.0/16"]\n'
    lists += 'receive_deny = ["239.8.0.0/16", "224.0.0.200/32"]\n'
    network = make_network(2)
    free, listed = network.instances
    listed.stop()
    listed = network.relaunch(1, extra=configured(network.lab, "[groups]\n" + lists))
    allowed, no_send, no_receive = "239.7.1.1", "239.9.1.1", "239.8.1.1"
    at_free = {group: sockets.member(free.host, group, PORT) for group in (allowed, no_send, "238.1.1.1")}
    at_listed = {group: sockets.member(listed.host, group, PORT) for group in (allowed, no_receive, "224.0.0.200")}
    wait_route(listed, allowed, [free])
    wait_route(free, allowed, [listed])
    for group in at_free:
        sockets.sender(listed.host, group).sendto(group.encode(), (group, PORT))
    for group in at_listed:
        sockets.sender(free.host, group).sendto(group.encode(), (group, PORT))
    assert [each.payload for each in read_datagrams(at_free[allowed], 1)] == [allowed.encode()]
    assert [each.payload for each in read_datagrams(at_listed[allowed], 1)] == [allowed.encode()]
    for listener in (at_free[no_send], at_free["238.1.1.1"], at_listed[no_receive], at_listed["224.0.0.200"]):
        assert read_datagrams(listener, 1, 0.2) == []
    assert not [row for row in free.show("groups") if row["group"] == no_receive and row["members"]]
    assert drops(listed)["group_denied"] == 3  # two on sending, one of link scope on receipt


@pytest.mark.parametrize("key", ["send_pps", "receive_pps", "peer_pps"])
def test_configured_rate_is_enforced(make_network: MakeNetwork, key: str, measured: Callable[..., None]) -> None:
    """Goal: a stream above the configured rate of a group or peer is reduced to it; one below passes complete.
    Method: a limit of 2,000 datagrams a second.  A stream of half that rate is complete; one of ten times the rate is
    reduced to the rate and one second of burst, and the rest is counted as drops."""
    section = "security" if key == "peer_pps" else "groups"
    network = make_network(2)
    index = 0 if key == "send_pps" else 1
    network.instances[index].stop()
    network.relaunch(index, extra=configured(network.lab, f"[{section}]\n{key} = 2000\n"))
    source, member = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sent = Sender(source.host, group, pps=1000, size=1200, count=1000).sent()
    receiver.account().assert_perfect(sent)
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sent = Sender(source.host, group, pps=20_000, size=1200, count=40_000).sent()
    received = receiver.stop().stream()["received"]
    reason = "peer_rate" if key == "peer_pps" else "group_rate"
    dropped = drops(network.instances[index])[reason]
    measured(received=received, dropped=dropped)
    assert 3500 < received < 2000 * 2 + 2000 + 1500
    assert received + dropped == sent


def test_flooded_group_takes_no_rate_of_other_groups(make_network: MakeNetwork) -> None:
    """Goal: a group has its own rate, which a flood of another group does not use up.
    Method: two groups under `receive_pps`; one is flooded, the stream of the other one is complete."""
    network = make_network(2)
    network.instances[1].stop()
    network.relaunch(1, extra=configured(network.lab, "[groups]\nreceive_pps = 2000\n"))
    source, member = network.instances
    flooded, quiet = fresh_group(), fresh_group()
    flooded_receiver, quiet_receiver = Receiver(member.host, flooded), Receiver(member.host, quiet)
    for group in (flooded, quiet):
        wait_route(source, group, [member])
    flood = Sender(source.host, flooded, pps=20_000, size=1200, count=40_000)
    sent = Sender(source.host, quiet, pps=500, size=1200, count=1000).sent()
    quiet_receiver.account().assert_perfect(sent)
    flood.sent()
    assert flooded_receiver.stop().stream()["received"] < 8000
    wait_until(network.is_healthy, 3.0, "the links are up")
