"""Endpoints as text, "ADDR:PORT" or "[ADDR]:PORT": the one parser of them, and the rules for wildcard addresses.

The address is always a literal IP address: a name would need a lookup.  An IPv6 address may have a scope id
("fe80::1%eth0").  A scope id names an interface of this host, so endpoints for other nodes must not have one.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable


def split_endpoint(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Return address and port of "192.0.2.1:4747" or "[2001:db8::1]:4747"; ValueError for any other text.

    With a default port the text may also be an address alone, an IPv6 one with or without brackets.
    """
    host, port = text, "" if default_port is None else str(default_port)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("expected [ADDR]:PORT")
        port = rest[1:] if rest else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    elif default_port is None:
        raise ValueError("expected ADDR:PORT or [ADDR]:PORT")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65535:
        raise ValueError(f"port {port!r} is not within 1 … 65535")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address; expected ADDR:PORT or [ADDR]:PORT") from None
    if address.version == 4 and text.startswith("["):
        raise ValueError(f"{host} is an IPv4 address; expected ADDR:PORT")
    return str(address), int(port)


def join_endpoint(host: str, port: int) -> str:
    """Return the text of an endpoint; an IPv6 address is put into brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@functools.lru_cache(maxsize=4096)
def is_endpoint(text: str) -> bool:
    """Return whether other nodes can use the endpoint: a unicast or wildcard address without scope id, and a port."""
    try:
        address = ipaddress.ip_address(split_endpoint(text)[0])
    except ValueError:
        return False
    return not address.is_multicast and not has_scope_id(address)


def has_scope_id(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether an address names an interface of this host, as in "fe80::1%eth0"."""
    return isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None


@functools.lru_cache(maxsize=4096)
def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address of "ADDR" or of an endpoint, an IPv4-mapped one as IPv4; ValueError for any other text."""
    address = ipaddress.ip_address(split_endpoint(text, default_port=1)[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@functools.lru_cache(maxsize=4096)
def is_loopback(text: str) -> bool:
    """Return whether "ADDR" or an endpoint names this host alone."""
    try:
        return address_of(text).is_loopback
    except ValueError:
        return False


@functools.lru_cache(maxsize=4096)
def is_wildcard(endpoint: str) -> bool:
    """Return whether nothing can be sent to the endpoint: its address is 0.0.0.0 or ::, or it is malformed."""
    try:
        return ipaddress.ip_address(split_endpoint(endpoint)[0]).is_unspecified
    except ValueError:
        return True


@functools.lru_cache(maxsize=4096)
def fill_in(endpoint: str, hint: str) -> str:
    """Return a wildcard endpoint with the address of `hint`, and any other endpoint unchanged.

    `hint` is the address from which a node's message came: "ADDR", "ADDR:PORT", or empty if it is unknown.  A hint
    with a scope id is not used.
    """
    if not hint or not is_wildcard(endpoint):
        return endpoint
    try:
        port = split_endpoint(endpoint)[1]
        address = ipaddress.ip_address(split_endpoint(hint, default_port=port)[0])
    except ValueError:
        return endpoint
    if has_scope_id(address):
        return endpoint
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return join_endpoint(str(mapped or address), port)


def may_be_same(own: str, other: str) -> bool:
    """Return whether `other` can be how another node sees the endpoint `own`, which may be a wildcard."""
    if not is_wildcard(own):
        return own == other
    try:
        return split_endpoint(own)[1] == split_endpoint(other)[1]
    except ValueError:
        return False


def unreachable_peers(listen: str, peers: Iterable[str]) -> list[str]:
    """Return the peers that a socket bound to `listen` cannot reach because they are of the other address family.

    A socket on [::] reaches both families.
    """
    host = split_endpoint(listen)[0]
    return [peer for peer in peers if host != "::" and (":" in split_endpoint(peer)[0]) is not (":" in host)]
