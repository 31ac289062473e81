"""Endpoints.  Goal: one parser accepts and refuses the same texts everywhere, and wildcard addresses are replaced by
the address of the sender.  Method: tables of texts.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import endpoint
from pipeline.endpoint import join_endpoint, split_endpoint


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("[2001:DB8::1]:80", ("2001:db8::1", 80)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_split_endpoint_returns_address_and_port(text: str, parts: tuple[str, int]) -> None:
    """Goal: split and join are inverse to each other.  Method: addresses of both families, one with a scope id."""
    assert split_endpoint(text) == parts
    assert split_endpoint(join_endpoint(*parts)) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("192.0.2.1", ("192.0.2.1", 4747)),
        ("[2001:db8::1]", ("2001:db8::1", 4747)),
        ("2001:db8::1", ("2001:db8::1", 4747)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
    ],
)
def test_default_port_is_used_for_an_address_alone(text: str, parts: tuple[str, int]) -> None:
    """Goal: users may leave out the port, messages between nodes may not.  Method: with and without a default port."""
    assert split_endpoint(text, default_port=4747) == parts
    if ":80" not in text:
        with pytest.raises(ValueError, match=r"expected|port"):
            split_endpoint(text)


MALFORMED = [
    "",
    "nonsense",
    ":4747",
    "host.example:4747",  # a name would need a lookup, of whatever a peer has put into its message
    "1.2.3.4:0",
    "1.2.3.4:65536",
    "1.2.3.4:x",
    "1.2.3.4:²",
    "1.2.3.4:-1",
    "[1.2.3.4]:80",
    "::1:4747",
    "[::1:4747",
    "[::1]4747",
    "[::1]:",
    "[fe80::1%]:80",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_endpoints_are_refused(text: str) -> None:
    """Goal: a malformed endpoint is an error for users, and nothing is sent to it."""
    with pytest.raises(ValueError):
        split_endpoint(text)
    assert not endpoint.is_endpoint(text)
    assert endpoint.is_wildcard(text)
    assert endpoint.fill_in(text, "192.0.2.2") == text


@given(st.text())
def test_split_endpoint_raises_only_value_error(text: str) -> None:
    """Goal: hostile text ends in a refusal.  Method: random text."""
    for default_port in (None, 4747):
        try:
            host, port = split_endpoint(text, default_port)
        except ValueError:
            continue
        assert split_endpoint(join_endpoint(host, port)) == (host, port)


@pytest.mark.parametrize("text", ["239.1.1.1:4747", "[ff02::1]:4747", "[fe80::1%eth0]:4747", "[2001:db8::1%1]:4747"])
def test_multicast_and_scoped_addresses_are_no_endpoints_of_nodes(text: str) -> None:
    """Goal: no member can let the others send to a multicast address, or to an interface of their own hosts."""
    assert not endpoint.is_endpoint(text)


@pytest.mark.parametrize("text", ["192.0.2.1:4747", "[2001:db8::1]:4747", "0.0.0.0:4747", "[::]:4747"])
def test_unicast_and_wildcard_addresses_are_endpoints_of_nodes(text: str) -> None:
    """Goal: a node may listen on all its addresses; nothing is sent to such an endpoint before it is filled in."""
    assert endpoint.is_endpoint(text)
    assert endpoint.is_wildcard(text) is (text in ("0.0.0.0:4747", "[::]:4747"))


@pytest.mark.parametrize(
    ("text", "hint", "filled_in"),
    [
        ("192.0.2.1:4747", "192.0.2.2", "192.0.2.1:4747"),
        ("0.0.0.0:4747", "192.0.2.2", "192.0.2.2:4747"),
        ("0.0.0.0:4747", "192.0.2.2:55555", "192.0.2.2:4747"),
        ("[::]:4747", "2001:db8::1", "[2001:db8::1]:4747"),
        ("[::]:4747", "[2001:db8::1]:1", "[2001:db8::1]:4747"),
        ("[::]:4747", "[2001:db8::1]", "[2001:db8::1]:4747"),
        ("[::]:4747", "::ffff:192.0.2.2", "192.0.2.2:4747"),
        ("[::]:4747", "fe80::1%eth0", "[::]:4747"),
        ("0.0.0.0:4747", "", "0.0.0.0:4747"),
        ("0.0.0.0:4747", "nonsense", "0.0.0.0:4747"),
    ],
)
def test_wildcard_endpoint_gets_the_address_of_the_sender(text: str, hint: str, filled_in: str) -> None:
    """Goal: only the address is replaced, and only by one that other nodes can use."""
    assert endpoint.fill_in(text, hint) == filled_in


@pytest.mark.parametrize(
    ("own", "other", "may_be_same"),
    [
        ("192.0.2.1:4747", "192.0.2.1:4747", True),
        ("192.0.2.1:4747", "192.0.2.2:4747", False),
        ("0.0.0.0:4747", "192.0.2.2:4747", True),
        ("0.0.0.0:4747", "192.0.2.2:4748", False),
        ("0.0.0.0:4747", "nonsense", False),
    ],
)
def test_wildcard_endpoint_may_be_any_with_its_port(own: str, other: str, may_be_same: bool) -> None:
    """Goal: a node that listens on all addresses recognises itself by its port."""
    assert endpoint.may_be_same(own, other) is may_be_same


@pytest.mark.parametrize(
    ("listen", "unreachable"),
    [
        ("0.0.0.0:4747", ["[2001:db8::1]:4747"]),
        ("192.0.2.9:4747", ["[2001:db8::1]:4747"]),
        ("[2001:db8::9]:4747", ["192.0.2.1:4747"]),
        ("[::]:4747", []),
    ],
)
def test_peers_of_the_other_family_are_unreachable(listen: str, unreachable: list[str]) -> None:
    """Goal: a warning names each peer that no datagram can be sent to.  Method: a peer of each family."""
    assert endpoint.unreachable_peers(listen, ("192.0.2.1:4747", "[2001:db8::1]:4747")) == unreachable
