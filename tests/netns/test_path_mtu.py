"""Goal: nodes work over a path with a smaller MTU than their interfaces, where a firewall drops the ICMP errors that
would report it.

    a u0 ── br0 ── u0 r1 w0 ════════ w0 r2 u0 ── br0 ── u0 b        w0: MTU 1400, all others 1500
    10.98.1.2   10.98.1.1              10.98.2.1   10.98.2.2

Method: two nodes behind two routers; each router drops the ICMP errors that it would send.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.lab.instance import Instance, launch_command, network_key, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require, wait_until
from tests.netns.network import fresh_group, wait_route
from tests.netns.sockets import Sockets
from tests.netns.traffic import Receiver, Sender

PACKETS = 100
GROUPS = 400
"""The message with so many groups fills several TCP segments."""
HEADERS_V4 = 20 + 8
"""IPv4 and UDP headers of an inner packet."""
NODE = """
    addr flush dev u0
    addr add 10.98.{side}.2/24 dev u0
    addr add fd98:{side}::2/64 dev u0 nodad
    route add 10.98.0.0/16 via 10.98.{side}.1
    route add fd98::/16 via fd98:{side}::1
"""
ROUTER = """
    addr flush dev u0
    addr add 10.98.{side}.1/24 dev u0
    addr add fd98:{side}::1/64 dev u0 nodad
    addr add 10.97.0.{side}/24 dev w0
    addr add fd97::{side}/64 dev w0 nodad
    link set w0 up
    route add 10.98.{other}.0/24 via 10.97.0.{other}
    route add fd98:{other}::/64 via fd97::{other}
"""
FIREWALL = """
    table inet filter {
      chain output {
        type filter hook output priority 0
        icmp type destination-unreachable icmp code frag-needed drop
        icmpv6 type packet-too-big drop
      }
    }
"""


def run_ip(host: Host, commands: str) -> None:
    host.run([require("ip"), "-batch", "-"], stdin=commands)


@pytest.fixture
def narrow_lab(make_lab: Callable[..., Lab]) -> Lab:
    """Return a lab whose hosts 0 and 3 reach each other through hosts 1 and 2 only."""
    lab = make_lab(4, offloads=False)
    a, r1, r2, b = lab.hosts
    run_ip(r1, f"link add w0 mtu 1400 type veth peer name w0 mtu 1400 netns {r2.netns}")
    for side, other, node, router in ((1, 2, a, r1), (2, 1, b, r2)):
        run_ip(node, NODE.format(side=side))
        run_ip(router, ROUTER.format(side=side, other=other))
        router.sysctl("net.ipv4.ip_forward", 1)
        router.sysctl("net.ipv6.conf.all.forwarding", 1)
        router.run([require("nft"), "-f", "-"], stdin=FIREWALL)
    return lab


def launch_pair(lab: Lab, listen: str, address: str, *extra: str) -> tuple[Instance, Instance]:
    """Launch the nodes a and b; `listen` and `address` are texts in which {side} stands for the node's side."""
    instances = []
    for side, host in ((1, lab.hosts[0]), (2, lab.hosts[3])):
        flags = ("--listen", listen.format(side=side), "--peer", address.format(side=3 - side), *extra)
        instances.append(Instance(host, launch_command(host, key=network_key(lab), extra=flags)))
    a, b = instances
    for instance in (a, b):
        instance.wait_ready()
    wait_linked([a, b])
    return a, b


@pytest.mark.parametrize(
    ("listen", "address", "mtu"),
    [
        ("10.98.{side}.2:4747", "10.98.{side}.2:4747", "auto"),
        ("[::]:4747", "10.98.{side}.2:4747", "auto"),
        ("[fd98:{side}::2]:4747", "[fd98:{side}::2]:4747", "1280"),
    ],
    ids=["IPv4", "IPv4 by a socket on [::]", "IPv6"],
)
def test_narrow_path_carries_full_packets_and_all_groups(
    narrow_lab: Lab, sockets: Sockets, monkeypatch: pytest.MonkeyPatch, listen: str, address: str, mtu: str
) -> None:
    """Goal: packets as large as the TUN's MTU arrive, and a learns all groups of b.
    Method: b joins 400 groups at once, then a sends 100 full packets.  Over IPv6 no router fragments, so the TUN has an
    MTU with which a datagram fits the path."""
    monkeypatch.setenv("MCAST_PIPELINE_TUN_MTU", mtu)
    a, b = launch_pair(narrow_lab, listen, address)
    b.host.sysctl("net.ipv4.igmp_max_memberships", 10000)
    groups = [fresh_group() for _ in range(GROUPS)]
    member = sockets.member(b.host, groups[0], 5000)
    for group in groups[1:]:
        sockets.join(member, b.host, group)
    wait_until(lambda: set(groups) <= groups_with_member(a, b), 5.0, "a has learnt the groups of b")
    receiver = Receiver(b.host, group := fresh_group())
    wait_route(a, group, [b])
    size = a.request("status")["mtu"] - HEADERS_V4
    sent = Sender(a.host, group, size=size, pps=500, count=PACKETS).sent()
    receiver.account().assert_perfect(sent)


def groups_with_member(instance: Instance, member: Instance) -> set[str]:
    return {row["group"] for row in instance.show("groups") if member.name in row["members"]}
