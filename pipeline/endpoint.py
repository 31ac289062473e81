"""Endpoints as text, "ADDR:PORT" or "[ADDR]:PORT": which are dialled, and how a wildcard one gets its address."""

from __future__ import annotations

import functools
import ipaddress


def split(endpoint: str) -> tuple[str, int] | None:
    """Host and port; None if the text is no endpoint."""
    host, colon, port = endpoint.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    return host, int(port)


def join(host: str, port: int) -> str:
    """The text of an endpoint."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@functools.lru_cache(maxsize=4096)
def is_wildcard(endpoint: str) -> bool:
    """Whether the endpoint cannot be dialled: it has no address but 0.0.0.0 or ::, or none in figures."""
    parts = split(endpoint)
    if parts is None:
        return True
    try:
        return ipaddress.ip_address(parts[0]).is_unspecified
    except ValueError:
        return True


@functools.lru_cache(maxsize=4096)
def fill_in(endpoint: str, hint: str) -> str:
    """A wildcard endpoint with the address of `hint` ("ADDR", "ADDR:PORT" or empty: the caller saw nothing)."""
    parts = split(endpoint)
    if not hint or parts is None or not is_wildcard(endpoint):
        return endpoint
    seen = split(hint)
    host = seen[0] if seen is not None else hint.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return endpoint
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return join(str(mapped or address), parts[1])


def may_be_same(own: str, other: str) -> bool:
    """Whether `other` may be how another node sees `own`, which may be a wildcard."""
    if not is_wildcard(own):
        return own == other
    mine, seen = split(own), split(other)
    return mine is not None and seen is not None and mine[1] == seen[1]
