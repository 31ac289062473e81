"""Hostile traffic from the underlay: from hosts without the network key, and from a member that sends malformed
control messages."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace

import msgspec
import pytest

from pipeline import limits
from pipeline.io import bus
from pipeline.messages import (
    SIGNED_PROTOCOL,
    UNSIGNED_PROTOCOL,
    DirectorySummary,
    DirectoryUpdate,
    Greeting,
    Heartbeat,
    encode_frame,
    encode_unsigned,
)
from pipeline.overlay.records import on_wire
from tests.netns.member import Member
from tests.netns.network import Network, drops, fresh_group, wait_route, worker_pid
from tests.netns.sockets import Sockets, read_packets
from tests.netns.traffic import Receiver, Sender
from tests.unit.overlay_net import Forger

MakeNetwork = Callable[..., Network]
Measured = Callable[..., None]
UDP_PAYLOAD = 14 + 20 + 8
HOSTILE = 1_000_000
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47)
CONNECTIONS = 400


def capture_datagrams(network: Network, sockets: Sockets, count: int) -> list[bytes]:
    """Return UDP payloads of a running stream from host 1 to host 2, captured on the underlay."""
    sniffer = sockets.sniffer(network.lab.bridge, network.hosts[1].bridge_port)
    frames = read_packets(sniffer, 5, lambda frame: frame[23] == socket.IPPROTO_UDP and len(frame) > 300, count)
    return [frame[UDP_PAYLOAD:] for frame in frames]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_million_hostile_datagrams_harm_no_stream(
    make_network: MakeNetwork, sockets: Sockets, measured: Measured
) -> None:
    """Goal: a million replayed, altered, cut, mixed and random datagrams are not delivered, harm no stream, and are not
    logged one by one.
    Method: a host of the underlay sends them during a stream of 5 Mbit/s, which is complete and without duplicates.
    More than half of the hostile datagrams are counted; the kernel drops the rest at the socket."""
    network = make_network(3)
    source, member, stranger = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sender = Sender(source.host, group, mbit=5, seconds=100)
    genuine = capture_datagrams(network, sockets, 200)
    rng = random.Random(5)
    hostile = list(genuine)
    for datagram in genuine * 5:
        changed = bytearray(datagram)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        hostile += [bytes(changed), datagram[: rng.randrange(len(datagram))], rng.randbytes(rng.randrange(1, 1400))]
        hostile.append(datagram[:20] + rng.choice(genuine)[20:])
    rng.shuffle(hostile)
    lines, before = len(member.process.log.splitlines()), sum(drops(member).values())
    flood = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_DGRAM)
    flood.connect((member.host.underlay, 4747))
    began = time.monotonic()
    for number in range(HOSTILE):
        if number % 2000 == 0:
            time.sleep(0.01)  # two cores have to run the stream, the flood and both nodes
        flood.send(hostile[number % len(hostile)])
    seconds = time.monotonic() - began
    assert sender.process.alive(), "the stream ended before the flood"
    sent = sender.stop()
    receiver.account().assert_perfect(sent)
    counted = sum(drops(member).values()) - before
    measured(hostile=HOSTILE, counted=counted, seconds=seconds, reasons=str(drops(member)))
    assert counted > HOSTILE * 0.5
    assert len(member.process.log.splitlines()) - lines <= 2
    assert network.is_healthy()


def replies_to(connection: socket.socket, opening: bytes) -> bytes:
    """Send the opening on a connection; return every byte that the node sends until it closes the connection."""
    replies = b""
    for part, timeout_s in ((opening[: len(GREETING)], 0.2), (opening[len(GREETING) :], 4)):
        connection.settimeout(timeout_s)  # read after the first part, since a reset discards unread bytes
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.sendall(part)
            while data := connection.recv(4096):
                replies += data
    return replies


def test_outsider_gets_no_data_and_no_amplification(network: Network, sockets: Sockets, measured: Measured) -> None:
    """Goal: the data port sends no reply to a stranger, so it amplifies nothing.  The control port reveals only that it
    uses ZeroMQ with CURVE; it never sends more bytes than a greeting or than it has received, and no name, key, address
    or group.
    Method: captured, forged and random datagrams of every type to the data port; every kind of opening to the control
    port.  Each byte that is sent back is counted, and searched for such data."""
    _, member, _, stranger = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(network.instances[0], group, [member])
    sender = Sender(network.instances[0].host, group, mbit=2, seconds=2)
    genuine = capture_datagrams(network, sockets, 20)
    port = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_DGRAM)
    port.connect((member.host.underlay, 4747))
    rng = random.Random(6)
    sent_bytes = 0
    for kind in range(16):
        for datagram in genuine:
            sent_bytes += port.send(bytes([0x10 | kind]) + datagram[1:])
            sent_bytes += port.send(bytes([0x10 | kind]) + rng.randbytes(51))
    port.settimeout(1.0)
    with pytest.raises(TimeoutError):
        port.recv(2048)
    hello = b"\x04" + bytes([200]) + b"\x05HELLO\x01\x00" + bytes(72) + rng.randbytes(120)
    plain = GREETING.replace(b"CURVE", b"NULL\0")
    openings = {
        "nothing": b"",
        "signature": GREETING[:10],
        "greeting": GREETING,
        "wrong_key": GREETING + hello,
        "wrong_keys": GREETING + hello * 50,
        "no_security": plain + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER",
        "http": b"GET / HTTP/1.0\r\n\r\n",
        "noise": rng.randbytes(64_000),
    }
    measured(udp_bytes_sent=sent_bytes, udp_bytes_received=0)
    for name, opening in openings.items():
        connection = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_STREAM)
        connection.connect((member.host.underlay, 4747))
        replies = replies_to(connection, opening)
        measured(**{f"tcp_{name}": f"{len(opening)} sent, {len(replies)} received"})
        assert len(replies) <= max(len(opening), len(GREETING)), name
        for secret in (member.name.encode(), b"mcast", b"10.77.", b"mesh"):
            assert secret not in replies
    receiver.account().assert_perfect(sender.sent())


def test_slow_connections_keep_no_peer_out(make_network: MakeNetwork, sockets: Sockets) -> None:
    """Goal: connections that send nothing, or stop within the handshake, are closed and keep no peer out.
    Method: 400 of them are open on a node while one of its peers restarts and links to it; later all are closed."""
    network = make_network(3)
    target, _, stranger = network.instances
    openings = (b"", GREETING[:5], GREETING[:40], GREETING)
    connections = []
    for number in range(CONNECTIONS):
        connection = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        connection.connect_ex((target.host.underlay, 4747))
        connections.append((connection, openings[number % len(openings)]))
    time.sleep(0.3)
    for connection, opening in connections:
        connection.send(opening)
    network.instances[1].stop()
    network.relaunch(1)
    assert target.is_linked_to(network.instances)
    time.sleep(2.5)
    closed = 0
    for connection, _ in connections:
        connection.setblocking(False)
        try:
            while connection.recv(4096):
                pass
            closed += 1
        except BlockingIOError:
            pass
        except ConnectionError:
            closed += 1
    assert closed == CONNECTIONS


def test_member_with_malformed_messages_harms_no_stream(make_network: MakeNetwork, measured: Measured) -> None:
    """Goal: a member whose control messages are malformed, too many or too large is limited and harms no stream.
    Method: a program with the network key and an identity sends messages of another version, with counts beyond every
    bound and with signatures and seals that do not fit, two thousand invented nodes, each with an identity, and a flood
    of Heartbeats.  The process of control stays, its directory is bounded, the stream is complete, and the log has few
    lines about each kind of fault."""
    network = make_network(3)
    source, target, attacker = network.instances
    group = fresh_group()
    receiver = Receiver(target.host, group)
    wait_route(source, group, [target])
    invented = [Forger(f"invented{n}", at=f"10.99.9.{n % 250 + 1}:{n + 1000}").record for n in range(2000)]
    sender = Sender(source.host, group, mbit=10, seconds=6)
    control, memory = worker_pid(target, "control"), target.pss_bytes()
    with Member(attacker.host, network.key) as member:
        member.meet(target)
        forger, head = member.forger, member.forger.header()
        entries = [(n + 1, 1, 1) for n in range(9000)]
        altered = msgspec.structs.replace(forger.record, signature=bytes(64))
        malformed = [
            bytes([SIGNED_PROTOCOL + 1]) + b"x",
            b"",
            bytes([UNSIGNED_PROTOCOL]) + b"\x81\xa4type\xa5hello",
            bytes([UNSIGNED_PROTOCOL]) + b"\xdf\xff\xff\xff\xff",
            bytes([SIGNED_PROTOCOL]) + b"\xdf\xff\xff\xff\xff",
            bytes([SIGNED_PROTOCOL]) + b"\xa4\xff\xfe\xfd\xfc",
            encode_unsigned(DirectorySummary(entries=entries, is_reply_requested=True, **head)),
            member.seal(target, DirectorySummary(entries=entries, is_reply_requested=True, **head)),
            member.seal(target, DirectoryUpdate(records=[altered], **head)),
            encode_frame(Greeting(on_wire(altered, has_keys=False))),
            forger.seal_bytes(SimpleNamespace(record=member.records[target.name]), b"\xff" * 1000),
        ]
        for message in malformed:
            assert bus.send(member.connect(target), message)
        connection = member.connect(target)
        for start in range(0, len(invented), 250):
            member.send(target, member.seal(target, DirectoryUpdate(records=invented[start : start + 250], **head)))
        stamp = member.records[target.name].stamp
        heartbeat = Heartbeat(number=forger.number + 2, acked_stamp=stamp, directory_digest=b"", **head)
        flood = member.seal(target, heartbeat)
        for _ in range(40_000):
            bus.send(connection, flood)
        time.sleep(1)
    sent = sender.sent()
    receiver.account().assert_perfect(sent)
    assert worker_pid(target, "control") == control
    assert target.process.log.count("peer cut off") <= len(malformed)
    assert target.process.log.count("peer sends too many messages") <= limits.LOG_SUBJECT_BURST
    nodes = len(target.show("links"))
    measured(known_nodes=nodes, memory_mb=(target.pss_bytes() - memory) / 1e6)
    assert nodes <= 1024
    assert {link["peer"] for link in target.show("links") if link["state"] == "up"} >= {source.name, attacker.name}
