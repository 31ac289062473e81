"""Source addresses of this node's membership queries."""

from __future__ import annotations

import ipaddress

from pipeline.address import OVERLAY_V4, Address, parse

QUERIER_V6 = parse("fe80::1:4d43:5351")
"""The IPv6 querier address of every node.  It is low so that it wins the election, which the lowest address wins."""


def querier_addresses(configured: str | None, addresses: tuple[str, ...]) -> tuple[Address, Address]:
    """Return the IPv4 and the IPv6 address that queries are sent from.

    The IPv4 address is the last host of the overlay's subnet, the IPv6 address is link-local.  `configured` replaces
    the one of its family.  A node that has the last host address itself uses the one before it, because the kernel
    accepts no packets from its own address.
    """
    networks = [ipaddress.ip_interface(text).network for text in addresses]
    network = next((net for net in networks if net.version == 4), OVERLAY_V4)
    last = network.broadcast_address - 1
    own = {ipaddress.ip_interface(text).ip for text in addresses}
    v4, v6 = (last - 1 if last in own else last).packed, QUERIER_V6
    if configured is None:
        return v4, v6
    address = parse(configured)
    return (address, v6) if len(address) == 4 else (v4, address)
