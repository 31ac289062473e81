"""IGMP and MLD packets of other hosts and routers on a node's virtual link.

scapy builds them, so they share no line of code with the daemon. The link may carry packets of any host: a TUN has one
host, the kernel, but that host may bridge or route others onto it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scapy.contrib.igmp import IGMP
from scapy.contrib.igmpv3 import IGMPv3gr, IGMPv3mq, IGMPv3mr
from scapy.layers.inet import IP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.packet import Packet

IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = range(1, 7)


def igmp3(*records: tuple[int, str, Sequence[str]], source: str = "10.77.200.1") -> Packet:
    """Return an IGMPv3 report of (type, group, sources) records."""
    listed = [IGMPv3gr(rtype=kind, maddr=group, srcaddrs=list(sources)) for kind, group, sources in records]
    return igmp_ip(IGMPv3mr(records=listed), source=source, destination="224.0.0.22")


def igmp_old(kind: int, group: str, *, source: str = "10.77.200.1") -> Packet:
    """Return a message of IGMPv1 or v2, 8 octets: types 0x12 and 0x16 are reports, 0x17 is a leave."""
    destination = "224.0.0.2" if kind == 0x17 else group
    return igmp_ip(IGMP(type=kind, gaddr=group, mrcode=0), source=source, destination=destination)


def igmp_ip(message: Packet, *, source: str, destination: str, ttl: int = 1, alert: bool = True) -> Packet:
    """Return IGMP with its IP header: TTL 1, Router Alert."""
    options = [IPOption_Router_Alert()] if alert else []
    return IP(src=source, dst=destination, ttl=ttl, tos=0xC0, proto=2, options=options) / message


def igmp_query(source: str, *, group: str = "0.0.0.0", code: int = 5, **fields: Any) -> Packet:
    """Return an IGMPv3 query of another router; `s`, `qrv`, `qqic` and `srcaddrs` are scapy's names."""
    body = IGMPv3mq(type=0x11, mrcode=code, gaddr=group, **{"qrv": 2, "qqic": 2, **fields})
    destination = "224.0.0.1" if group == "0.0.0.0" else group
    return igmp_ip(body, source=source, destination=destination)


def mld2(*records: tuple[int, str, Sequence[str]], source: str = "fe80::c8:1", destination: str = "ff02::16") -> Packet:
    """Return an MLDv2 report of (type, group, sources) records."""
    listed = [ICMPv6MLDMultAddrRec(rtype=kind, dst=group, sources=list(srcs)) for kind, group, srcs in records]
    return mld_ip(ICMPv6MLReport2(records=listed), source=source, destination=destination)


def mld_old(group: str, *, done: bool = False, source: str = "fe80::c8:1") -> Packet:
    """Return an MLDv1 report or done."""
    message = ICMPv6MLDone(mladdr=group) if done else ICMPv6MLReport(mladdr=group)
    return mld_ip(message, source=source, destination="ff02::2" if done else group)


def mld_ip(message: Packet, *, source: str, destination: str, hop_limit: int = 1, alert: bool = True) -> Packet:
    """Return MLD with its IPv6 header: hop limit 1, Router Alert in a hop-by-hop header."""
    header = IPv6(src=source, dst=destination, hlim=hop_limit)
    return header / IPv6ExtHdrHopByHop(options=[RouterAlert(value=0)]) / message if alert else header / message


def mld_query(source: str, *, group: str = "::", response_ms: int = 500, **fields: Any) -> Packet:
    """Return an MLDv2 query of another router; `S`, `QRV`, `QQIC` and `sources` are scapy's names."""
    message = ICMPv6MLQuery2(mladdr=group, mrd=response_ms, **{"QRV": 2, "QQIC": 2, **fields})
    return mld_ip(message, source=source, destination="ff02::1" if group == "::" else group)
