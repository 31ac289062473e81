"""Addresses, routes and kernel settings of the instance's interface, through pyroute2 and /proc/sys.

This module changes nothing but that interface, and all of it goes away with the interface.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pipeline.address import link_local, show
from pipeline.endpoint import split_endpoint
from pipeline.errors import PermissionDeniedError, PipelineError

OVERHEAD_V4, OVERHEAD_V6 = 64, 84
"""Bytes that the underlay adds to an inner packet: IP 20 or 40, UDP 8, header of a datagram 20, its tag 16."""
MTU_USUAL, MTU_MIN = 1436, 1280
"""Inner MTU that fits Ethernet's 1500 over IPv4, and the smallest MTU of IPv6 (RFC 8200 §5)."""

IF_INET6 = Path("/proc/net/if_inet6")
"""File that a kernel without IPv6 does not have."""
SETTINGS = Path("/proc/sys/net")
IFF_UP = 0x1
IFA_F_NODAD = 0x02
ADDR_GEN_NONE = "1"
"""The kernel adds no link-local address of its own, because peers must be able to derive it (address.link_local)."""
RT_TABLE_LOCAL = 255
V6_METRIC = 64
"""Metric below that of the ff00::/8 route (256) which the kernel gives every interface."""


def configure(interface: str, *, mtu: int, queue_length: int, addresses: Iterable[str], routes: Iterable[str]) -> None:
    """Bring the interface up with its addresses ("10.77.0.1/16") and multicast routes ("224.0.0.0/4").

    IPv6 ones are left out where the interface has no IPv6.
    """
    addresses = tuple(addresses)
    _change_settings(interface)
    if any(":" in address for address in addresses):  # without one, MLD needs the kernel's own address as its source
        _change_setting(interface, "ipv6", "addr_gen_mode", ADDR_GEN_NONE)
    with IPRoute() as ip, _plain_errors(interface):
        index = ip.link_lookup(ifname=interface)[0]
        ip.link("set", index=index, mtu=mtu, txqlen=queue_length)
        for address in usable(interface, addresses):
            _add_address(ip, index, address)
        ip.link("set", index=index, state="up")
        for route in usable(interface, routes):
            _add_route(ip, index, route)


def why_no_ipv6(interface: str) -> str | None:
    """Return the reason why the interface has no IPv6, or None if it has."""
    if not IF_INET6.exists():
        return "the kernel has no IPv6"
    if _read_setting(interface, "ipv6", "disable_ipv6") == "1":
        return f"net.ipv6.conf.{interface}.disable_ipv6 is 1"
    return None


def why_no_ipv6_on_new_interfaces() -> str | None:
    """Return the reason why a new interface cannot have IPv6, or None if it can: `configure` switches it on."""
    reason = why_no_ipv6("default")
    return None if _is_writable("default", "ipv6", "disable_ipv6") else reason


def usable(interface: str, networks: Iterable[str]) -> list[str]:
    """Return the addresses or networks whose family the interface has."""
    has_ipv6 = why_no_ipv6(interface) is None
    return [network for network in networks if ":" not in network or has_ipv6]


def is_up(interface: str) -> bool:
    """Return whether the interface is up."""
    with IPRoute() as ip, _plain_errors(interface):
        return bool(ip.get_links(ip.link_lookup(ifname=interface)[0])[0]["flags"] & IFF_UP)


def put_back(interface: str, addresses: Iterable[str], routes: Iterable[str]) -> list[str]:
    """Add the addresses and routes that the interface lacks; return those that were added."""
    lacking = []
    with IPRoute() as ip, _plain_errors(interface):
        index = ip.link_lookup(ifname=interface)[0]
        lacking += [address for address in usable(interface, addresses) if _add_address(ip, index, address)]
        lacking += [route for route in usable(interface, routes) if _add_route(ip, index, route)]
    return lacking


def replace_addresses(interface: str, old: Iterable[str], new: Iterable[str]) -> None:
    """Give the interface other addresses after a conflict; its routes stay.

    A new IPv4 address in the old one's subnet would be its secondary address and go with it.  All routes of the
    interface go with its last address.  So each new address is there as a /32 while the old ones are deleted.
    """
    old, new = usable(interface, old), usable(interface, new)
    bridges = [f"{ip}/32" for ip in (ipaddress.ip_interface(address).ip for address in new) if ip.version == 4]
    with IPRoute() as ip, _plain_errors(interface):
        index = ip.link_lookup(ifname=interface)[0]
        for address in bridges:
            _add_address(ip, index, address)
        for address in old:
            _delete_address(ip, index, address)
        for address in new:
            _add_address(ip, index, address)
        for address in bridges:
            if address not in new:
                _delete_address(ip, index, address)


def underlay_mtu(listen: str, peers: Iterable[str]) -> int:
    """Return the inner MTU with which datagrams to the peers need no fragments, at most MTU_USUAL."""
    host, _ = split_endpoint(listen)
    overhead = OVERHEAD_V6 if ipaddress.ip_address(host).version == 6 else OVERHEAD_V4
    with IPRoute() as ip:
        mtus = [_mtu_towards(ip, split_endpoint(peer)[0]) for peer in peers]
        mtus += [_mtu_of(ip, found["index"]) for found in ip.get_addr(address=host)]
    return max(MTU_MIN, min([MTU_USUAL, *(mtu - overhead for mtu in mtus if mtu)]))


def _mtu_towards(ip: IPRoute, target: str) -> int | None:
    try:
        return _mtu_of(ip, ip.route("get", dst=target)[0].get("oif"))
    except (NetlinkError, IndexError):
        return None  # not reachable now: MTU_USUAL holds


def _mtu_of(ip: IPRoute, index: int) -> int:
    return int(ip.get_links(index)[0].get("mtu"))


def _add_address(ip: IPRoute, index: int, address: str) -> bool:
    """Add an address; return whether it was absent."""
    added = [_add_one(ip, index, parsed) for parsed in _with_link_local(address)]
    return any(added)


def _add_one(ip: IPRoute, index: int, parsed: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> bool:
    flags = {"flags": IFA_F_NODAD} if parsed.version == 6 else {}
    try:
        ip.addr("add", index=index, address=str(parsed.ip), prefixlen=parsed.network.prefixlen, **flags)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
        return False
    return True


def _delete_address(ip: IPRoute, index: int, address: str) -> None:
    for parsed in _with_link_local(address):
        try:
            ip.addr("del", index=index, address=str(parsed.ip), prefixlen=parsed.network.prefixlen)
        except NetlinkError as error:
            if error.code != errno.EADDRNOTAVAIL:
                raise


def _with_link_local(address: str) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    """Return the address and, for an IPv6 one, the link-local address that peers derive from it."""
    parsed = ipaddress.ip_interface(address)
    if parsed.version == 4:
        return [parsed]
    return [parsed, ipaddress.ip_interface(f"{show(link_local(parsed.ip.packed))}/64")]


def _add_route(ip: IPRoute, index: int, route: str) -> bool:
    """Add a route; return whether it was absent.  NetlinkError if another interface has it."""
    try:
        _add_new_route(ip, index, route)
    except NetlinkError as error:
        if error.code != errno.EEXIST or not _has_route(ip, index, route):
            raise
        return False
    return True


def _has_route(ip: IPRoute, index: int, route: str) -> bool:
    network = ipaddress.ip_network(route)
    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    return any(
        found["dst_len"] == network.prefixlen and found.get("dst") == str(network.network_address)
        for found in ip.get_routes(family=family, oif=index)
    )


def _add_new_route(ip: IPRoute, index: int, route: str) -> None:
    if ipaddress.ip_network(route).version == 6:
        where = {"table": RT_TABLE_LOCAL, "priority": V6_METRIC, "type": "multicast"}
        ip.route("add", family=socket.AF_INET6, dst=route, oif=index, **where)
    else:
        ip.route("add", dst=route, oif=index, scope="link")


def _change_settings(interface: str) -> None:
    """Change the kernel's settings of the interface.

    rp_filter 2 is loose and beats a strict 1 of `all`: sources behind other nodes may send.  promote_secondaries keeps
    a secondary address when the primary one is deleted.  IPv6 sends no router solicitations, which no router answers.
    """
    for family, setting, value in (
        ("ipv4", "rp_filter", "2"),
        ("ipv4", "promote_secondaries", "1"),
        ("ipv6", "disable_ipv6", "0"),
        ("ipv6", "accept_ra", "0"),
        ("ipv6", "router_solicitations", "0"),
    ):
        _change_setting(interface, family, setting, value)


def _change_setting(interface: str, family: str, setting: str, value: str) -> None:
    with contextlib.suppress(OSError):  # a kernel without IPv6, or /proc/sys read-only: the host's value stays
        _setting_path(interface, family, setting).write_text(value)


def _read_setting(interface: str, family: str, setting: str) -> str | None:
    try:
        return _setting_path(interface, family, setting).read_text().strip()
    except OSError:
        return None


def _is_writable(interface: str, family: str, setting: str) -> bool:
    try:
        with _setting_path(interface, family, setting).open("r+"):
            return True
    except OSError:
        return False


def _setting_path(interface: str, family: str, setting: str) -> Path:
    return SETTINGS / family / "conf" / interface / setting


@contextlib.contextmanager
def _plain_errors(interface: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code in (errno.EPERM, errno.EACCES):
            raise PermissionDeniedError(
                f"interface {interface}: no permission to configure it: run as root or with CAP_NET_ADMIN"
            ) from None
        if error.code == errno.EEXIST:
            raise PipelineError(
                f"interface {interface}: another interface has a route of [tun] routes: remove it or choose others"
            ) from None
        raise PipelineError(f"interface {interface}: {os.strerror(error.code)}") from None
    except IndexError:
        raise PipelineError(f"interface {interface}: it is gone") from None
