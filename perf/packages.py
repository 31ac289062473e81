"""Debian packages of VPNs, iperf and perf: installation through apt, and versions for the tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

PACKAGES = {
    "tincd": "tinc",
    "edge": "n2n",
    "supernode": "n2n",
    "fastd": "fastd",
    "openvpn": "openvpn",
    "openssl": "openssl",
    "iperf": "iperf",
    "perf": "linux-perf",
}
"""Debian package of each program."""

INSTALL_TIMEOUT_S = 300
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing(programs: Iterable[str]) -> list[str]:
    """Return the packages of the programs that are not installed."""
    return sorted({PACKAGES[name] for name in programs if name in PACKAGES and not shutil.which(name, path=_PATH)})


def install(programs: Iterable[str]) -> list[str]:
    """Install missing packages one by one, as root; return those that could not be installed."""
    packages = missing(programs)
    if packages:
        print(f"installing Debian packages: {' '.join(packages)}", file=sys.stderr)
        _apt("update", "-qq")
    return [package for package in packages if not _apt("install", "-y", "-qq", "--no-install-recommends", package)]


def _apt(*words: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            ["apt-get", *words],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=INSTALL_TIMEOUT_S,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def versions(programs: Iterable[str]) -> dict[str, str]:
    """Return the Debian version of each program's package."""
    found = {}
    for package in sorted({PACKAGES[name] for name in programs if name in PACKAGES}):
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package], check=False, capture_output=True, text=True, timeout=10
        )
        if done.returncode == 0:
            found[package] = done.stdout.strip()
    return found
