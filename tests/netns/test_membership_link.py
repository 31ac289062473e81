"""The node as multicast router of its link, seen by strangers on it: what it asks, when, and what it concludes.

Every host and rival router here is packets on the TUN (membership.py): two hosts behind one TUN, queriers with lower
addresses, nonsense.  Times are those of the configuration FAST; unit tests try every row and formula, these that the
whole daemon holds them on a real interface."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.contrib.igmpv3 import IGMPv3, IGMPv3mq
from scapy.layers.inet import IP
from scapy.layers.inet6 import ICMPv6MLDMultAddrRec, ICMPv6MLQuery2, ICMPv6MLReport2, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

from pipeline.lab.instance import program
from pipeline.lab.programs import wait_until
from tests.netns import membership as wire
from tests.netns.membership import ALLOW, BLOCK, FAST, IS_EX, IS_IN, TO_EX, TO_IN, Segment, igmp3, mld2
from tests.netns.network import Network, fresh_group, fresh_group6
from tests.netns.sockets import Sockets

S1, S2, S3 = "10.77.50.1", "10.77.50.2", "10.77.50.3"
T1, T2 = "fd77::50:1", "fd77::50:2"
QUERIER4, QUERIER6 = "10.77.255.254", "fe80::1:4d43:5351"
OTHER = "10.77.200.2"
Report = Callable[..., Packet]


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    path = tmp_path_factory.mktemp("membership") / "fast.toml"
    with Network(2, workers=2, sealed=False, extra=wire.membership_file(path, **FAST)) as network:
        yield network


@pytest.fixture
def link(fast: Network, sockets: Sockets) -> Segment:
    return Segment(sockets, fast.instances[0])


def fresh(report: Report) -> str:
    return fresh_group() if report is igmp3 else fresh_group6()


both = pytest.mark.parametrize("report", [igmp3, mld2], ids=["igmp", "mld"])


def test_general_queries(link: Segment) -> None:
    """Goal: RFC 9776 §4, §4.1, §6.1, RFC 9777 §5: what hosts accept, every Query Interval.
    Method: two queries of each family as scapy reads them."""
    begin = time.monotonic()
    (first, query), (second, _) = link.queries(6, 4, 2)
    assert 1.9 < second - first < 2.2
    assert (query.src, query.dst, query.ttl, query.tos) == (QUERIER4, "224.0.0.1", 1, 0xC0)
    assert bytes(query)[20:24] == b"\x94\x04\x00\x00"
    message = IGMPv3(bytes(query)[24:])
    body = message[IGMPv3mq]
    assert (message.mrcode, body.gaddr, body.s, body.qrv, body.qqic, body.numsrc) == (5, "0.0.0.0", 0, 2, 2, 0)
    ((_, query),) = link.queries(3, 6, 1)
    assert (query.src, query.dst, query.hlim) == (QUERIER6, "ff02::1", 1)
    assert bytes(query[IPv6ExtHdrHopByHop])[:8] == b"\x3a\x00\x05\x02\x00\x00\x01\x00"
    asked = query[ICMPv6MLQuery2]
    assert (asked.mrd, asked.mladdr, asked.S, asked.QRV, asked.QQIC, asked.sources_number) == (500, "::", 0, 2, 2, 0)
    assert time.monotonic() - begin < 8


def test_members_that_fall_silent(link: Segment) -> None:
    """Goal: RFC 9776 §6.5, §8.4: the group ends the Group Membership Interval after the last report, 5 s here.
    Method: strangers join in both families, one repeats itself after 1.5 s, and nobody answers queries."""
    silent, repeated, six = fresh_group(), fresh_group(), fresh_group6()
    link.send(igmp3((TO_EX, silent, ()), (TO_EX, repeated, ())))
    link.send(mld2((TO_EX, six, ())))
    began = time.monotonic()
    link.wait_filter(six, "EXCLUDE")
    time.sleep(1.5)
    link.send(igmp3((IS_EX, repeated, ())))
    link.wait_gone(silent, 6)
    assert 4.9 < time.monotonic() - began < 5.3
    link.wait_gone(six, 1)
    assert link.row(repeated) is not None
    link.wait_gone(repeated, 6)
    assert 6.4 < time.monotonic() - began < 6.9


@both
def test_leave(link: Segment, report: Report) -> None:
    """Goal: RFC 9776 §6.6.3.1: the last leave is asked about at once and once more, then acted on.
    Method: join, leave; times and fields of the two queries, the end after the Last Member Query Time."""
    group = fresh(report)
    link.send(report((TO_EX, group, ())))
    link.wait_filter(group, "EXCLUDE")
    link.forget()
    link.send(report((TO_IN, group, ())))
    left = time.monotonic()
    (first, query), (second, _) = link.specific(0.5, group)
    gone_s = link.wait_gone(group) + time.monotonic() - left
    assert first - left < 0.1
    assert 0.15 < second - first < 0.3
    assert gone_s < 1.5
    if report is igmp3:
        message = IGMPv3(bytes(query)[24:])
        assert (message.mrcode, message[IGMPv3mq].s, message[IGMPv3mq].numsrc) == (2, 0, 0)
    else:
        assert (query[ICMPv6MLQuery2].mrd, query[ICMPv6MLQuery2].S) == (200, 0)


@both
def test_two_hosts_and_one_leaves(link: Segment, report: Report) -> None:
    """Goal: the other host's answer keeps the group, and the repeated query has the S flag (§6.6.3.1).
    Method: two strangers join, one leaves, the other answers the first query."""
    group, other = fresh(report), OTHER if report is igmp3 else "fe80::c8:2"
    link.send(report((TO_EX, group, ())))
    link.send(report((TO_EX, group, ()), source=other))
    link.wait_filter(group, "EXCLUDE")
    link.forget()
    link.send(report((TO_IN, group, ())))
    link.specific(0.1, group, 1)
    link.send(report((IS_EX, group, ()), source=other))
    ((_, again),) = link.specific(0.4, group)
    seen = IGMPv3(bytes(again)[24:])[IGMPv3mq].s if report is igmp3 else again[ICMPv6MLQuery2].S
    assert seen == 1
    time.sleep(0.3)
    row = link.row(group)
    assert row is not None
    assert row["expires_s"] > 3


@both
def test_sources_come_and_go(link: Segment, report: Report) -> None:
    """Goal: RFC 9776 §6.4.2: INCLUDE, ALLOW, BLOCK; Q(G,S) for what is blocked; the (S,G) of another node follow.
    Method: a source-specific group, three steps, `show groups` here and `show routes` there."""
    group = "232.81.60.1" if report is igmp3 else "ff3e::8160:1"
    one, two = (S1, S2) if report is igmp3 else (T1, T2)
    link.send(report((ALLOW, group, (one,))))
    link.wait_filter(group, "INCLUDE", one)
    link.send(report((ALLOW, group, (two,))))
    link.wait_filter(group, "INCLUDE", one, two)
    link.forget()
    link.send(report((BLOCK, group, (one,))))
    asked = link.specific(0.6, group)
    assert len(asked) == 2
    query = asked[0][1]
    listed = IGMPv3(bytes(query)[24:])[IGMPv3mq].srcaddrs if report is igmp3 else query[ICMPv6MLQuery2].sources
    assert listed == [one]
    link.wait_filter(group, "INCLUDE", two)
    link.send(report((TO_IN, group, ())))
    link.wait_gone(group)


def test_filters_of_two_hosts_are_merged(link: Segment) -> None:
    """Goal: RFC 9776 §6.3: with EXCLUDE (1,2) and EXCLUDE (2,3) nobody wants 2 alone; with INCLUDE (2) added, all.
    Method: three strangers, `sources` and `requested` of `show groups`."""
    group = fresh_group()
    link.send(igmp3((TO_EX, group, (S1, S2))))
    link.wait_filter(group, "EXCLUDE", S1, S2)
    link.send(igmp3((TO_EX, group, (S2, S3)), source=OTHER))
    link.wait_filter(group, "EXCLUDE", S2)
    link.send(igmp3((ALLOW, group, (S2,)), source="10.77.200.3"))
    link.wait_filter(group, "EXCLUDE")
    row = link.row(group)
    assert row is not None
    assert S2 in row["requested"]


@pytest.mark.parametrize(
    ("join", "leave", "word"),
    [
        (lambda group: wire.igmp_old(0x12, group), lambda group: wire.igmp_old(0x17, group), "IGMPv1"),
        (lambda group: wire.igmp_old(0x16, group), lambda group: wire.igmp_old(0x17, group), "IGMPv2"),
        (wire.mld_old, lambda group: wire.mld_old(group, done=True), "MLDv1"),
    ],
    ids=["igmpv1", "igmpv2", "mldv1"],
)
def test_older_hosts(link: Segment, join: Callable[[str], Packet], leave: Callable[[str], Packet], word: str) -> None:
    """Goal: RFC 9776 §7.3.2: reports of older versions join any source and set the mode; in IGMPv1's leaves count for
    nothing, in the others BLOCK and the source list of TO_EX do.  Method: an old join, new records, the old leave."""
    six = word.startswith("MLD")
    report, group, source = (mld2, fresh_group6(), T1) if six else (igmp3, fresh_group(), S1)
    link.send(join(group))
    link.wait(group, lambda row: row is not None and row["compatibility"] == word, f"speaks {word}")
    link.send(report((TO_EX, group, (source,))))
    link.send(report((BLOCK, group, (source,))))
    time.sleep(0.1)
    link.wait_filter(group, "EXCLUDE")
    link.forget()
    link.send(leave(group))
    if word == "IGMPv1":
        assert link.specific(0.6, group) == []
        assert link.row(group) is not None
    else:
        assert len(link.specific(0.6, group)) == 2
        link.wait_gone(group)


def test_an_older_host_is_forgotten(link: Segment) -> None:
    """Goal: RFC 9776 §8.13: Older Host Present Interval, 4.5 s.  Method: one v2 report, v3 reports thereafter."""
    group = fresh_group()
    link.send(wire.igmp_old(0x16, group))
    began = time.monotonic()
    link.wait(group, lambda row: row is not None and row["compatibility"] == "IGMPv2", "speaks IGMPv2")
    time.sleep(2)
    link.send(igmp3((IS_EX, group, ())))
    link.wait(group, lambda row: row is not None and row["compatibility"] == "IGMPv3", "speaks IGMPv3", 4)
    assert 4.4 < time.monotonic() - began < 4.8


@pytest.mark.parametrize("family", [4, 6])
def test_election(link: Segment, family: int) -> None:
    """Goal: RFC 9776 §6.6.2, RFC 9777 §7.6.2: a router with a lower address asks, the node is silent, takes its
    queries to heart, and asks again 4.25 s after it was heard last.
    Method: one general query of the rival; a leave, which only the rival may ask about; its specific query; silence."""
    rival = "10.77.0.200" if family == 4 else "fe80::7"
    query, report, group = (
        (wire.igmp_query, igmp3, fresh_group()) if family == 4 else (wire.mld_query, mld2, fresh_group6())
    )
    link.send(report((TO_EX, group, ())))
    link.wait_filter(group, "EXCLUDE")
    link.send(query(rival))
    heard = time.monotonic()
    time.sleep(0.1)
    link.forget()
    link.send(report((TO_IN, group, ())))
    assert link.queries(1.0, family) == []
    assert link.row(group) is not None
    link.send(query(rival, group=group, code=2) if family == 4 else query(rival, group=group, response_ms=200))
    if family == 6:
        heard = time.monotonic()  # MLD elects on any query
    link.wait_gone(group, 1.0)
    ((when, general),) = link.queries(6, family, 1)
    assert general.src == (QUERIER4 if family == 4 else QUERIER6)
    assert 4.1 < when - heard < 4.6


def test_who_does_not_win(link: Segment) -> None:
    """Goal: neither a higher address nor 0.0.0.0 silences the node.  Method: queries of both, then its own."""
    link.send(wire.igmp_query("10.77.255.255"))
    link.send(wire.igmp_query("0.0.0.0"))
    link.send(wire.mld_query("fe80::ffff:ffff:ffff:ffff"))
    link.forget()
    assert len(link.queries(2.3, 4, 1)) == 1
    assert len(link.queries(2.3, 6, 1)) == 1


@both
def test_configured_fast_leave(
    make_network: Callable[..., Network], sockets: Sockets, tmp_path: Path, report: Report
) -> None:
    """Goal: `fast_leave`: with one host known to listen a leave acts at once; with two it is asked about.
    Method: RFC timers, so that only a fast leave can be fast; one stranger, then two."""
    flags = wire.membership_file(tmp_path / "fast_leave.toml", fast_leave=True)
    link = Segment(sockets, make_network(1, workers=1, sealed=False, extra=flags).instances[0])
    group, other = fresh(report), OTHER if report is igmp3 else "fe80::c8:2"
    link.send(report((TO_EX, group, ())))
    link.wait_filter(group, "EXCLUDE")
    link.forget()
    link.send(report((TO_IN, group, ())))
    assert link.wait_gone(group) < 0.3
    assert link.specific(0.1, group) == []
    for host in ({}, {"source": other}):
        link.send(report((TO_EX, group, ()), **host))
    link.wait_filter(group, "EXCLUDE")
    link.send(report((TO_IN, group, ())))
    assert len(link.specific(0.5, group, 1)) == 1
    assert link.row(group) is not None


def test_configured_versions(make_network: Callable[..., Network], sockets: Sockets, tmp_path: Path) -> None:
    """Goal: RFC 9776 §7.3.1, RFC 9777 §8.3.1: configured for older versions the node sends their queries, and the
    kernel follows.  Method: IGMPv2 and MLDv1 by configuration; length of queries, then what a program's join says."""
    flags = wire.membership_file(tmp_path / "old.toml", **FAST, igmp_version=2, mld_version=1)
    instance = make_network(1, workers=1, sealed=False, extra=flags).instances[0]
    link = Segment(sockets, instance)
    ((_, query),) = link.queries(3, 4, 1)
    assert (len(bytes(query)) - 24, bytes(query)[25]) == (8, 5)
    ((_, query),) = link.queries(3, 6, 1)
    assert len(bytes(query)) - 48 == 24
    for group, word in ((fresh_group(), "IGMPv2"), (fresh_group6(), "MLDv1")):
        member = sockets.member(instance.host, group, 5060)
        link.wait(group, lambda row: row is not None and row["compatibility"] == word, f"speaks {word}")  # noqa: B023
        member.close()
        link.wait_gone(group)


def _sealed_wrong(packet: Packet, layer: type[Packet], field: str) -> Packet:
    setattr(packet[layer], field, 0x1234)
    return packet


def _cut(packet: Packet, octets: int) -> Packet:
    """The same message shorter, with lengths and checksums that fit what is left."""
    whole = IP(bytes(packet))
    body = bytes(whole)[24:-octets]
    return wire.igmp_ip(Raw(_summed(body)), source=whole.src, destination=whole.dst)


def _summed(body: bytes) -> bytes:
    blank = body[:2] + b"\0\0" + body[4:]
    total = sum(int.from_bytes(blank[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(blank), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return blank[:2] + (0xFFFF - total).to_bytes(2, "big") + blank[4:]


def _nonsense(group: str, six: str) -> dict[str, Packet]:
    """Drop reason → a packet that earns it; each would make state if it were taken."""
    join = Raw(bytes(wire.IGMPv3mr(records=[wire.IGMPv3gr(rtype=TO_EX, maddr=group)])))  # or scapy puts the alert in
    mld = ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(rtype=TO_EX, dst=six)])
    host, routers = {"source": OTHER, "destination": "224.0.0.22"}, {"destination": "ff02::16"}
    lying = bytes(join)[:6] + b"\x00\x02" + bytes(join)[8:]
    return {
        "igmp_checksum": _sealed_wrong(igmp3((TO_EX, group, ())), wire.IGMPv3mr, "chksum"),
        "igmp_truncated": wire.igmp_ip(Raw(_summed(lying)), **host),
        "igmp_query_length": _cut(wire.igmp_query(OTHER), 2),
        "igmp_ttl": wire.igmp_ip(join, **host, ttl=2),
        "igmp_router_alert": wire.igmp_ip(join, **host, alert=False),
        "igmp_source": igmp3((TO_EX, group, ()), source="239.1.1.1"),
        "mld_hop_limit": wire.mld_ip(mld, source="fe80::c8:1", **routers, hop_limit=2),
        "mld_source": mld2((TO_EX, six, ()), source="fd77::c8"),
        "mld_router_alert": wire.mld_ip(mld, source="fe80::c8:1", **routers, alert=False),
        "mld_checksum": _sealed_wrong(mld2((TO_EX, six, ())), ICMPv6MLReport2, "cksum"),
    }


def test_nonsense_is_counted_and_changes_nothing(link: Segment) -> None:
    """Goal: issue, "Bad input": a counter each, and nothing else.
    Method: each kind once; its counter rises by one, and neither group appears."""
    group, six = fresh_group(), fresh_group6()
    for reason, packet in _nonsense(group, six).items():
        before = link.counters().get(reason, 0)
        link.send(packet)
        wait_until(lambda: link.counters().get(reason, 0) == before + 1, 2, f"{reason} is counted")  # noqa: B023
    assert (link.row(group), link.row(six)) == (None, None)


def test_what_is_to_be_ignored(link: Segment) -> None:
    """Goal: RFC 4604 §2.2, RFC 9776 §4, §6: SSM groups with any source, all-hosts, node scope, unknown types.
    Method: one of each, then a join that proves that all were taken in; only that one makes state."""
    ssm, ssm6, group = "232.81.61.1", "ff3e::8161:1", fresh_group()
    for packet in (
        igmp3((TO_EX, ssm, ()), (IS_EX, ssm, (S1,)), (TO_EX, "224.0.0.1", ()), (TO_EX, "10.1.2.3", ()), (9, group, ())),
        wire.igmp_old(0x16, ssm),
        wire.igmp_old(0x12, ssm),
        wire.igmp_old(0x17, ssm),
        mld2((TO_EX, ssm6, ()), (TO_EX, "ff02::1", ()), (TO_EX, "ff01::5", ()), (TO_EX, "ff10::5", ())),
        wire.mld_old(ssm6),
        wire.igmp_ip(Raw(_summed(b"\x14\0\0\0" + bytes(4))), source=OTHER, destination=group),
        igmp3((IS_IN, group, ("224.1.1.1", "255.255.255.255"))),
        igmp3((TO_EX, group, ("224.1.1.1", S1))),
    ):
        link.send(packet)
    link.wait_filter(group, "EXCLUDE", S1)
    known = {row["group"] for row in link.instance.show("groups")}
    assert not known & {ssm, ssm6, "224.0.0.1", "10.1.2.3", "ff02::1", "ff01::5", "ff10::5"}


def test_reports_to_the_querier_itself(link: Segment) -> None:
    """Goal: RFC 9776 §4.2.15, RFC 9777 §5.2.14: reports to any address of the router count.
    Method: unicast reports to the querier, and an IGMP report from 0.0.0.0."""
    group, six, nameless = fresh_group(), fresh_group6(), fresh_group()
    packet = igmp3((TO_EX, group, ()))
    packet.dst = QUERIER4
    link.send(packet)
    link.send(mld2((TO_EX, six, ()), destination=QUERIER6))
    link.send(igmp3((TO_EX, nameless, ()), source="0.0.0.0"))
    for joined in (group, six, nameless):
        link.wait_filter(joined, "EXCLUDE")


def test_many_sources_in_one_group(link: Segment, fast: Network) -> None:
    """Goal: 1,000 sources in a group (issue, item 5), and what is too much is counted.
    Method: reports of 300 sources each until 1,000, `show groups`, the remote node; then 100 more than the limit."""
    group = "232.81.62.1"
    sources = [f"10.77.{100 + i // 250}.{i % 250 + 1}" for i in range(1124)]
    for at in range(0, 1000, 250):
        link.send(igmp3((ALLOW, group, sources[at : at + 250])))
    link.wait(group, lambda row: row is not None and len(row["sources"]) == 1000, "has 1,000 sources")
    remote = fast.instances[1]
    wait_until(lambda: any(r["group"] == group for r in remote.show("groups")), 2, "the other node knows")
    before = link.counters().get("sources_limit", 0)
    link.send(igmp3((ALLOW, group, sources[1000:])))
    wait_until(lambda: link.counters().get("sources_limit", 0) == before + 100, 2, "100 sources are refused")


def test_a_report_as_long_as_the_largest_mtu(
    make_network: Callable[..., Network], sockets: Sockets, tmp_path: Path
) -> None:
    """Goal: a report fills a packet whatever the MTU.  Method: an MTU of 9,000 and 1,000 sources in one report."""
    path = tmp_path / "jumbo.toml"
    path.write_text("[tun]\nmtu = 9000\n")
    flags = ("--config", str(path))
    link = Segment(sockets, make_network(1, workers=1, sealed=False, extra=flags).instances[0])
    sources = [f"10.77.{100 + i // 250}.{i % 250 + 1}" for i in range(1000)]
    link.send(igmp3((ALLOW, "232.81.63.1", sources)))
    link.wait_filter("232.81.63.1", "INCLUDE", *sources)


def test_a_storm_is_bounded_and_said_once(link: Segment) -> None:
    """Goal: issue, "Bad input": a storm is bounded and said so once; the node goes on serving.
    Method: 60,000 reports as fast as they go in; drops are counted, one line in the log, a join thereafter works."""
    packet = bytes(igmp3((IS_EX, fresh_group(), ())))
    for _ in range(60_000):
        link.send(packet)
    refused = "membership reports beyond the limit are dropped"
    wait_until(lambda: refused in link.instance.process.log, 3, "the storm is said")
    time.sleep(1)
    counters = link.instance.show("counters")
    lost = counters["drops"]["report_limit"] + counters["drops"]["tun_queue"]
    assert lost > 0
    group = fresh_group()
    link.send(igmp3((TO_EX, group, ())))
    link.wait_filter(group, "EXCLUDE")
    assert link.instance.process.log.count(refused) == 1


def test_trace_on_the_command_line(link: Segment) -> None:
    """Goal: `pipeline trace --membership` says which rule fired for which group of which host (issue, item 6).
    Method: the command for 1.5 s as JSON lines, a join and a leave meanwhile."""
    group = fresh_group()
    command = [program(), "trace", "--membership", "--name", link.instance.name, "--seconds", "1.5"]
    following = link.instance.host.spawn([*command, "--json"], label="trace", pipe=True)
    time.sleep(0.7)
    link.send(igmp3((TO_EX, group, ())))
    link.wait_filter(group, "EXCLUDE")
    link.send(igmp3((TO_IN, group, ())))
    output, _ = following.popen.communicate(timeout=10)
    assert following.popen.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert {line["schema"] for line in lines} == {1}
    events = [line["trace"] for line in lines if line["trace"]["group"] == group]
    assert [(e["host"], e["rule"].split(" ->")[0]) for e in events[:2]] == [
        ("10.77.200.1", "INCLUDE (A) + TO_EX (B)"),
        ("10.77.200.1", "EXCLUDE (X,Y) + TO_IN (A)"),
    ]
    assert abs(events[0]["time_s"] - time.time()) < 30
