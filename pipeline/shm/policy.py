"""Policy of the stages (mp_policy.h) from the configuration: allowed groups, source addresses, unicast, rates.

It is made once, before the workers are forked, and never changes.  Control uses the list of receivable groups too: it
joins no group that this host may not receive.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from pipeline.address import Address
from pipeline.config import GroupsSection, SecuritySection
from pipeline.shm._native import ffi, lib
from pipeline.shm.fib import mapped

UNICAST = {"all": lib.MP_UNICAST_ALL, "discovery": lib.MP_UNICAST_DISCOVERY, "none": lib.MP_UNICAST_NONE}
"""Values of [security] unicast as C knows them."""


class Policy:
    """Lists and rates, as C reads them."""

    def __init__(self, groups: GroupsSection, security: SecuritySection) -> None:
        self.native: Any = ffi.new("struct mp_policy *")
        for name in ("send_allow", "send_deny", "receive_allow", "receive_deny"):
            _fill(getattr(self.native, name), getattr(groups, name))
        self.native.bound_sources = not security.allow_foreign_sources
        self.native.peer_pps = security.peer_pps
        self.native.send_pps, self.native.receive_pps = groups.send_pps, groups.receive_pps
        self.native.unicast = UNICAST[security.unicast]
        self.native.has_unicast_ports = bool(security.unicast_ports)
        ffi.memmove(self.native.unicast_port, _bits(security.unicast_ports), len(self.native.unicast_port))


class GroupList:
    """Groups that this host may receive."""

    def __init__(self, groups: GroupsSection) -> None:
        self._allow = [ipaddress.ip_network(text) for text in groups.receive_allow]
        self._deny = [ipaddress.ip_network(text) for text in groups.receive_deny]

    def allows(self, group: Address) -> bool:
        """Return whether this host may receive the group, as mp_policy_delivers() decides."""
        if not self._allow and not self._deny:
            return True
        address = ipaddress.ip_address(group)
        if any(address in network for network in self._deny):
            return False
        return not self._allow or any(address in network for network in self._allow)


def _fill(native: Any, texts: Iterable[str]) -> None:
    for number, text in enumerate(texts):
        network = ipaddress.ip_network(text)
        ffi.memmove(native.prefix[number].address, mapped(network.network_address.packed), 16)
        native.prefix[number].bits = network.prefixlen + (96 if network.version == 4 else 0)
        native.count = number + 1


def _bits(ranges: Iterable[str]) -> bytes:
    """Return a bit map of all ports in which those of the ranges ("5353", "49152-65535") are set."""
    bits = 0
    for text in ranges:
        first, _, last = text.partition("-")
        bits |= (1 << int(last or first) + 1) - (1 << int(first))
    return bits.to_bytes(8192, "little")
