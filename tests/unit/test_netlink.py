"""Goal: a kernel without IPv6 runs a node for IPv4 groups, as `pipeline check` says.  Method: the file by which it is
known is another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.io import netlink

ADDRESSES = ["10.77.0.1/16", "fd77::1/64"]


def test_without_ipv6_only_ipv4_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(netlink, "IF_INET6", tmp_path / "if_inet6")
    assert netlink.usable(ADDRESSES) == ADDRESSES[:1]
    (tmp_path / "if_inet6").touch()
    assert netlink.usable(ADDRESSES) == ADDRESSES
