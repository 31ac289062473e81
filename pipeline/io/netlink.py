"""The interface's addresses, routes and switches, through pyroute2.

It changes nothing but the instance's own interface, whose removal takes all of it along.
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
"""IP 20 or 40, UDP 8, our header 20, tag 16."""
MTU_USUAL, MTU_MIN = 1436, 1280
"""What fits Ethernet's 1500 over IPv4, and the least that IPv6 runs on."""

IF_INET6 = Path("/proc/net/if_inet6")
IFF_UP = 0x1
IFA_F_NODAD = 0x02
ADDR_GEN_NONE = "1"
"""No link-local address of the kernel's choice: peers must know it."""
RT_TABLE_LOCAL = 255
V6_METRIC = 64
"""Before the ff00::/8 routes (metric 256) that the kernel gives every interface."""


def configure(interface: str, *, mtu: int, queue_length: int, addresses: Iterable[str], routes: Iterable[str]) -> None:
    """Brings the interface up with its addresses ("10.77.0.1/16") and multicast routes ("224.0.0.0/4")."""
    addresses = tuple(addresses)
    _set_switches(interface)
    if any(":" in address for address in addresses):  # else the kernel's own is the source that MLD needs
        _set_switch(interface, "ipv6", "addr_gen_mode", ADDR_GEN_NONE)
    with IPRoute() as ip, _plain_errors(interface):
        index = ip.link_lookup(ifname=interface)[0]
        ip.link("set", index=index, mtu=mtu, txqlen=queue_length)
        for address in usable(addresses):
            _add_address(ip, index, address)
        ip.link("set", index=index, state="up")
        for route in usable(routes):
            _add_route(ip, index, route)


def has_ipv6() -> bool:
    """Whether this kernel has IPv6 and it is not switched off as a whole."""
    return IF_INET6.exists()


def usable(things: Iterable[str]) -> list[str]:
    """Those addresses or networks whose family this kernel has."""
    return [thing for thing in things if ":" not in thing or has_ipv6()]


def is_up(interface: str) -> bool:
    """Whether the interface is up."""
    with IPRoute() as ip, _plain_errors(interface):
        return bool(ip.get_links(ip.link_lookup(ifname=interface)[0])[0]["flags"] & IFF_UP)


def put_back(interface: str, addresses: Iterable[str], routes: Iterable[str]) -> list[str]:
    """Adds the addresses and routes that it lacks; which those were."""
    lacking = []
    with IPRoute() as ip, _plain_errors(interface):
        index = ip.link_lookup(ifname=interface)[0]
        for add, things in ((_add_address, addresses), (_add_route, routes)):
            lacking += [thing for thing in usable(things) if add(ip, index, thing)]
    return lacking


def replace_addresses(interface: str, old: Iterable[str], new: Iterable[str]) -> None:
    """Moves the interface to other addresses after a conflict; routes to it stay.

    An IPv4 address of the old one's subnet would be its secondary and go with it, and with the last address all routes
    of the interface: so each stands there as a /32 meanwhile.
    """
    old, new = usable(old), usable(new)
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
    """The inner MTU that fits the way to the peers without fragments; at most what all of an overlay can share."""
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
        return None  # not reachable now; the usual MTU will do


def _mtu_of(ip: IPRoute, index: int) -> int:
    return int(ip.get_links(index)[0].get("mtu"))


def _add_address(ip: IPRoute, index: int, address: str) -> bool:
    """Whether it was not there."""
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
    """The address, and with one of IPv6 the link-local one that peers expect this node to have."""
    parsed = ipaddress.ip_interface(address)
    if parsed.version == 4:
        return [parsed]
    return [parsed, ipaddress.ip_interface(f"{show(link_local(parsed.ip.packed))}/64")]


def _add_route(ip: IPRoute, index: int, route: str) -> bool:
    """Whether it was not there; NetlinkError if another interface has it."""
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


def _set_switches(interface: str) -> None:
    """Loose rp_filter (2 beats a strict 1 of `all`): sources of routed islands are welcome.

    An address that is added before the old one goes stays.  IPv6 on, without router solicitations: nobody answers them.
    """
    for family, switch, value in (
        ("ipv4", "rp_filter", "2"),
        ("ipv4", "promote_secondaries", "1"),
        ("ipv6", "disable_ipv6", "0"),
        ("ipv6", "accept_ra", "0"),
        ("ipv6", "router_solicitations", "0"),
    ):
        _set_switch(interface, family, switch, value)


def _set_switch(interface: str, family: str, switch: str, value: str) -> None:
    with contextlib.suppress(OSError):  # a kernel without IPv6, or /proc/sys read-only: as the host wants it
        Path(f"/proc/sys/net/{family}/conf/{interface}/{switch}").write_text(value)


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
        raise PipelineError(f"interface {interface}: it has gone") from None
