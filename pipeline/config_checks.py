"""Checks of configuration values: for each key a function that returns the canonical value or raises ValueError.

They look at the value alone.  Whether it can be used on this host now (a port, an interface) shows when it is used.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pipeline import limits
from pipeline.address import is_unicast, spans_special_addresses
from pipeline.endpoint import has_scope_id, is_wildcard, join_endpoint, split_endpoint

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

MTU_MIN = 1280
"""Smallest MTU of IPv6 (RFC 8200 §5)."""
MTU_MAX = 9000
"""MTU of jumbo frames.  A slot of the host ring is as large as the MTU."""
INTERFACE_LENGTH_MAX = 15
"""IFNAMSIZ without the terminating zero."""
GROUP_PREFIXES_MAX = 64
"""Ranges in a list of groups, as MP_PREFIXES_MAX."""
PORT_RANGES_MAX = 64
"""Ranges in a list of ports, which is written by hand."""
PORT_MAX = 65535
NODE_PREFIXES_MAX = 64
"""Networks of nodes beside those of this one, which are written by hand."""
PPS_MAX = 1_000_000_000
"""Largest rate: one token each nanosecond.  A larger one would be no limit."""
CPUS_MAX = 1024
"""CPU numbers, as CPU_SETSIZE."""
ROBUSTNESS_MAX = 100
"""Largest Robustness Variable.  With it and the default intervals a membership without reports lasts 3.5 hours.
RFC 9776 §4.1.6 allows values above 7, which are sent as QRV 0.  The startup query count has the same limit, as the
robustness is its default."""
INTERVAL_MAX_S = 31744.0
"""Largest interval that QQIC can hold (RFC 9776 §4.1.7)."""
RESPONSE_MAX_S = 3174.4
"""Largest Max Resp Time of IGMPv3, which has units of 0.1 s (RFC 9776 §4.1.1)."""


def _endpoint(text: str) -> str:
    host, port = split_endpoint(text.strip(), default_port=limits.PORT)
    if ipaddress.ip_address(host).is_multicast:
        raise ValueError(f"{host} is a multicast address")
    return join_endpoint(host, port)


def _node_endpoint(text: str) -> str:
    """Check an endpoint for other nodes; a scope id has a meaning on this host only."""
    endpoint = _endpoint(text)
    address = ipaddress.ip_address(split_endpoint(endpoint)[0])
    if has_scope_id(address) or (address.version == 6 and address.is_link_local):
        raise ValueError(f"{address} is valid on one link only: give a global or unique local address")
    return endpoint


def _peers(texts: tuple[str, ...]) -> tuple[str, ...]:
    endpoints = []
    for text in texts:
        try:
            endpoint = _node_endpoint(text)
        except ValueError as error:
            raise ValueError(str(error) if len(texts) == 1 else f"{text}: {error}") from None
        if is_wildcard(endpoint):
            raise ValueError(f"{text} is not the address of a peer")
        endpoints.append(endpoint)
    endpoints = list(dict.fromkeys(endpoints))
    if len(endpoints) > limits.SEEDS_MAX:
        raise ValueError(f"{len(endpoints)} peers, {limits.SEEDS_MAX} are the limit: nodes learn the others from them")
    return tuple(endpoints)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text) or len(text) > limits.NAME_LENGTH_MAX:
        raise ValueError(f"a name is 1 to {limits.NAME_LENGTH_MAX} of A-Z a-z 0-9 . _ -, the first no . or -")
    return text


def _interface(text: str) -> str:
    if not _INTERFACE.fullmatch(text) or len(text) > INTERFACE_LENGTH_MAX:
        raise ValueError(f"an interface name is 1 to {INTERFACE_LENGTH_MAX} of A-Z a-z 0-9 . _ -")
    return text


def _addresses(texts: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[int, str] = {}
    for text in texts:
        if "/" not in text:
            raise ValueError(f"{text} lacks a prefix length; expected ADDR/BITS such as 10.77.0.1/16")
        try:
            interface = ipaddress.ip_interface(text)
        except ValueError:
            raise ValueError(f"{text} is not of the form ADDR/BITS") from None
        if "%" in text:
            raise ValueError(f"{text} has a scope id: leave out what follows the %")
        if not is_unicast(interface.ip.packed):
            raise ValueError(f"{text} is not a unicast address")
        if spans_special_addresses(interface.ip.packed, interface.max_prefixlen):
            raise ValueError(f"{text} is link-local or reserved: other nodes do not accept it")
        if interface.version in found:
            raise ValueError(f"{text} is a second IPv{interface.version} address: a node has one of each family")
        found[interface.version] = str(interface)
    return tuple(found.values())


def _node_prefixes(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Check networks in which nodes may have addresses."""
    found = []
    for text in texts:
        if "%" in text:
            raise ValueError(f"{text} has a scope id: leave out what follows the %")
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"{text}: {str(error).removeprefix(text).strip()}") from None
        if spans_special_addresses(network.network_address.packed, network.prefixlen):
            raise ValueError(f"{text} has loopback, link-local, multicast or reserved addresses")
        found.append(str(network))
    if len(set(found)) > NODE_PREFIXES_MAX:
        raise ValueError(f"{len(set(found))} prefixes, {NODE_PREFIXES_MAX} are the limit: give one that spans several")
    return tuple(dict.fromkeys(found))


def _routes(texts: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"{text}: {str(error).removeprefix(text).strip()}") from None
        if "%" in text:
            raise ValueError(f"{text} has a scope id: leave out what follows the %")
        if not network.is_multicast:
            raise ValueError(f"{text} is not within 224.0.0.0/4 or ff00::/8: only multicast ranges are allowed")
        found.append(str(network))
    return tuple(dict.fromkeys(found))


def _group_prefixes(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Check groups, or ranges of groups, of both families."""
    if len(texts) > GROUP_PREFIXES_MAX:
        raise ValueError(f"{len(texts)} ranges, {GROUP_PREFIXES_MAX} are the limit")
    return _routes(texts)


def _ports(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Check ports and ranges of ports: "5353", "49152-65535"."""
    found = []
    for text in texts:
        first, dash, last = (part.strip() for part in text.partition("-"))
        numbers = (first, last) if dash else (first,)
        if not all(re.fullmatch("[0-9]{1,5}", number) for number in numbers):
            raise ValueError(f"{text} is neither a port nor a range of ports such as 49152-65535")
        low, high = int(numbers[0]), int(numbers[-1])
        if not 1 <= low <= high <= PORT_MAX:
            raise ValueError(f"{text} is no range of ports within 1 … {PORT_MAX}")
        found.append(f"{low}-{high}" if high > low else str(low))
    found = list(dict.fromkeys(found))
    if len(found) > PORT_RANGES_MAX:
        raise ValueError(f"{len(found)} ranges, {PORT_RANGES_MAX} are the limit")
    return tuple(found)


def _workers(count: int) -> int:
    most = 4 * limits.LANES_MAX
    if count not in (1, 2) and (count % 4 or not 4 <= count <= most):
        raise ValueError(f"the number of workers is 1, 2 or a multiple of 4 up to {most}")
    return count


def _affinity(cpus: tuple[int, ...]) -> tuple[int, ...]:
    if any(not 0 <= cpu < CPUS_MAX for cpu in cpus):
        raise ValueError(f"a CPU is a number within 0 … {CPUS_MAX - 1}")
    return cpus


def _engine(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", text):
        raise ValueError("the name of an engine is a word of a-z 0-9 _ -, at most 32 characters")
    return text


def _querier(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("not an IP address") from None
    if address.version == 4 and not is_unicast(address.packed):
        raise ValueError("not a unicast address")
    if address.version == 6 and not address.is_link_local:  # RFC 9777 §5.1.14
        raise ValueError("an IPv6 querier's address is link-local (fe80::/10)")
    return str(address)


def _bounded(low: float, high: float, unit: str = "") -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value != "auto" and not low <= value <= high:
            raise ValueError(f"must be within {low:g} … {high:g}{unit}")
        return value

    return check


def _power_of_two(low: int, high: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not low <= value <= high or value & (value - 1):
            raise ValueError(f"must be a power of two within {low} … {high}")
        return value

    return check


def _file(text: str) -> str:
    if not text:
        raise ValueError("not the name of a file")
    return text


CHECKS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "node.name": _name,
        "node.listen": _node_endpoint,
        "node.peers": _peers,
        "node.key": _file,
        "node.identity": _file,
        "node.certificate": _file,
        "tun.interface": _interface,
        "tun.mtu": _bounded(MTU_MIN, MTU_MAX),
        "tun.addresses": _addresses,
        "tun.routes": _routes,
        "tun.queue_length": _bounded(1000, 65536),
        "workers.count": _workers,
        "workers.affinity": _affinity,
        "workers.moderation_us": _bounded(0, 10_000, " µs"),
        "rings.host_slots": _power_of_two(64, 65536),
        "rings.overlay_slots": _power_of_two(8, 1024),
        "overlay.engine": _engine,
        "overlay.prefixes": _node_prefixes,
        "membership.robustness": _bounded(1, ROBUSTNESS_MAX),  # RFC 9776 §8.1 forbids 0
        "membership.query_interval_s": _bounded(0.2, INTERVAL_MAX_S, " s"),
        "membership.query_response_interval_s": _bounded(0.1, RESPONSE_MAX_S, " s"),
        "membership.last_member_query_interval_s": _bounded(0.1, RESPONSE_MAX_S, " s"),
        "membership.startup_query_interval_s": _bounded(0.1, INTERVAL_MAX_S, " s"),
        "membership.startup_query_count": _bounded(1, ROBUSTNESS_MAX),
        "membership.igmp_version": _bounded(1, 3),
        "membership.mld_version": _bounded(1, 2),
        "membership.querier_address": _querier,
        "groups.send_allow": _group_prefixes,
        "groups.send_deny": _group_prefixes,
        "groups.receive_allow": _group_prefixes,
        "groups.receive_deny": _group_prefixes,
        "groups.send_pps": _bounded(0, PPS_MAX),
        "groups.receive_pps": _bounded(0, PPS_MAX),
        "security.authority": _file,
        "security.revocations": _file,
        "security.rotate_interval_s": _bounded(1, 30 * 86400, " s"),
        "security.rotate_packets": _bounded(1000, 1 << 34),  # replay windows wrap after 2^37 datagrams of a key
        "security.key_grace_s": _bounded(1, 86400, " s"),
        "security.peer_pps": _bounded(0, PPS_MAX),
        "security.unicast_ports": _ports,
        "metrics.listen": _endpoint,
    }
)
