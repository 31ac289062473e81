"""The node as multicast router of its link: the queries it sends, their times, and the state it derives from reports.

Other hosts and rival routers are packets on the TUN (membership_packets.py): several hosts behind one TUN, queriers
with lower addresses, malformed packets.  Timers are short (segment.FAST).  Unit tests check every row and formula;
these tests check the whole daemon on a real interface."""

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
from tests.netns import membership_packets as packets
from tests.netns.membership_packets import ALLOW, BLOCK, IS_EX, IS_IN, TO_EX, TO_IN, igmp3, mld2
from tests.netns.network import Network, fresh_group, fresh_group6
from tests.netns.segment import FAST, Segment, membership_flags
from tests.netns.sockets import Sockets

S1, S2, S3 = "10.77.50.1", "10.77.50.2", "10.77.50.3"
T1, T2 = "fd77::50:1", "fd77::50:2"
QUERIER4, QUERIER6 = "10.77.255.254", "fe80::1:4d43:5351"
OTHER_HOST = "10.77.200.2"
Report = Callable[..., Packet]


@pytest.fixture(scope="module")
def fast_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    path = tmp_path_factory.mktemp("membership") / "fast.toml"
    with Network(2, workers=2, sealed=False, extra=membership_flags(path, **FAST)) as network:
        yield network


@pytest.fixture
def segment(fast_network: Network, sockets: Sockets) -> Segment:
    return Segment(sockets, fast_network.instances[0])


def new_group(report: Report) -> str:
    return fresh_group() if report is igmp3 else fresh_group6()


both_families = pytest.mark.parametrize("report", [igmp3, mld2], ids=["igmp", "mld"])


def test_general_queries_are_valid_and_periodic(segment: Segment) -> None:
    """Goal: general queries that hosts accept, at every Query Interval (RFC 9776 §4, §4.1, §6.1, RFC 9777 §5).
    Method: scapy parses two queries of IGMP and one of MLD."""
    begin = time.monotonic()
    (first, query), (second, _) = segment.queries(6, 4, 2)
    assert 1.9 < second - first < 2.2
    assert (query.src, query.dst, query.ttl, query.tos) == (QUERIER4, "224.0.0.1", 1, 0xC0)
    assert bytes(query)[20:24] == b"\x94\x04\x00\x00"
    message = IGMPv3(bytes(query)[24:])
    body = message[IGMPv3mq]
    assert (message.mrcode, body.gaddr, body.s, body.qrv, body.qqic, body.numsrc) == (5, "0.0.0.0", 0, 2, 2, 0)
    ((_, query),) = segment.queries(3, 6, 1)
    assert (query.src, query.dst, query.hlim) == (QUERIER6, "ff02::1", 1)
    assert bytes(query[IPv6ExtHdrHopByHop])[:8] == b"\x3a\x00\x05\x02\x00\x00\x01\x00"
    body = query[ICMPv6MLQuery2]
    assert (body.mrd, body.mladdr, body.S, body.QRV, body.QQIC, body.sources_number) == (500, "::", 0, 2, 2, 0)
    assert time.monotonic() - begin < 8


def test_group_expires_after_group_membership_interval(segment: Segment) -> None:
    """Goal: a group ends one Group Membership Interval, 5 s here, after its last report (RFC 9776 §6.5, §8.4).
    Method: reports join groups of both families, one is repeated after 1.5 s, and no query is answered."""
    silent, repeated, six = fresh_group(), fresh_group(), fresh_group6()
    segment.send(igmp3((TO_EX, silent, ()), (TO_EX, repeated, ())))
    segment.send(mld2((TO_EX, six, ())))
    began = time.monotonic()
    segment.wait_filter(six, "EXCLUDE")
    time.sleep(1.5)
    segment.send(igmp3((IS_EX, repeated, ())))
    segment.wait_gone(silent, 6)
    assert 4.9 < time.monotonic() - began < 5.3
    segment.wait_gone(six, 1)
    assert segment.row(repeated) is not None
    segment.wait_gone(repeated, 6)
    assert 6.4 < time.monotonic() - began < 6.9


@both_families
def test_leave_causes_two_queries_and_ends_the_group(segment: Segment, report: Report) -> None:
    """Goal: after a leave the node sends two specific queries and then ends the group (RFC 9776 §6.6.3.1).
    Method: a join and a leave; times and fields of the queries, end of the group after the Last Member Query Time."""
    group = new_group(report)
    segment.send(report((TO_EX, group, ())))
    segment.wait_filter(group, "EXCLUDE")
    segment.discard()
    segment.send(report((TO_IN, group, ())))
    left = time.monotonic()
    (first, query), (second, _) = segment.specific_queries(0.5, group)
    gone_s = segment.wait_gone(group) + time.monotonic() - left
    assert first - left < 0.1
    assert 0.15 < second - first < 0.3
    assert gone_s < 1.5
    if report is igmp3:
        message = IGMPv3(bytes(query)[24:])
        assert (message.mrcode, message[IGMPv3mq].s, message[IGMPv3mq].numsrc) == (2, 0, 0)
    else:
        assert (query[ICMPv6MLQuery2].mrd, query[ICMPv6MLQuery2].S) == (200, 0)


@both_families
def test_answer_of_second_host_keeps_the_group(segment: Segment, report: Report) -> None:
    """Goal: the answer of another member keeps the group, and the repeated query has the S flag (RFC 9776 §6.6.3.1).
    Method: two hosts join, one leaves, the other one answers the first query."""
    group, other = new_group(report), OTHER_HOST if report is igmp3 else "fe80::c8:2"
    segment.send(report((TO_EX, group, ())))
    segment.send(report((TO_EX, group, ()), source=other))
    segment.wait_filter(group, "EXCLUDE")
    segment.discard()
    segment.send(report((TO_IN, group, ())))
    segment.specific_queries(0.1, group, 1)
    segment.send(report((IS_EX, group, ()), source=other))
    ((_, repeated),) = segment.specific_queries(0.4, group)
    s_flag = IGMPv3(bytes(repeated)[24:])[IGMPv3mq].s if report is igmp3 else repeated[ICMPv6MLQuery2].S
    assert s_flag == 1
    time.sleep(0.3)
    row = segment.row(group)
    assert row is not None
    assert row["expires_s"] > 3


@both_families
def test_include_sources_follow_allow_and_block(segment: Segment, report: Report) -> None:
    """Goal: ALLOW adds sources, BLOCK causes Q(G,S) for the blocked ones and then removes them (RFC 9776 §6.4.2).
    Method: a source-specific group in three steps; its sources in `show groups`, the sources in the two queries."""
    group = "232.81.60.1" if report is igmp3 else "ff3e::8160:1"
    one, two = (S1, S2) if report is igmp3 else (T1, T2)
    segment.send(report((ALLOW, group, (one,))))
    segment.wait_filter(group, "INCLUDE", one)
    segment.send(report((ALLOW, group, (two,))))
    segment.wait_filter(group, "INCLUDE", one, two)
    segment.discard()
    segment.send(report((BLOCK, group, (one,))))
    queries = segment.specific_queries(0.6, group)
    assert len(queries) == 2
    query = queries[0][1]
    listed = IGMPv3(bytes(query)[24:])[IGMPv3mq].srcaddrs if report is igmp3 else query[ICMPv6MLQuery2].sources
    assert listed == [one]
    segment.wait_filter(group, "INCLUDE", two)
    segment.send(report((TO_IN, group, ())))
    segment.wait_gone(group)


def test_filters_of_two_hosts_are_merged(segment: Segment) -> None:
    """Goal: a source is excluded only if every host excludes it (RFC 9776 §6.3): with EXCLUDE (1,2) and EXCLUDE (2,3)
    source 2 is; with INCLUDE (2) of a third host no source is.
    Method: reports of three hosts; `sources` and `requested` in `show groups`."""
    group = fresh_group()
    segment.send(igmp3((TO_EX, group, (S1, S2))))
    segment.wait_filter(group, "EXCLUDE", S1, S2)
    segment.send(igmp3((TO_EX, group, (S2, S3)), source=OTHER_HOST))
    segment.wait_filter(group, "EXCLUDE", S2)
    segment.send(igmp3((ALLOW, group, (S2,)), source="10.77.200.3"))
    segment.wait_filter(group, "EXCLUDE")
    row = segment.row(group)
    assert row is not None
    assert S2 in row["requested"]


@pytest.mark.parametrize(
    ("join", "leave", "version"),
    [
        (lambda group: packets.igmp_old(0x12, group), lambda group: packets.igmp_old(0x17, group), "IGMPv1"),
        (lambda group: packets.igmp_old(0x16, group), lambda group: packets.igmp_old(0x17, group), "IGMPv2"),
        (packets.mld_old, lambda group: packets.mld_old(group, done=True), "MLDv1"),
    ],
    ids=["igmpv1", "igmpv2", "mldv1"],
)
def test_older_hosts_set_the_compatibility_mode(
    segment: Segment, join: Callable[[str], Packet], leave: Callable[[str], Packet], version: str
) -> None:
    """Goal: a report of an older version joins any source and sets the compatibility mode (RFC 9776 §7.3.2).  In that
    mode BLOCK records and the source list of TO_EX are ignored, with IGMPv1 leaves too.
    Method: a join of the older version, records of the newest one, the leave of the older version."""
    is_mld = version.startswith("MLD")
    report, group, source = (mld2, fresh_group6(), T1) if is_mld else (igmp3, fresh_group(), S1)
    segment.send(join(group))
    segment.wait(group, lambda row: row is not None and row["compatibility"] == version, f"is in mode {version}")
    segment.send(report((TO_EX, group, (source,))))
    segment.send(report((BLOCK, group, (source,))))
    time.sleep(0.1)
    segment.wait_filter(group, "EXCLUDE")
    segment.discard()
    segment.send(leave(group))
    if version == "IGMPv1":
        assert segment.specific_queries(0.6, group) == []
        assert segment.row(group) is not None
    else:
        assert len(segment.specific_queries(0.6, group)) == 2
        segment.wait_gone(group)


def test_older_host_present_interval_ends(segment: Segment) -> None:
    """Goal: the compatibility mode ends with the Older Host Present Interval, 4.5 s here (RFC 9776 §8.13).
    Method: one report of IGMPv2, then one of IGMPv3."""
    group = fresh_group()
    segment.send(packets.igmp_old(0x16, group))
    began = time.monotonic()
    segment.wait(group, lambda row: row is not None and row["compatibility"] == "IGMPv2", "is in mode IGMPv2")
    time.sleep(2)
    segment.send(igmp3((IS_EX, group, ())))
    segment.wait(group, lambda row: row is not None and row["compatibility"] == "IGMPv3", "is in mode IGMPv3", 4)
    assert 4.4 < time.monotonic() - began < 4.8


@pytest.mark.parametrize("family", [4, 6])
def test_lower_address_wins_election_until_it_is_silent(segment: Segment, family: int) -> None:
    """Goal: while a router with a lower address is querier, the node sends no query and applies the rival's ones; it
    sends again 4.25 s after the rival's last query that counts (RFC 9776 §6.6.2, RFC 9777 §7.6.2).
    Method: a general query of the rival; a leave, after which only the rival may query; its specific query; silence."""
    rival = "10.77.0.200" if family == 4 else "fe80::7"
    query, report, group = (
        (packets.igmp_query, igmp3, fresh_group()) if family == 4 else (packets.mld_query, mld2, fresh_group6())
    )
    segment.send(report((TO_EX, group, ())))
    segment.wait_filter(group, "EXCLUDE")
    segment.send(query(rival))
    last_query = time.monotonic()
    time.sleep(0.1)
    segment.discard()
    segment.send(report((TO_IN, group, ())))
    assert segment.queries(1.0, family) == []
    assert segment.row(group) is not None
    segment.send(query(rival, group=group, code=2) if family == 4 else query(rival, group=group, response_ms=200))
    if family == 6:
        last_query = time.monotonic()  # in MLD any query counts in the election
    segment.wait_gone(group, 1.0)
    ((when, general),) = segment.queries(6, family, 1)
    assert general.src == (QUERIER4 if family == 4 else QUERIER6)
    assert 4.1 < when - last_query < 4.6


def test_higher_address_and_zero_lose_election(segment: Segment) -> None:
    """Goal: the node stays querier beside routers with a higher address or with 0.0.0.0.
    Method: queries of each; the node's own ones go on."""
    segment.send(packets.igmp_query("10.77.255.255"))
    segment.send(packets.igmp_query("0.0.0.0"))
    segment.send(packets.mld_query("fe80::ffff:ffff:ffff:ffff"))
    segment.discard()
    assert len(segment.queries(2.3, 4, 1)) == 1
    assert len(segment.queries(2.3, 6, 1)) == 1


@both_families
def test_fast_leave_ends_group_of_a_single_host(
    make_network: Callable[..., Network], sockets: Sockets, tmp_path: Path, report: Report
) -> None:
    """Goal: with `fast_leave` a leave of the only known member ends the group at once; with two members it is queried.
    Method: the RFC's timers, with which no other leave takes less than a second; one host, then two."""
    flags = membership_flags(tmp_path / "fast_leave.toml", fast_leave=True)
    segment = Segment(sockets, make_network(1, workers=1, sealed=False, extra=flags).instances[0])
    group, other = new_group(report), OTHER_HOST if report is igmp3 else "fe80::c8:2"
    segment.send(report((TO_EX, group, ())))
    segment.wait_filter(group, "EXCLUDE")
    segment.discard()
    segment.send(report((TO_IN, group, ())))
    assert segment.wait_gone(group) < 0.3
    assert segment.specific_queries(0.1, group) == []
    for host in ({}, {"source": other}):
        segment.send(report((TO_EX, group, ()), **host))
    segment.wait_filter(group, "EXCLUDE")
    segment.send(report((TO_IN, group, ())))
    assert len(segment.specific_queries(0.5, group, 1)) == 1
    assert segment.row(group) is not None


def test_configured_older_versions_are_used(
    make_network: Callable[..., Network], sockets: Sockets, tmp_path: Path
) -> None:
    """Goal: a node that is configured for older versions sends their queries, and the kernel answers in that version
    (RFC 9776 §7.3.1, RFC 9777 §8.3.1).
    Method: IGMPv2 and MLDv1 by configuration; length of the queries, compatibility mode after a program's join."""
    flags = membership_flags(tmp_path / "old.toml", **FAST, igmp_version=2, mld_version=1)
    instance = make_network(1, workers=1, sealed=False, extra=flags).instances[0]
    segment = Segment(sockets, instance)
    ((_, query),) = segment.queries(3, 4, 1)
    assert (len(bytes(query)) - 24, bytes(query)[25]) == (8, 5)
    ((_, query),) = segment.queries(3, 6, 1)
    assert len(bytes(query)) - 48 == 24
    for group, version in ((fresh_group(), "IGMPv2"), (fresh_group6(), "MLDv1")):
        member = sockets.member(instance.host, group, 5060)
        segment.wait(
            group,
            lambda row: row is not None and row["compatibility"] == version,  # noqa: B023
            f"is in mode {version}",
        )
        member.close()
        segment.wait_gone(group)


def _with_wrong_checksum(packet: Packet, layer: type[Packet], field: str) -> Packet:
    setattr(packet[layer], field, 0x1234)
    return packet


def _cut(packet: Packet, octets: int) -> Packet:
    """Return the message without its last octets; lengths and checksums are right for the rest."""
    whole = IP(bytes(packet))
    body = bytes(whole)[24:-octets]
    return packets.igmp_ip(Raw(_with_checksum(body)), source=whole.src, destination=whole.dst)


def _with_checksum(body: bytes) -> bytes:
    blank = body[:2] + b"\0\0" + body[4:]
    total = sum(int.from_bytes(blank[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(blank), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return blank[:2] + (0xFFFF - total).to_bytes(2, "big") + blank[4:]


def _malformed(group: str, six: str) -> dict[str, Packet]:
    """Return a packet for each drop reason; each would create state if it were accepted."""
    report = packets.IGMPv3mr(records=[packets.IGMPv3gr(rtype=TO_EX, maddr=group)])
    join = Raw(bytes(report))  # raw bytes, since scapy adds Router Alert to a report
    mld = ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(rtype=TO_EX, dst=six)])
    host, routers = {"source": OTHER_HOST, "destination": "224.0.0.22"}, {"destination": "ff02::16"}
    two_records_announced = bytes(join)[:6] + b"\x00\x02" + bytes(join)[8:]
    return {
        "igmp_checksum": _with_wrong_checksum(igmp3((TO_EX, group, ())), packets.IGMPv3mr, "chksum"),
        "igmp_truncated": packets.igmp_ip(Raw(_with_checksum(two_records_announced)), **host),
        "igmp_query_length": _cut(packets.igmp_query(OTHER_HOST), 2),
        "igmp_ttl": packets.igmp_ip(join, **host, ttl=2),
        "igmp_router_alert": packets.igmp_ip(join, **host, alert=False),
        "igmp_source": igmp3((TO_EX, group, ()), source="239.1.1.1"),
        "mld_hop_limit": packets.mld_ip(mld, source="fe80::c8:1", **routers, hop_limit=2),
        "mld_source": mld2((TO_EX, six, ()), source="fd77::c8"),
        "mld_router_alert": packets.mld_ip(mld, source="fe80::c8:1", **routers, alert=False),
        "mld_checksum": _with_wrong_checksum(mld2((TO_EX, six, ())), ICMPv6MLReport2, "cksum"),
    }


def test_malformed_packets_are_counted_and_make_no_state(segment: Segment) -> None:
    """Goal: a malformed packet increments its drop counter and has no other effect.
    Method: one packet of each kind; its counter rises by one, and neither group appears."""
    group, six = fresh_group(), fresh_group6()
    for reason, packet in _malformed(group, six).items():
        before = segment.counters().get(reason, 0)
        segment.send(packet)
        wait_until(lambda: segment.counters().get(reason, 0) == before + 1, 2, f"{reason} is counted")  # noqa: B023
    assert (segment.row(group), segment.row(six)) == (None, None)


def test_records_that_the_rfcs_ignore_make_no_state(segment: Segment) -> None:
    """Goal: records for SSM groups with any source, for all-hosts and node-scope groups, and unknown types are ignored
    (RFC 4604 §2.2, RFC 9776 §4, §6).
    Method: one packet of each kind, then a join, which proves that all were processed; only the join makes state."""
    ssm, ssm6, group = "232.81.61.1", "ff3e::8161:1", fresh_group()
    for packet in (
        igmp3((TO_EX, ssm, ()), (IS_EX, ssm, (S1,)), (TO_EX, "224.0.0.1", ()), (TO_EX, "10.1.2.3", ()), (9, group, ())),
        packets.igmp_old(0x16, ssm),
        packets.igmp_old(0x12, ssm),
        packets.igmp_old(0x17, ssm),
        mld2((TO_EX, ssm6, ()), (TO_EX, "ff02::1", ()), (TO_EX, "ff01::5", ()), (TO_EX, "ff10::5", ())),
        packets.mld_old(ssm6),
        packets.igmp_ip(Raw(_with_checksum(b"\x14\0\0\0" + bytes(4))), source=OTHER_HOST, destination=group),
        igmp3((IS_IN, group, ("224.1.1.1", "255.255.255.255"))),
        igmp3((TO_EX, group, ("224.1.1.1", S1))),
    ):
        segment.send(packet)
    segment.wait_filter(group, "EXCLUDE", S1)
    groups = {row["group"] for row in segment.instance.show("groups")}
    assert not groups & {ssm, ssm6, "224.0.0.1", "10.1.2.3", "ff02::1", "ff01::5", "ff10::5"}


def test_reports_to_the_querier_address_are_accepted(segment: Segment) -> None:
    """Goal: a report counts whichever address of the router it is sent to (RFC 9776 §4.2.15, RFC 9777 §5.2.14).
    Method: unicast reports to the querier, and an IGMP report from 0.0.0.0."""
    group, six, nameless = fresh_group(), fresh_group6(), fresh_group()
    packet = igmp3((TO_EX, group, ()))
    packet.dst = QUERIER4
    segment.send(packet)
    segment.send(mld2((TO_EX, six, ()), destination=QUERIER6))
    segment.send(igmp3((TO_EX, nameless, ()), source="0.0.0.0"))
    for joined in (group, six, nameless):
        segment.wait_filter(joined, "EXCLUDE")


def test_group_takes_1000_sources_and_counts_the_excess(segment: Segment, fast_network: Network) -> None:
    """Goal: a group may have 1,000 sources; sources beyond the limit are counted.
    Method: reports of 250 sources each up to 1,000, seen here and on the other node; then 100 more than the limit."""
    group = "232.81.62.1"
    sources = [f"10.77.{100 + i // 250}.{i % 250 + 1}" for i in range(1124)]
    for at in range(0, 1000, 250):
        segment.send(igmp3((ALLOW, group, sources[at : at + 250])))
    segment.wait(group, lambda row: row is not None and len(row["sources"]) == 1000, "has 1,000 sources")
    remote = fast_network.instances[1]
    wait_until(lambda: any(r["group"] == group for r in remote.show("groups")), 2, "the other node lists the group")
    before = segment.counters().get("sources_limit", 0)
    segment.send(igmp3((ALLOW, group, sources[1000:])))
    wait_until(lambda: segment.counters().get("sources_limit", 0) == before + 100, 2, "100 sources are refused")


def test_report_may_fill_a_packet_of_the_largest_mtu(
    make_network: Callable[..., Network], sockets: Sockets, tmp_path: Path
) -> None:
    """Goal: a report may be as long as a packet, whatever the MTU.
    Method: an MTU of 9,000 bytes and 1,000 sources in one report."""
    path = tmp_path / "jumbo.toml"
    path.write_text("[tun]\nmtu = 9000\n")
    flags = ("--config", str(path))
    segment = Segment(sockets, make_network(1, workers=1, sealed=False, extra=flags).instances[0])
    sources = [f"10.77.{100 + i // 250}.{i % 250 + 1}" for i in range(1000)]
    segment.send(igmp3((ALLOW, "232.81.63.1", sources)))
    segment.wait_filter("232.81.63.1", "INCLUDE", *sources)


def test_report_storm_is_limited_and_logged_once(segment: Segment) -> None:
    """Goal: a storm of reports is limited and logged once, and the node goes on working.
    Method: 60,000 reports as fast as possible; drops are counted, the log has one line, a later join works."""
    packet = bytes(igmp3((IS_EX, fresh_group(), ())))
    for _ in range(60_000):
        segment.send(packet)
    refused = "membership reports beyond the limit are dropped"
    wait_until(lambda: refused in segment.instance.process.log, 3, "the storm is logged")
    time.sleep(1)
    counters = segment.instance.show("counters")
    lost = counters["drops"]["report_limit"] + counters["drops"]["tun_queue"]
    assert lost > 0
    group = fresh_group()
    segment.send(igmp3((TO_EX, group, ())))
    segment.wait_filter(group, "EXCLUDE")
    assert segment.instance.process.log.count(refused) == 1


def test_trace_command_shows_rule_group_and_host(segment: Segment) -> None:
    """Goal: `pipeline trace --membership` shows each rule that was applied, with group and host.
    Method: the command for 1.5 s as JSON lines, with a join and a leave meanwhile."""
    group = fresh_group()
    command = [program(), "trace", "--membership", "--name", segment.instance.name, "--seconds", "1.5"]
    following = segment.instance.host.spawn([*command, "--json"], label="trace", pipe=True)
    time.sleep(0.7)
    segment.send(igmp3((TO_EX, group, ())))
    segment.wait_filter(group, "EXCLUDE")
    segment.send(igmp3((TO_IN, group, ())))
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
