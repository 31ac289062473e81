"""Memberships of the Linux kernel as host, in every version of IGMP and MLD that it can speak.

Goal: the node and the kernel agree about the members.  Method: sockets of programs join, leave, block and unblock.
Their requests are compared with `show groups` of the node, and with `show groups` and `show routes` of another node.
The tests look for traffic on the underlay that no member has requested.  Timers are short (segment.FAST), so that a
state that no message ends expires within seconds."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from pipeline.lab.instance import Instance
from pipeline.lab.netns import Host
from pipeline.lab.programs import require, wait_until
from tests.netns.network import INTERFACE, Network, fresh_group, fresh_group6, wait_route
from tests.netns.segment import FAST, GROUP_MEMBERSHIP_S, Segment, membership_flags
from tests.netns.sockets import Sockets, family_of, read_datagrams
from tests.netns.traffic import Receiver, Sender

MCAST_BLOCK_SOURCE, MCAST_UNBLOCK_SOURCE, MCAST_LEAVE_SOURCE_GROUP = 43, 44, 47
PORT = 5040
VERSIONS = ["IGMPv1", "IGMPv2", "IGMPv3", "MLDv1", "MLDv2"]
SOURCES = {4: ("10.77.0.2", "10.77.40.1", "10.77.40.2"), 6: ("fd77::2", "fd77::40:1", "fd77::40:2")}


@pytest.fixture(scope="module")
def fast_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    path = tmp_path_factory.mktemp("membership") / "fast.toml"
    with Network(3, workers=2, sealed=False, extra=membership_flags(path, **FAST)) as network:
        yield network


@pytest.fixture(params=VERSIONS)
def version(fast_network: Network, request: pytest.FixtureRequest) -> Iterator[str]:
    """Protocol version that the kernel of the first host is restricted to."""
    setting, number = version_sysctl(request.param)
    fast_network.hosts[0].sysctl(setting, number)
    yield request.param
    fast_network.hosts[0].sysctl(setting, 0)


@pytest.fixture
def segment(fast_network: Network, sockets: Sockets) -> Segment:
    return Segment(sockets, fast_network.instances[0])


def version_sysctl(version: str) -> tuple[str, int]:
    """Return the sysctl, and its value, that restricts the kernel to this version."""
    if version.startswith("IGMP"):
        return f"net.ipv4.conf.{INTERFACE}.force_igmp_version", int(version[-1])
    return f"net.ipv6.conf.{INTERFACE}.force_mld_version", int(version[-1])


def new_group(family: int) -> str:
    return fresh_group() if family == 4 else fresh_group6()


def set_source(sock: socket.socket, host: Host, sockets: Sockets, option: int, group: str, source: str) -> None:
    """Set MCAST_BLOCK_SOURCE or a related option, which takes a struct group_source_req."""
    request = struct.pack("=I4x", sockets.index(host, INTERFACE))
    for address in (group, source):
        family = family_of(address)
        packed = socket.inet_pton(family, address)
        form, fields = ("=HH4s", (packed,)) if family == socket.AF_INET else ("=HHI16sI", (0, packed, 0))
        request += struct.pack(form, family, 0, *fields).ljust(128, b"\0")
    sock.setsockopt(socket.IPPROTO_IPV6 if ":" in group else socket.IPPROTO_IP, option, request)


def member_names(instance: Instance, group: str) -> list[str]:
    return next((row["members"] for row in instance.show("groups") if row["group"] == group), [])


def sources_routed(instance: Instance, group: str) -> set[str | None]:
    """Return the sources of the instance's own forwarding entries of the group with a next hop; None is any source."""
    rows = instance.show("routes")
    return {row["source"] for row in rows if (row["side"], row["group"]) == ("host", group) and row["next_hops"]}


def test_membership_lasts_until_last_socket_leaves(
    fast_network: Network, segment: Segment, sockets: Sockets, version: str
) -> None:
    """Goal: a group ends after its last member has left: after the Last Member Query Time, or after the Group
    Membership Interval with IGMPv1, which has no leave message.
    Method: two programs join; one leaves, which causes no query; then the other one leaves."""
    member, source = fast_network.instances[:2]
    group = new_group(4 if version.startswith("IGMP") else 6)
    first, second = (sockets.member(member.host, group, PORT) for _ in range(2))
    segment.wait(group, lambda row: row is not None and row["compatibility"] == version, f"speaks {version}")
    segment.wait_filter(group, "EXCLUDE")
    wait_until(lambda: member_names(source, group) == [member.name], 2, "the other node has learned of it")
    sockets.sender(source.host, group).sendto(b"for both", (group, PORT))
    assert [len(read_datagrams(each, 1)) for each in (first, second)] == [1, 1]
    first.close()
    segment.discard()
    assert segment.specific_queries(0.6, group) == []
    segment.wait_filter(group, "EXCLUDE")
    second.close()
    gone_s = segment.wait_gone(group, GROUP_MEMBERSHIP_S + 1)
    assert (gone_s > 2) is (version == "IGMPv1"), gone_s
    wait_until(lambda: member_names(source, group) == [], 2, "the other node has learned of it")


@pytest.mark.parametrize("family", [4, 6])
def test_include_sources_follow_socket_options(
    fast_network: Network, segment: Segment, sockets: Sockets, family: int
) -> None:
    """Goal: in INCLUDE mode a group has the sources of its sockets, and (S,G) entries of the other node follow.
    Method: sources are added and removed one by one, the last ones by closing their sockets."""
    member, source = fast_network.instances[:2]
    own, one, two = SOURCES[family]
    group = f"232.81.40.{family}" if family == 4 else "ff3e::8140:6"
    sock = sockets.member(member.host, group, PORT, source=one)
    segment.wait_filter(group, "INCLUDE", one)
    sockets.join(sock, member.host, group, own)
    segment.wait_filter(group, "INCLUDE", own, one)
    wait_until(lambda: own in sources_routed(source, group), 2, "the source's node has an (S,G) entry")
    sender = sockets.sender(source.host, group)
    sender.sendto(b"wanted", (group, PORT))
    assert [each.payload for each in read_datagrams(sock, 1)] == [b"wanted"]
    set_source(sock, member.host, sockets, MCAST_LEAVE_SOURCE_GROUP, group, own)
    segment.wait_filter(group, "INCLUDE", one)
    wait_until(lambda: own not in sources_routed(source, group), 2, "(S,G) is gone")
    other = sockets.member(member.host, group, PORT + 1, source=two)
    segment.wait_filter(group, "INCLUDE", one, two)
    sock.close()
    segment.wait_filter(group, "INCLUDE", two)
    other.close()
    segment.wait_gone(group)
    wait_until(lambda: member_names(source, group) == [], 2, "the other node has learned of it")


@pytest.mark.parametrize("family", [4, 6])
def test_exclude_sources_follow_socket_options(
    fast_network: Network, segment: Segment, sockets: Sockets, family: int
) -> None:
    """Goal: in EXCLUDE mode the sources of a group are those that every socket blocks.
    Method: a program blocks and unblocks sources, and a second one joins without blocking any; then a program with
    one source and one with all sources join and leave."""
    member = fast_network.instances[0]
    own, one, two = SOURCES[family]
    group = new_group(family)
    sock = sockets.member(member.host, group, PORT)
    for blocked in (one, two):
        set_source(sock, member.host, sockets, MCAST_BLOCK_SOURCE, group, blocked)
    segment.wait_filter(group, "EXCLUDE", one, two)
    set_source(sock, member.host, sockets, MCAST_UNBLOCK_SOURCE, group, one)
    segment.wait_filter(group, "EXCLUDE", two)
    other = sockets.member(member.host, group, PORT + 1)
    segment.wait_filter(group, "EXCLUDE")
    other.close()
    segment.wait_filter(group, "EXCLUDE", two)
    sock.close()
    segment.wait_gone(group)
    only = sockets.member(member.host, group, PORT, source=own)
    segment.wait_filter(group, "INCLUDE", own)
    everything = sockets.member(member.host, group, PORT + 1)
    segment.wait_filter(group, "EXCLUDE")
    everything.close()
    segment.wait_filter(group, "INCLUDE", own)
    only.close()
    segment.wait_gone(group)


@pytest.mark.parametrize("family", [4, 6])
def test_silent_kernel_expires_and_returns_at_next_query(
    fast_network: Network, segment: Segment, sockets: Sockets, family: int
) -> None:
    """Goal: membership is soft state.
    Method: the host's firewall drops its reports, later it passes them again.  The group expires after the Group
    Membership Interval and returns at the next general query."""
    member = fast_network.instances[0]
    group = new_group(family)
    sockets.member(member.host, group, PORT)
    segment.wait_filter(group, "EXCLUDE")
    rules = "ip protocol igmp drop; icmpv6 type { 131, 132, 143 } drop"
    table = f"table inet mute {{\n chain out {{\n type filter hook output priority 0\n {rules}\n }}\n }}\n"
    nft = require("nft")
    member.host.run([nft, "-f", "-"], stdin=table)
    try:
        assert 2 < segment.wait_gone(group, GROUP_MEMBERSHIP_S + 1) < GROUP_MEMBERSHIP_S + 0.5
    finally:
        member.host.run([nft, "delete", "table", "inet", "mute"])
    segment.wait(group, lambda row: row is not None, "is back", FAST["query_interval_s"] + 1.0)


@pytest.mark.parametrize("family", [4, 6])
def test_excluded_source_sends_nothing_to_the_member(fast_network: Network, family: int) -> None:
    """Goal: packets of an excluded source do not leave their host (for INCLUDE mode see test_memberships.py).
    Method: a receiver blocks one of two senders of 10 Mbit/s; the bridge counts bytes from each host to the member."""
    member, blocked, other = fast_network.instances
    group = new_group(family)
    address = {4: (blocked.ip4, other.ip4), 6: (blocked.ip6, other.ip6)}[family]
    receiver = Receiver(member.host, group, blocked=[address[0]])
    wait_route(other, group, [member])
    wait_until(lambda: has_source(member, group, address[0]), 2, "the node knows the excluded source")
    before = fast_network.lab.pair_bytes()
    stray = Sender(blocked.host, group, stream=2, mbit=10, seconds=1)
    sent = Sender(other.host, group, stream=1, mbit=10, seconds=1).sent()
    stray.sent()
    after = fast_network.lab.pair_bytes()
    account = receiver.account()
    account.assert_perfect(sent)
    assert account.stream(2)["received"] == 0
    pair = (blocked.host.index, member.host.index)
    assert after[pair] - before[pair] < 20_000  # heartbeats and probes
    pair = (other.host.index, member.host.index)
    assert after[pair] - before[pair] > 1_000_000


def has_source(instance: Instance, group: str, source: str) -> bool:
    return any(row["group"] == group and source in row["sources"] for row in instance.show("groups"))


def test_kernel_answers_general_queries(fast_network: Network, segment: Segment, sockets: Sockets) -> None:
    """Goal: the kernel accepts the node as querier and answers its general queries.
    Method: one group of each family for two Query Intervals.  Reports within each Query Response Interval keep the
    group timer high."""
    member = fast_network.instances[0]
    group, six = fresh_group(), fresh_group6()
    for each in (group, six):
        sockets.member(member.host, each, PORT)
        segment.wait_filter(each, "EXCLUDE")
    lowest = GROUP_MEMBERSHIP_S
    for _ in range(2):
        segment.queries(FAST["query_interval_s"] + 0.5, 4, 1)
        for each in (group, six):
            row = segment.row(each)
            assert row is not None
            lowest = min(lowest, row["expires_s"])
    assert lowest > GROUP_MEMBERSHIP_S - FAST["query_interval_s"] - FAST["query_response_interval_s"] - 0.5
