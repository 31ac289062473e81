"""Goal: the Linux kernel as host, in every version it can be told to speak, agrees with the node about who is a member.

Method: sockets of programs join, leave, block and unblock; `show groups` of their node and `show groups` and
`show routes` of another one are compared with what they asked for, and bytes on the underlay with what they did not.
Times are short ones (membership.FAST), so that what no message ends is ended by timers within seconds."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from pipeline.lab.instance import Instance
from pipeline.lab.netns import Host
from pipeline.lab.programs import require, wait_until
from tests.netns.membership import FAST, GMI_S, Segment, membership_file
from tests.netns.network import INTERFACE, Network, fresh_group, fresh_group6, wait_route
from tests.netns.sockets import Sockets, family_of, read_datagrams
from tests.netns.traffic import Receiver, Sender

MCAST_BLOCK_SOURCE, MCAST_UNBLOCK_SOURCE, MCAST_LEAVE_SOURCE_GROUP = 43, 44, 47
PORT = 5040
VERSIONS = ["IGMPv1", "IGMPv2", "IGMPv3", "MLDv1", "MLDv2"]
SOURCES = {4: ("10.77.0.2", "10.77.40.1", "10.77.40.2"), 6: ("fd77::2", "fd77::40:1", "fd77::40:2")}


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    path = tmp_path_factory.mktemp("membership") / "fast.toml"
    with Network(3, workers=2, sealed=False, extra=membership_file(path, **FAST)) as network:
        yield network


@pytest.fixture(params=VERSIONS)
def version(fast: Network, request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernel of the first host speaks that version only."""
    setting, number = force(request.param)
    fast.hosts[0].sysctl(setting, number)
    yield request.param
    fast.hosts[0].sysctl(setting, 0)


@pytest.fixture
def link(fast: Network, sockets: Sockets) -> Segment:
    return Segment(sockets, fast.instances[0])


def force(version: str) -> tuple[str, int]:
    if version.startswith("IGMP"):
        return f"net.ipv4.conf.{INTERFACE}.force_igmp_version", int(version[-1])
    return f"net.ipv6.conf.{INTERFACE}.force_mld_version", int(version[-1])


def fresh(family: int) -> str:
    return fresh_group() if family == 4 else fresh_group6()


def set_source(sock: socket.socket, host: Host, sockets: Sockets, option: int, group: str, source: str) -> None:
    """MCAST_BLOCK_SOURCE and its relatives: a struct group_source_req."""
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
    """The sources of the instance's own entries of that group that lead anywhere; None is any source."""
    rows = instance.show("routes")
    return {row["source"] for row in rows if (row["side"], row["group"]) == ("host", group) and row["next_hops"]}


def test_join_and_leave_of_several_sockets(fast: Network, link: Segment, sockets: Sockets, version: str) -> None:
    """Two programs join, one leaves: still a member.  The other leaves: gone after the Last Member Query Time, or,
    as IGMPv1 knows no leave, after the Group Membership Interval."""
    member, source = fast.instances[:2]
    group = fresh(4 if version.startswith("IGMP") else 6)
    first, second = (sockets.member(member.host, group, PORT) for _ in range(2))
    link.wait(group, lambda row: row is not None and row["compatibility"] == version, f"speaks {version}")
    link.wait_filter(group, "EXCLUDE")
    wait_until(lambda: member_names(source, group) == [member.name], 2, "the other node knows")
    sockets.sender(source.host, group).sendto(b"for both", (group, PORT))
    assert [len(read_datagrams(each, 1)) for each in (first, second)] == [1, 1]
    first.close()
    link.forget()
    assert link.specific(0.6, group) == []
    link.wait_filter(group, "EXCLUDE")
    second.close()
    gone_s = link.wait_gone(group, GMI_S + 1)
    assert (gone_s > 2) is (version == "IGMPv1"), gone_s
    wait_until(lambda: member_names(source, group) == [], 2, "the other node knows")


@pytest.mark.parametrize("family", [4, 6])
def test_source_specific_joins(fast: Network, link: Segment, sockets: Sockets, family: int) -> None:
    """INCLUDE: sources are added and dropped one by one; the other node's (S,G) appear and go with them."""
    member, source = fast.instances[:2]
    own, one, two = SOURCES[family]
    group = f"232.81.40.{family}" if family == 4 else "ff3e::8140:6"
    sock = sockets.member(member.host, group, PORT, source=one)
    link.wait_filter(group, "INCLUDE", one)
    sockets.join(sock, member.host, group, own)
    link.wait_filter(group, "INCLUDE", own, one)
    wait_until(lambda: own in sources_routed(source, group), 2, "(S,G) of the source's own node")
    sender = sockets.sender(source.host, group)
    sender.sendto(b"wanted", (group, PORT))
    assert [each.payload for each in read_datagrams(sock, 1)] == [b"wanted"]
    set_source(sock, member.host, sockets, MCAST_LEAVE_SOURCE_GROUP, group, own)
    link.wait_filter(group, "INCLUDE", one)
    wait_until(lambda: own not in sources_routed(source, group), 2, "(S,G) is gone")
    other = sockets.member(member.host, group, PORT + 1, source=two)
    link.wait_filter(group, "INCLUDE", one, two)
    sock.close()
    link.wait_filter(group, "INCLUDE", two)
    other.close()
    link.wait_gone(group)
    wait_until(lambda: member_names(source, group) == [], 2, "the other node knows")


@pytest.mark.parametrize("family", [4, 6])
def test_blocked_sources(fast: Network, link: Segment, sockets: Sockets, family: int) -> None:
    """EXCLUDE: a program blocks sources, unblocks them, and a second one that blocks nothing outweighs it."""
    member = fast.instances[0]
    own, one, two = SOURCES[family]
    group = fresh(family)
    sock = sockets.member(member.host, group, PORT)
    for blocked in (one, two):
        set_source(sock, member.host, sockets, MCAST_BLOCK_SOURCE, group, blocked)
    link.wait_filter(group, "EXCLUDE", one, two)
    set_source(sock, member.host, sockets, MCAST_UNBLOCK_SOURCE, group, one)
    link.wait_filter(group, "EXCLUDE", two)
    other = sockets.member(member.host, group, PORT + 1)
    link.wait_filter(group, "EXCLUDE")
    other.close()
    link.wait_filter(group, "EXCLUDE", two)
    sock.close()
    link.wait_gone(group)
    only = sockets.member(member.host, group, PORT, source=own)
    link.wait_filter(group, "INCLUDE", own)
    everything = sockets.member(member.host, group, PORT + 1)
    link.wait_filter(group, "EXCLUDE")
    everything.close()
    link.wait_filter(group, "INCLUDE", own)
    only.close()
    link.wait_gone(group)


@pytest.mark.parametrize("family", [4, 6])
def test_members_that_vanish_without_a_word(fast: Network, link: Segment, sockets: Sockets, family: int) -> None:
    """Goal: soft state.  Method: the host's reports are cut off by its own firewall, then let through again: the
    group goes after the Group Membership Interval and is back with the next general query."""
    member = fast.instances[0]
    group = fresh(family)
    sockets.member(member.host, group, PORT)
    link.wait_filter(group, "EXCLUDE")
    rules = "ip protocol igmp drop; icmpv6 type { 131, 132, 143 } drop"
    table = f"table inet mute {{\n chain out {{\n type filter hook output priority 0\n {rules}\n }}\n }}\n"
    nft = require("nft")
    member.host.run([nft, "-f", "-"], stdin=table)
    try:
        assert 2 < link.wait_gone(group, GMI_S + 1) < GMI_S + 0.5
    finally:
        member.host.run([nft, "delete", "table", "inet", "mute"])
    link.wait(group, lambda row: row is not None, "is back", FAST["query_interval_s"] + 1.0)


@pytest.mark.parametrize("family", [4, 6])
def test_an_excluded_source_never_leaves_its_host(fast: Network, family: int) -> None:
    """Goal: issue, item 4, in EXCLUDE mode, where test_memberships.py does it in INCLUDE mode.
    Method: one receiver blocks one of two senders of 10 Mbit/s; bytes from each host to the member on the bridge."""
    member, blocked, other = fast.instances
    group = fresh(family)
    address = {4: (blocked.ip4, other.ip4), 6: (blocked.ip6, other.ip6)}[family]
    receiver = Receiver(member.host, group, blocked=[address[0]])
    wait_route(other, group, [member])
    wait_until(lambda: blocks(member, group, address[0]), 2, "the node knows what is blocked")
    before = fast.lab.pair_bytes()
    stray = Sender(blocked.host, group, stream=2, mbit=10, seconds=1)
    sent = Sender(other.host, group, stream=1, mbit=10, seconds=1).sent()
    stray.sent()
    after = fast.lab.pair_bytes()
    account = receiver.account()
    account.assert_perfect(sent)
    assert account.stream(2)["received"] == 0
    pair = (blocked.host.index, member.host.index)
    assert after[pair] - before[pair] < 20_000  # heartbeats and probes
    pair = (other.host.index, member.host.index)
    assert after[pair] - before[pair] > 1_000_000


def blocks(instance: Instance, group: str, source: str) -> bool:
    return any(row["group"] == group and source in row["sources"] for row in instance.show("groups"))


def test_the_node_as_the_kernel_sees_it(fast: Network, link: Segment, sockets: Sockets) -> None:
    """Goal: the querier is one to the kernel: it answers general queries of its own accord, in the version asked.
    Method: a member repeats itself within the Query Response Interval, so that its timer never falls far."""
    member = fast.instances[0]
    group, six = fresh_group(), fresh_group6()
    for each in (group, six):
        sockets.member(member.host, each, PORT)
        link.wait_filter(each, "EXCLUDE")
    lowest = GMI_S
    for _ in range(2):
        link.queries(FAST["query_interval_s"] + 0.5, 4, 1)
        for each in (group, six):
            row = link.row(each)
            assert row is not None
            lowest = min(lowest, row["expires_s"])
    assert lowest > GMI_S - FAST["query_interval_s"] - FAST["query_response_interval_s"] - 0.5
