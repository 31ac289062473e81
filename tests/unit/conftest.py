"""Fixtures of the unit tests: a few nodes on virtual time."""

from __future__ import annotations

import pytest

from pipeline.overlay.node import OverlayNode
from tests.unit.overlay_net import Net


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def pair(net: Net) -> tuple[OverlayNode, OverlayNode]:
    """Two linked nodes."""
    a = net.add("a")
    b = net.add("b", peers=("192.0.2.1:4747",))
    net.run(0.2)
    return a, b
