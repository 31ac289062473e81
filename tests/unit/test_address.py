"""Addresses.  Goal: groups have the scopes of the RFCs, and derived addresses are in the overlay's networks.

Method: examples, and random names.
"""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import address
from pipeline.address import ANY_SOURCE, OVERLAY_V4, OVERLAY_V6, FilterMode, SourceFilter, include, parse, show


@given(st.ip_addresses())
def test_text_and_packed_form_agree_with_the_standard_library(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Goal: our faster functions give the same result as `ipaddress`."""
    assert parse(str(ip)) == ip.packed
    assert show(ip.packed) == str(ip)
    assert address.is_multicast(ip.packed) == ip.is_multicast


@pytest.mark.parametrize(
    ("text", "link", "node", "ssm"),
    [
        ("224.0.0.251", True, False, False),
        ("224.0.1.1", False, False, False),
        ("232.1.1.1", False, False, True),
        ("239.1.1.1", False, False, False),
        ("ff02::fb", True, False, False),
        ("ff12::fb", True, False, False),
        ("ff01::1", False, True, False),
        ("ff00::1", False, True, False),
        ("ff15::1", False, False, False),
        ("ff35::1", False, False, True),
        ("ff35:1::1", False, False, False),
    ],
)
def test_scope_of_groups(text: str, link: bool, node: bool, ssm: bool) -> None:
    """Goal: link scope, node scope and source-specific groups are recognised."""
    group = parse(text)
    assert (address.is_link_scope(group), address.is_node_scope(group), address.is_ssm(group)) == (link, node, ssm)


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::", "::1", "ff02::1"]
)
def test_addresses_that_cannot_be_a_source(text: str) -> None:
    """Goal: unspecified, loopback, multicast, class E and broadcast addresses are not unicast."""
    assert not address.is_unicast(parse(text))


@given(st.text(min_size=1, max_size=63), st.integers(0, 100))
def test_derived_addresses_are_hosts_of_the_overlay(name: str, attempt: int) -> None:
    """Goal: a derived address is stable, in the overlay's networks, and neither broadcast nor the querier's."""
    v4, v6 = address.derive_addresses(name, attempt)
    assert ipaddress.IPv4Address(v4) in OVERLAY_V4
    assert ipaddress.IPv6Address(v6) in OVERLAY_V6
    assert v4[3] not in (0, 255)
    assert show(v4) != "10.77.255.254"
    assert address.derive_addresses(name, attempt) == (v4, v6)
    assert address.derive_addresses(name, attempt + 1) != (v4, v6)


def test_source_filter_accepts_the_requested_sources() -> None:
    """Goal: INCLUDE accepts the listed sources, EXCLUDE all others."""
    one, other = parse("10.0.0.1"), parse("10.0.0.2")
    assert ANY_SOURCE.accepts(one)
    assert not SourceFilter(FilterMode.EXCLUDE, frozenset({one})).accepts(one)
    assert include([one]).accepts(one)
    assert not include([one]).accepts(other)
    assert include([]).is_empty
    assert not ANY_SOURCE.is_empty


@pytest.mark.parametrize(
    ("text", "link_local"),
    [("fd77::1", "fe80::1"), ("fd77:0:0:0:1:2:3:4", "fe80::1:2:3:4"), ("2001:db8:1:2::a", "fe80::a")],
)
def test_link_local_address_has_the_last_64_bits(text: str, link_local: str) -> None:
    """Goal: the link-local address follows from the overlay address."""
    assert show(address.link_local(parse(text))) == link_local
