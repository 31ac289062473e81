"""A member with a modified program that seals datagrams in the name of another node."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from pipeline.lab.instance import Instance
from tests.netns.forger import DATA, ECHO, PROBE_SPACE, key_of
from tests.netns.network import Network, drops, fresh_group, wait_route
from tests.netns.sockets import Sockets
from tests.netns.traffic import Receiver, Sender

MakeNetwork = Callable[..., Network]
Measured = Callable[..., None]
FAR = 1 << 30
WINDOW_WORDS = 2048  # MP_WINDOW_WORDS
PORT = 4747
BODY = bytes(28)
OUTAGE_MAX_MS = 3000
"""The report takes a round trip, the tick of the keys at most a second, and so does a record that is lost once."""


def fill_windows(port: socket.socket, attacker: Instance, origin: Instance, target: Instance, *, data: bool) -> int:
    """Fill the target's windows of an origin with numbers far ahead; return the number of bytes."""
    key, sent_bytes = key_of(origin, attacker), 0
    spaces = [(ECHO, PROBE_SPACE + lane) for lane in range(key.lanes)]
    spaces += [(DATA, lane) for lane in range(key.lanes)] if data else []
    for kind, space in spaces:
        for word in range(WINDOW_WORDS):
            datagram = key.datagram(kind, space, FAR + 32 * word, BODY)
            sent_bytes += port.sendto(datagram, (target.host.underlay, PORT))
            if word % 128 == 0:
                time.sleep(0.005)  # the receiver has two cores together with all others
    return sent_bytes


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "insecure"])
def test_full_replay_windows_are_replaced_within_3_s(
    make_network: MakeNetwork, sockets: Sockets, measured: Measured, sealed: bool
) -> None:
    """Goal: numbers far ahead, sealed by a member in the name of a source, stop its stream for 3 s at most.  With
    `--insecure` the same holds for a host without any key.
    Method: during a stream the third host fills all windows in which the receiver and the source have each other's
    numbers, so that neither accepts the probes of the other.  The longest gap of the stream is measured.  The source
    has another key epoch afterwards, and the links are up."""
    network = make_network(3, sealed=sealed)
    source, member, attacker = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    epoch = source.request("status")["key_epoch"]
    sender = Sender(source.host, group, pps=200, seconds=10)
    time.sleep(1)
    port = sockets.open(attacker.host, socket.AF_INET, socket.SOCK_DGRAM)
    sent_bytes = fill_windows(port, attacker, member, source, data=False)
    sent_bytes += fill_windows(port, attacker, source, member, data=True)
    sent = sender.sent()
    refused = drops(member).get("replay", 0)
    counts = receiver.stop().stream()
    measured(attack_bytes=sent_bytes, sent=sent, refused=refused, received=counts["unique"], gap_ms=counts["gap_ms"])
    assert refused > 0, "the attack has filled the windows"
    assert counts["duplicates"] == 0
    assert counts["gap_ms"] <= OUTAGE_MAX_MS
    assert sent - counts["unique"] <= 200 * OUTAGE_MAX_MS / 1000
    assert source.request("status")["key_epoch"] != epoch
    assert source.process.log.count("forges this node's datagrams") == 1
    assert network.is_healthy()
