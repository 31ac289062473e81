"""Goal: the cost of a packet in the data plane does not grow unnoticed, on any machine.

Method: tests/native/guard moves packets from the TUN of one node into those of two others.  The stages' own counters
count system calls, callgrind counts instructions inside their loop; two runs of different length differ by the cost of
the packets.  Bounds are a quarter above the figures of 2026-11: 20,800 instructions for a packet of 1316 bytes of
payload (one seal, two opens, two deliveries), 2,560 for one of 64, which shares its datagram.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[1] / "native"
GUARD = NATIVE / "bin/plain/guard"
AT_ONCE = 64  # as in guard.c
SHORT, LONG = 32 * AT_ONCE, 64 * AT_ONCE


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    subprocess.run(["make", "-C", NATIVE, "guard"], check=True, capture_output=True)


def _counts(payload: int) -> dict[str, float]:
    """Return the counters of the guard, each for one packet."""
    done = subprocess.run([GUARD, str(LONG), str(payload)], check=True, capture_output=True, text=True)
    counted = json.loads(done.stdout)
    assert counted["delivered"] == 2 * LONG
    return {name: value / LONG for name, value in counted.items()}


def _instructions(packets: int, payload: int) -> int:
    tool = ["valgrind", "--tool=callgrind", "--toggle-collect=mp_worker_run", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*tool, GUARD, str(packets), str(payload)], check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found, done.stderr
    return int(found[1])


@pytest.mark.parametrize(("payload", "tx_calls", "tun_writes"), [(1316, 4, 4), (64, 2, 2)])
def test_batch_takes_few_system_calls(payload: int, tx_calls: int, tun_writes: int) -> None:
    """64 queued packets to two receivers: one send for each receiver and 65,000 bytes, and deliveries likewise."""
    counts = _counts(payload)
    assert counts["tx_calls"] * AT_ONCE <= tx_calls
    assert counts["tun_writes"] * AT_ONCE <= tun_writes
    assert counts["rx_calls"] * AT_ONCE <= 2


def test_small_packets_share_datagrams() -> None:
    """Small packets that are queued together share datagrams: 15 of 92 bytes fit the MTU of 1436."""
    assert _counts(64)["sealed"] * 12 <= 1


@pytest.mark.parametrize(("payload", "most"), [(1316, 26_000), (64, 3_200)])
def test_packet_takes_few_instructions(payload: int, most: int) -> None:
    """Instructions of all stages of one sender and two receivers."""
    each = (_instructions(LONG, payload) - _instructions(SHORT, payload)) / (LONG - SHORT)
    assert each <= most, f"{each:.0f} instructions for a packet"
