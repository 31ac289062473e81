"""What a member of the overlay that misbehaves, or a program on its host, can do to the others."""

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
    """The flags of an instance with that configuration."""
    path: Path = lab.dir / "security.toml"
    path.write_text(text)
    return ("--config", str(path))


def udp_v4(source: str, group: str, payload: bytes) -> bytes:
    """A packet as a program with a raw socket may write it; the kernel fills in lengths and checksum."""
    udp = struct.pack("!HHHH", 4000, PORT, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton(source) + socket.inet_aton(group)
    return struct.pack("!BBHHHBBH", 0x45, 0, 0, 1, 0, 1, socket.IPPROTO_UDP, 0) + addresses + udp


def send_from(sockets: Sockets, sender: Instance, source: str, group: str, payload: bytes) -> None:
    raw = sockets.open(sender.host, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    index = sockets.index(sender.host, "mcast0")
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
    raw.sendto(udp_v4(source, group, payload), (group, 0))


def test_spoofed_source_is_dropped_by_the_sender(network: Network, sockets: Sockets) -> None:
    """Goal: a program cannot send in the name of another node.
    Method: a raw socket sends with its own address, which arrives, and with others', which are counted and do not."""
    source, member, other = network.instances[:3]
    group = fresh_group()
    listener = sockets.member(member.host, group, PORT)
    wait_route(source, group, [member])
    before = drops(source).get("foreign_source", 0)
    send_from(sockets, source, source.ip4, group, b"mine")
    send_from(sockets, source, other.ip4, group, b"spoofed")
    send_from(sockets, source, "192.0.2.1", group, b"nobody's")
    assert [each.payload for each in read_datagrams(listener, 3, 0.5)] == [b"mine"]
    assert drops(source)["foreign_source"] - before == 2


def test_spoofed_source_is_dropped_by_the_receiver(make_network: MakeNetwork, sockets: Sockets) -> None:
    """Goal: a member that lets spoofed packets out gains nothing: every other node drops them.
    Method: one node runs with allow_foreign_sources and sends as in the test above; a receiver that does so gets all
    (that is what routed islands want), one without it gets what is the node's own."""
    network = make_network(3)
    flags = configured(network.lab, "[security]\nallow_foreign_sources = true\n")
    for index in (0, 2):
        network.instances[index].stop()
        network.relaunch(index, extra=flags)
    liar, strict, island = network.instances
    island.host.run([require("ip"), "route", "add", "192.0.2.0/24", "dev", "mcast0"])  # else its kernel refuses
    group = fresh_group()
    at_strict, at_island = (sockets.member(each.host, group, PORT) for each in (strict, island))
    wait_route(liar, group, [strict, island])
    send_from(sockets, liar, liar.ip4, group, b"mine")
    send_from(sockets, liar, strict.ip4, group, b"spoofed")
    send_from(sockets, liar, "192.0.2.1", group, b"an island's")
    assert {each.payload for each in read_datagrams(at_island, 3)} == {b"mine", b"spoofed", b"an island's"}
    assert [each.payload for each in read_datagrams(at_strict, 3, 0.5)] == [b"mine"]
    assert drops(strict)["foreign_source"] == 2


def test_link_local_sources_pass(network: Network, sockets: Sockets) -> None:
    """Goal: IPv6 link scope goes on working: its sources are link-local addresses, which belong to no record.
    Method: a datagram to ff02::… and one to a wider group, from the interface's link-local address."""
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
    """Goal: the lists of [groups] keep a host from sending to, joining and hearing groups, link scope included.
    Method: two nodes with a list, one without; each combination is sent once and counted."""
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
    assert drops(listed)["group_denied"] == 3  # two sent, one of link scope heard


@pytest.mark.parametrize("where", ["send_pps", "receive_pps", "peer_pps"])
def test_rates_are_kept(make_network: MakeNetwork, where: str, measured: Callable[..., None]) -> None:
    """Goal: nobody floods a group or a peer beyond the configured rate, and what is below passes whole.
    Method: a limit of 2,000 datagrams a second; a stream of half of it is complete, one of ten times as much is cut to
    the rate and a second's burst, and the rest is counted."""
    section = "security" if where == "peer_pps" else "groups"
    network = make_network(2)
    index = 0 if where == "send_pps" else 1
    network.instances[index].stop()
    network.relaunch(index, extra=configured(network.lab, f"[{section}]\n{where} = 2000\n"))
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
    found = receiver.stop().stream()["received"]
    reason = "peer_rate" if where == "peer_pps" else "group_rate"
    dropped = drops(network.instances[index])[reason]
    measured(received=found, dropped=dropped)
    assert 3500 < found < 2000 * 2 + 2000 + 1500
    assert found + dropped == sent


def test_own_groups_pass_while_another_floods(make_network: MakeNetwork) -> None:
    """Goal: a flooded group does not take another group's rate.  Method: both under receive_pps, one within it."""
    network = make_network(2)
    network.instances[1].stop()
    network.relaunch(1, extra=configured(network.lab, "[groups]\nreceive_pps = 2000\n"))
    source, member = network.instances
    flooded, quiet = fresh_group(), fresh_group()
    loud, calm = Receiver(member.host, flooded), Receiver(member.host, quiet)
    for group in (flooded, quiet):
        wait_route(source, group, [member])
    flood = Sender(source.host, flooded, pps=20_000, size=1200, count=40_000)
    sent = Sender(source.host, quiet, pps=500, size=1200, count=1000).sent()
    calm.account().assert_perfect(sent)
    flood.sent()
    assert loud.stop().stream()["received"] < 8000
    wait_until(network.is_healthy, 3.0, "the links are up")
