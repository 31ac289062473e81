"""Goal: an interface without IPv6 gets IPv4 addresses only, and the reason is known.
Method: files of the test in place of /proc/net/if_inet6 and /proc/sys/net."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.io import netlink

ADDRESSES = ["10.77.0.1/16", "fd77::1/64"]


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the file of net.ipv6.conf.mcast0.disable_ipv6 in a kernel that has IPv6."""
    monkeypatch.setattr(netlink, "IF_INET6", tmp_path / "if_inet6")
    monkeypatch.setattr(netlink, "SETTINGS", tmp_path)
    netlink.IF_INET6.touch()
    path = tmp_path / "ipv6" / "conf" / "mcast0" / "disable_ipv6"
    path.parent.mkdir(parents=True)
    path.write_text("0\n")
    return path


def test_kernel_without_ipv6_leaves_ipv4(setting: Path) -> None:
    """Goal: only IPv4 addresses are used.  Method: if_inet6 is absent, then present."""
    netlink.IF_INET6.unlink()
    assert netlink.usable("mcast0", ADDRESSES) == ADDRESSES[:1]
    netlink.IF_INET6.touch()
    assert netlink.usable("mcast0", ADDRESSES) == ADDRESSES


def test_ipv6_switched_off_leaves_ipv4_and_names_the_setting(setting: Path) -> None:
    """Goal: the sysctl counts for its interface, and the reason names it.  Method: the value 1."""
    setting.write_text("1\n")
    assert netlink.usable("mcast0", ADDRESSES) == ADDRESSES[:1]
    assert netlink.why_no_ipv6("mcast0") == "net.ipv6.conf.mcast0.disable_ipv6 is 1"
    assert netlink.why_no_ipv6("other0") is None
