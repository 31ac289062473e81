"""Virtual link of a node as other hosts and routers see it, and membership settings with short timers.

Packets are sent and received on the node's TUN. A TUN has one host, the kernel; other hosts may be bridged or routed
onto it, so the daemon must handle packets of any host there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
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
"""Settings with which every timer of the protocol ends within seconds: Group Membership Interval 2 · 2 + 2 · 0.5 = 5 s,
Other Querier Present Interval 4.25 s, Older Host Present Interval 4.5 s, Last Member Query Time 0.4 s."""

GROUP_MEMBERSHIP_S = 5.0
PACKET_OUTGOING = 4
"""Packet type of AF_PACKET for packets that the host itself sends on the interface."""


def membership_flags(path: Path, **values: Any) -> tuple[str, str]:
    """Write a configuration file with this [membership] section; return the flags of `launch` for it."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path.write_text("\n".join(["[membership]", *lines, ""]))
    return "--config", str(path)


class Segment:
    """Virtual link of one node: sends packets on it and reads those that the node sends."""

    def __init__(self, sockets: Sockets, instance: Instance) -> None:
        self.instance = instance
        self._socket = sockets.sniffer(instance.host, INTERFACE)

    def send(self, packet: Packet | bytes) -> None:
        """Send a packet on the link, as another host or router does."""
        self._socket.sendto(bytes(packet), (INTERFACE, ETH_P_ALL))

    def send_at(self, packets: Sequence[bytes], rate_per_s: float) -> float:
        """Send packets at a rate, in bursts of 5 ms; return the time in seconds that it took."""
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
        """Return the node's next queries as (time, IP packet): `count` of them, or fewer after `seconds`."""
        found: list[tuple[float, Packet]] = []
        deadline = time.monotonic() + seconds
        while len(found) < count and (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                packet, origin = self._socket.recvfrom(65536)
            except TimeoutError:
                break
            if origin[2] != PACKET_OUTGOING and packet[0] >> 4 == family and (query := _query(packet)) is not None:
                found.append((time.monotonic(), query))
        return found

    def specific_queries(self, seconds: float, group: str, count: int = 1000) -> list[tuple[float, Packet]]:
        """Return the node's next queries about one group, which are sent to the group itself."""
        found: list[tuple[float, Packet]] = []
        deadline = time.monotonic() + seconds
        while len(found) < count and (left := deadline - time.monotonic()) > 0:
            found += [query for query in self.queries(left, 6 if ":" in group else 4, 1) if query[1].dst == group]
        return found

    def discard(self) -> None:
        """Discard the packets that were received so far."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(65536)
        except BlockingIOError:
            pass

    # -- state of the node

    def row(self, group: str) -> dict[str, Any] | None:
        """Return the row of `show groups` for a group with local members, or None."""
        return next((row for row in self.instance.show("groups") if row["group"] == group and row["local"]), None)

    def wait(
        self, group: str, state: Callable[[dict[str, Any] | None], bool], what: str, timeout_s: float = 2.0
    ) -> None:
        """Wait until the group's row satisfies `state`."""
        wait_until(lambda: state(self.row(group)), timeout_s, f"{group} {what}: {self.row(group)}", every_s=0.01)

    def wait_filter(self, group: str, mode: str, *sources: str) -> None:
        """Wait until the group has this filter mode and these sources."""
        expected = (mode, sorted(sources))
        self.wait(
            group, lambda row: row is not None and (row["filter_mode"], row["sources"]) == expected, f"is {expected}"
        )

    def wait_gone(self, group: str, timeout_s: float = 2.0) -> float:
        """Wait until the group has no local member; return the seconds that it took."""
        began = time.monotonic()
        self.wait(group, lambda row: row is None, "is gone", timeout_s)
        return time.monotonic() - began

    def counters(self) -> dict[str, int]:
        """Return the membership counters."""
        found: dict[str, int] = self.instance.show("counters")["membership"]
        return found


def _query(packet: bytes) -> Packet | None:
    """Return the packet as scapy reads it if it is an IGMP or MLD query, else None."""
    if packet[0] >> 4 == 4:
        parsed = IP(packet)
        return parsed if parsed.proto == 2 and packet[parsed.ihl * 4] == 0x11 else None
    return IPv6(packet) if packet[6] == 0 and packet[40] == 58 and packet[48] == 130 else None
