"""Other hosts and routers on a node's virtual link, as packets on its TUN, and what the node says to them.

A TUN has one host, the kernel; but a host may bridge or route others onto it, so anybody's packets may appear there.
They are made and read with scapy, which has no line in common with the daemon.  Times are short ones by default:
FAST is a configuration whose protocol runs through in seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
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

from pipeline.lab.instance import Instance
from pipeline.lab.programs import wait_until
from tests.netns.sockets import ETH_P_ALL, INTERFACE, Sockets

FAST = {
    "robustness": 2,
    "query_interval_s": 2.0,
    "query_response_interval_s": 0.5,
    "last_member_query_interval_s": 0.2,
}
"""GMI = 2 · 2 + 2 · 0.5 = 5 s, Other Querier Present 4.25 s, Older Host Present 4.5 s, LMQT 0.4 s."""

GMI_S, OTHER_QUERIER_S, OLDER_HOST_S, LMQT_S = 5.0, 4.25, 4.5, 0.4
IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = range(1, 7)
PACKET_OUTGOING = 4
"""What the host sends on the interface, rather than receives."""


def membership_file(path: Path, **values: Any) -> tuple[str, str]:
    """A configuration file with that [membership] section, as flags of `launch`."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path.write_text("\n".join(["[membership]", *lines, ""]))
    return "--config", str(path)


# ---------------------------------------------------------------- packets of hosts


def igmp3(*records: tuple[int, str, Sequence[str]], source: str = "10.77.200.1") -> Packet:
    """An IGMPv3 report of (type, group, sources) records."""
    listed = [IGMPv3gr(rtype=kind, maddr=group, srcaddrs=list(sources)) for kind, group, sources in records]
    return igmp_ip(IGMPv3mr(records=listed), source=source, destination="224.0.0.22")


def igmp_old(kind: int, group: str, *, source: str = "10.77.200.1") -> Packet:
    """A message of 8 octets: 0x12 and 0x16 are reports, 0x17 is a leave."""
    destination = "224.0.0.2" if kind == 0x17 else group
    return igmp_ip(IGMP(type=kind, gaddr=group, mrcode=0), source=source, destination=destination)


def igmp_ip(message: Packet, *, source: str, destination: str, ttl: int = 1, alert: bool = True) -> Packet:
    """IGMP in its IP header: TTL 1, Router Alert."""
    options = [IPOption_Router_Alert()] if alert else []
    return IP(src=source, dst=destination, ttl=ttl, tos=0xC0, proto=2, options=options) / message


def igmp_query(source: str, *, group: str = "0.0.0.0", code: int = 5, **fields: Any) -> Packet:
    """An IGMPv3 query of another router; `s`, `qrv`, `qqic`, `srcaddrs` as scapy names them."""
    body = IGMPv3mq(type=0x11, mrcode=code, gaddr=group, **{"qrv": 2, "qqic": 2, **fields})
    destination = "224.0.0.1" if group == "0.0.0.0" else group
    return igmp_ip(body, source=source, destination=destination)


def mld2(*records: tuple[int, str, Sequence[str]], source: str = "fe80::c8:1", destination: str = "ff02::16") -> Packet:
    """An MLDv2 report of (type, group, sources) records."""
    listed = [ICMPv6MLDMultAddrRec(rtype=kind, dst=group, sources=list(srcs)) for kind, group, srcs in records]
    return mld_ip(ICMPv6MLReport2(records=listed), source=source, destination=destination)


def mld_old(group: str, *, done: bool = False, source: str = "fe80::c8:1") -> Packet:
    """An MLDv1 report or done."""
    message = ICMPv6MLDone(mladdr=group) if done else ICMPv6MLReport(mladdr=group)
    return mld_ip(message, source=source, destination="ff02::2" if done else group)


def mld_ip(message: Packet, *, source: str, destination: str, hop_limit: int = 1, alert: bool = True) -> Packet:
    """MLD in its IPv6 header: hop limit 1, Router Alert in a hop-by-hop header."""
    header = IPv6(src=source, dst=destination, hlim=hop_limit)
    return header / IPv6ExtHdrHopByHop(options=[RouterAlert(value=0)]) / message if alert else header / message


def mld_query(source: str, *, group: str = "::", response_ms: int = 500, **fields: Any) -> Packet:
    """An MLDv2 query of another router; `S`, `QRV`, `QQIC`, `sources` as scapy names them."""
    message = ICMPv6MLQuery2(mladdr=group, mrd=response_ms, **{"QRV": 2, "QQIC": 2, **fields})
    return mld_ip(message, source=source, destination="ff02::1" if group == "::" else group)


# ---------------------------------------------------------------- the link


class Segment:
    """The link of one node: everything that is said on it, and a place to say something."""

    def __init__(self, sockets: Sockets, instance: Instance) -> None:
        self.instance = instance
        self._socket = sockets.sniffer(instance.host, INTERFACE)

    def send(self, packet: Packet | bytes) -> None:
        """Put a packet on the link, as a host or router on it would."""
        self._socket.sendto(bytes(packet), (INTERFACE, ETH_P_ALL))

    def send_at(self, packets: Sequence[bytes], rate_per_s: float) -> float:
        """Put packets on the link at a rate, in bursts of 5 ms; how long it took."""
        began = time.monotonic()
        burst = max(1, round(rate_per_s / 200))
        for at in range(0, len(packets), burst):
            for packet in packets[at : at + burst]:
                self._socket.send(packet)
            ahead = began + (at + burst) / rate_per_s - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
        return time.monotonic() - began

    def queries(self, seconds: float, family: int = 4, count: int = 1000) -> list[tuple[float, Packet]]:
        """What the node has asked until `count` queries or that time are over: (when, IP packet)."""
        found: list[tuple[float, Packet]] = []
        deadline = time.monotonic() + seconds
        while len(found) < count and (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                packet, origin = self._socket.recvfrom(65536)
            except TimeoutError:
                break
            if origin[2] != PACKET_OUTGOING and packet[0] >> 4 == family and (seen := _query(packet)) is not None:
                found.append((time.monotonic(), seen))
        return found

    def specific(self, seconds: float, group: str, count: int = 1000) -> list[tuple[float, Packet]]:
        """The same for queries about one group, which go to the group."""
        found: list[tuple[float, Packet]] = []
        deadline = time.monotonic() + seconds
        while len(found) < count and (left := deadline - time.monotonic()) > 0:
            found += [seen for seen in self.queries(left, 6 if ":" in group else 4, 1) if seen[1].dst == group]
        return found

    def forget(self) -> None:
        """Throw away what was said so far."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(65536)
        except BlockingIOError:
            pass

    # -- what the node knows

    def row(self, group: str) -> dict[str, Any] | None:
        """The node's row of that group, if it has local members."""
        return next((row for row in self.instance.show("groups") if row["group"] == group and row["local"]), None)

    def wait(
        self, group: str, state: Callable[[dict[str, Any] | None], bool], what: str, timeout_s: float = 2.0
    ) -> None:
        """Until the row satisfies `state`."""
        wait_until(lambda: state(self.row(group)), timeout_s, f"{group} {what}: {self.row(group)}", every_s=0.01)

    def wait_filter(self, group: str, mode: str, *sources: str) -> None:
        """Until the group has that filter."""
        wanted = (mode, sorted(sources))
        self.wait(group, lambda row: row is not None and (row["filter_mode"], row["sources"]) == wanted, f"is {wanted}")

    def wait_gone(self, group: str, timeout_s: float = 2.0) -> float:
        """Until nobody here has joined; how long that took."""
        began = time.monotonic()
        self.wait(group, lambda row: row is None, "is gone", timeout_s)
        return time.monotonic() - began

    def counters(self) -> dict[str, int]:
        """The membership counters."""
        found: dict[str, int] = self.instance.show("counters")["membership"]
        return found


def _query(packet: bytes) -> Packet | None:
    """The packet, if it is an IGMP or MLD query."""
    if packet[0] >> 4 == 4:
        seen = IP(packet)
        return seen if seen.proto == 2 and bytes(packet)[seen.ihl * 4] == 0x11 else None
    return IPv6(packet) if packet[6] == 0 and packet[40] == 58 and packet[48] == 130 else None
