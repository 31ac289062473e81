"""What somebody on the underlay without the network key can learn, provoke or disturb; and what a liar with it can."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable

import pytest
import zmq

from pipeline.io import bus
from pipeline.keys.file import load_network_key
from pipeline.lab.programs import wait_until
from pipeline.messages import PROTOCOL_VERSION, DirectorySummary, DirectoryUpdate, Heartbeat, NodeRecord, encode_node
from tests.netns.network import Network, drops, fresh_group, wait_route, worker_pid
from tests.netns.sockets import Sockets, read_packets
from tests.netns.traffic import Receiver, Sender

MakeNetwork = Callable[..., Network]
Measured = Callable[..., None]
UDP_PAYLOAD = 14 + 20 + 8
HOSTILE = 1_000_000
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47)
CONNECTIONS = 400


def recorded(network: Network, sockets: Sockets, count: int) -> list[bytes]:
    """Datagrams of a running stream as the underlay carries them from host 1 to host 2."""
    sniffer = sockets.sniffer(network.lab.bridge, network.hosts[1].bridge_port)
    frames = read_packets(sniffer, 5, lambda frame: frame[23] == socket.IPPROTO_UDP and len(frame) > 300, count)
    return [frame[UDP_PAYLOAD:] for frame in frames]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_million_hostile_datagrams(make_network: MakeNetwork, sockets: Sockets, measured: Measured) -> None:
    """Goal: replayed, flipped, cut, mixed and random datagrams, a million of them, are not delivered and do not stop
    the stream; none is logged.
    Method: a host of the underlay sends them as fast as it can while a stream of 5 Mbit/s runs; the stream is complete,
    without doubles, and nearly every hostile one is counted (the rest the kernel has dropped at the socket)."""
    network = make_network(3)
    source, member, stranger = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sender = Sender(source.host, group, mbit=5, seconds=100)
    genuine = recorded(network, sockets, 200)
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
            time.sleep(0.01)  # two cores carry the stream, the flood and both nodes
        flood.send(hostile[number % len(hostile)])
    seconds = time.monotonic() - began
    assert sender.process.alive(), "the stream has to last as long as the flood"
    sent = sender.stop()
    receiver.account().assert_perfect(sent)
    counted = sum(drops(member).values()) - before
    measured(hostile=HOSTILE, counted=counted, seconds=seconds, reasons=str(drops(member)))
    assert counted > HOSTILE * 0.5
    assert len(member.process.log.splitlines()) - lines <= 2
    assert network.is_healthy()


def told_by(connection: socket.socket, opening: bytes) -> bytes:
    """Everything that a node says on a connection that begins so, until the node closes it."""
    heard = b""
    for part, patience_s in ((opening[: len(GREETING)], 0.2), (opening[len(GREETING) :], 4)):
        connection.settimeout(patience_s)  # a reset would take what has not been read with it
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.sendall(part)
            while data := connection.recv(4096):
                heard += data
    return heard


def test_outsider_learns_and_provokes_nothing(network: Network, sockets: Sockets, measured: Measured) -> None:
    """Goal: the data port answers a stranger with silence, so it amplifies nothing; the control port says at the most
    that it speaks ZeroMQ with CURVE, less than it is told, and no name, key, address or group.
    Method: recorded, forged and random datagrams of every type to the data port, and every way to begin with the
    control port; every byte that comes back is counted and looked at."""
    _, member, _, stranger = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(network.instances[0], group, [member])
    sender = Sender(network.instances[0].host, group, mbit=2, seconds=2)
    genuine = recorded(network, sockets, 20)
    port = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_DGRAM)
    port.connect((member.host.underlay, 4747))
    rng = random.Random(6)
    told = 0
    for kind in range(16):
        for datagram in genuine:
            told += port.send(bytes([0x10 | kind]) + datagram[1:])
            told += port.send(bytes([0x10 | kind]) + rng.randbytes(51))
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
    measured(udp_bytes_told=told, udp_bytes_heard=0)
    for name, opening in openings.items():
        connection = sockets.open(stranger.host, socket.AF_INET, socket.SOCK_STREAM)
        connection.connect((member.host.underlay, 4747))
        heard = told_by(connection, opening)
        measured(**{f"tcp_{name}": f"{len(opening)} told, {len(heard)} heard"})
        assert len(heard) <= max(len(opening), len(GREETING)), name
        for secret in (member.name.encode(), b"mcast", b"10.77.", b"mesh"):
            assert secret not in heard
    receiver.account().assert_perfect(sender.sent())


def test_slow_connections_hold_nobody_up(make_network: MakeNetwork, sockets: Sockets) -> None:
    """Goal: connections that say nothing, or stop half-way, are closed and keep no peer out.
    Method: several hundred of them are held open on a node; one of its peers restarts meanwhile and links to it."""
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


def test_a_member_that_lies(make_network: MakeNetwork, measured: Measured) -> None:
    """Goal: a member whose control messages are nonsense, too many or too large, is bounded and harms no stream.
    Method: a program with the network key sends messages of another version, with unknown fields, counts beyond every
    bound, two thousand invented nodes, and a flood of Heartbeats; control's process stays, what it knows is bounded,
    the stream is whole, and each kind of nonsense is logged once."""
    network = make_network(3)
    source, member, liar = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sender = Sender(source.host, group, mbit=10, seconds=6)
    control, memory = worker_pid(member, "control"), member.pss_bytes()
    assert network.key is not None
    curve = bus.derive_curve_keys(load_network_key(network.key))
    head = {"sender": 99, "incarnation": 1, "endpoint": "10.99.0.3:4999"}
    records = [
        NodeRecord(
            node_id=1000 + number, name=f"invented{number}", incarnation=1, version=1, addresses=(), lanes=1,
            endpoint=f"10.99.9.{number % 250 + 1}:{number + 1000}", key_epoch=0, sender_key=bytes(32), engine="mesh",
            explicit_addresses=False,
        )
        for number in range(2000)
    ]  # fmt: skip
    nonsense = [
        bytes([PROTOCOL_VERSION + 1]) + b"x",
        b"",
        bytes([PROTOCOL_VERSION]) + b"\x81\xa4type\xa5hello",
        bytes([PROTOCOL_VERSION]) + b"\xdf\xff\xff\xff\xff",
        bytes([PROTOCOL_VERSION]) + b"\xa4\xff\xfe\xfd\xfc",
        encode_node(DirectorySummary(entries=[(n + 1, 1, 1) for n in range(9000)], is_reply_requested=True, **head)),
    ]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with liar.host.enter():
        talkers = [bus.peer_sender(context, f"{member.host.underlay}:4747", curve) for _ in range(len(nonsense) + 2)]
        first = encode_node(Heartbeat(number=1, acked_stamp=None, directory_digest=b"", **head))
        wait_until(lambda: bus.send(talkers[-1], first), 3, "the liar has a connection")
        time.sleep(0.3)
        for talker, message in zip(talkers, nonsense, strict=False):
            assert bus.send(talker, message)
        for start in range(0, len(records), 250):
            assert bus.send(talkers[-2], encode_node(DirectoryUpdate(records=records[start : start + 250], **head)))
        flood = encode_node(Heartbeat(number=2, acked_stamp=None, directory_digest=b"", **head))
        for _ in range(40_000):
            bus.send(talkers[-1], flood)
        time.sleep(1)
    context.destroy(linger=0)
    sent = sender.sent()
    receiver.account().assert_perfect(sent)
    assert worker_pid(member, "control") == control
    assert member.process.log.count("peer cut off") <= len(nonsense)
    assert member.process.log.count("peer sends too many messages") <= 1
    known = len(member.show("links"))
    measured(known_nodes=known, memory_mb=(member.pss_bytes() - memory) / 1e6)
    assert known <= 1024
    assert {link["peer"] for link in member.show("links") if link["state"] == "up"} >= {source.name, liar.name}
