"""Goal: the querier's addresses are never the host's own, and may be configured (item 13).  Method: a table."""

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
def test_querier_addresses(configured: str | None, addresses: tuple[str, ...], v4: str, v6: str) -> None:
    assert tuple(map(show, querier_addresses(configured, addresses))) == (v4, v6)
