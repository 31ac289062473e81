"""Querier addresses.  Goal: the addresses are never the host's own, and can be configured.  Method: a table."""

from __future__ import annotations

import pytest

from pipeline.address import show
from pipeline.membership.querier_address import QUERIER_V6, querier_addresses


@pytest.mark.parametrize(
    ("configured", "addresses", "v4", "v6"),
    [
        (None, ("10.77.3.4/16", "fd77::1/64"), "10.77.255.254", show(QUERIER_V6)),
        (None, ("192.0.2.1/24",), "192.0.2.254", show(QUERIER_V6)),
        (None, ("192.0.2.254/24",), "192.0.2.253", show(QUERIER_V6)),  # the host is the last one itself
        (None, ("fd77::1/64",), "10.77.255.254", show(QUERIER_V6)),
        ("192.0.2.7", ("192.0.2.1/24",), "192.0.2.7", show(QUERIER_V6)),
        ("fe80::7", ("192.0.2.1/24",), "192.0.2.254", "fe80::7"),
    ],
)
def test_querier_addresses_are_the_last_of_the_subnet_and_link_local(
    configured: str | None, addresses: tuple[str, ...], v4: str, v6: str
) -> None:
    """Goal: the IPv4 address is the last free one of the subnet; a configured address replaces that of its family."""
    assert tuple(map(show, querier_addresses(configured, addresses))) == (v4, v6)
