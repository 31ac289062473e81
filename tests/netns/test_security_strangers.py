"""Records of a member that name the endpoint of a stranger: what the stranger is sent."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from pipeline.io import bus
from pipeline.keys.file import load_network_key
from pipeline.lab.instance import Instance, launch, network_key, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import wait_until
from pipeline.messages import DirectoryUpdate, Header, Hello, NodeRecord, Stamp, decode_node, encode_node
from tests.netns.sockets import Sockets

MakeLab = Callable[..., Lab]
FLOODED = "224.0.0.200"
ETHERNET_BYTES = 14
WATCH_S = 20.0
ALLOWED_BYTES = 10_000


class CraftedMember:
    """A member with a modified program: it reads what a node sends to its own endpoint, and sends any record."""

    def __init__(self, host: Host, victim: Instance, network_key: bytes) -> None:
        self.endpoint = f"{host.underlay}:4999"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        curve = bus.derive_curve_keys(network_key)
        with host.enter():
            self._receiver = self._context.socket(zmq.ROUTER)
            self._receiver.setsockopt(zmq.CURVE_SERVER, 1)
            self._receiver.setsockopt(zmq.CURVE_SECRETKEY, curve.server_secret)
            self._receiver.setsockopt(zmq.CURVE_PUBLICKEY, curve.server_public)
            self._receiver.bind(f"tcp://{self.endpoint}")
            self._sender = bus.peer_sender(self._context, f"{victim.host.underlay}:4747", curve)
            wait_until(lambda: bus.send(self._sender, self.hello(66, self.endpoint)), 3, "the member has a connection")

    def hello(self, number: int, endpoint: str, *, acked_stamp: Stamp | None = None, message: int = 1) -> bytes:
        record = record_of(number, endpoint)
        head = Header(sender=number, incarnation=1, endpoint=endpoint)
        return encode_node(Hello(number=message, record=record, acked_stamp=acked_stamp, **head))

    def read_stamp(self) -> Stamp:
        """Return the version of the victim's record that it sends to a new node."""
        while self._receiver.poll(3000):
            message = decode_node(self._receiver.recv_multipart()[-1])
            if isinstance(message, Hello):
                return message.record.stamp
        raise AssertionError("the node does not answer its member")

    def send(self, data: bytes) -> None:
        assert bus.send(self._sender, data)

    def close(self) -> None:
        self._context.destroy(linger=0)


def record_of(number: int, endpoint: str) -> NodeRecord:
    return NodeRecord(
        node_id=number, name=f"invented{number}", incarnation=1, version=1, addresses=(), lanes=1, endpoint=endpoint,
        key_epoch=0, sender_key=bytes(32), engine="mesh", explicit_addresses=False,
    )  # fmt: skip


def packets_to(sniffer: socket.socket, host: Host, seconds: float) -> Iterator[bytes]:
    """Yield the IPv4 packets to the host from others."""
    address, deadline = socket.inet_aton(host.underlay), time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        sniffer.settimeout(left)
        try:
            packet = sniffer.recv(65536)[ETHERNET_BYTES:]
        except TimeoutError:
            return
        if packet[0] >> 4 == 4 and packet[16:20] == address:
            yield packet


@pytest.fixture
def pair(make_lab: MakeLab) -> tuple[Lab, list[Instance]]:
    """Four hosts: two linked nodes, the host of a crafted member, and a stranger that runs nothing."""
    lab = make_lab(4)
    instances = [launch(host, key=network_key(lab), peers=lab.hosts[:2]) for host in lab.hosts[:2]]
    for each in instances:
        each.wait_ready()
    wait_linked(instances)
    return lab, instances


def test_stranger_in_records_gets_few_probes_and_no_stream(
    pair: tuple[Lab, list[Instance]], sockets: Sockets, measured: Callable[..., None]
) -> None:
    """Goal: no data goes to an endpoint that has not answered, and few probes and SYNs do.
    Method: a crafted member acknowledges in the name of a node whose record has a stranger's endpoint, then publishes
    900 such records; a stream that is flooded to all links runs meanwhile.  The stranger counts what it receives."""
    lab, (victim, _) = pair
    attacker, stranger = lab.hosts[2:]
    member = CraftedMember(attacker, victim, load_network_key(network_key(lab)))
    stamp = member.read_stamp()
    sniffer = sockets.sniffer(stranger, "u0")
    member.send(member.hello(77, f"{stranger.underlay}:5999", acked_stamp=stamp))
    records = [record_of(1000 + n, f"{stranger.underlay}:{6000 + n}") for n in range(900)]
    head = Header(sender=66, incarnation=1, endpoint=member.endpoint)
    for start in range(0, len(records), 225):
        member.send(encode_node(DirectoryUpdate(records=records[start : start + 225], **head)))
    for number, record in enumerate(records):
        member.send(member.hello(record.node_id, record.endpoint, acked_stamp=stamp))
        if number % 100 == 99:
            time.sleep(0.1)
    source = sockets.sender(victim.host, FLOODED)
    for _ in range(500):
        source.sendto(bytes(1000), (FLOODED, 5000))
    sizes = [(packet[9], len(packet)) for packet in packets_to(sniffer, stranger, WATCH_S)]
    member.close()
    udp = [size for protocol, size in sizes if protocol == socket.IPPROTO_UDP]
    tcp = [size for protocol, size in sizes if protocol == socket.IPPROTO_TCP]
    measured(udp=len(udp), tcp=len(tcp), bytes=sum(udp) + sum(tcp), largest=max(udp, default=0))
    assert not [size for size in udp if size > 100], "data"
    assert sum(udp) + sum(tcp) <= ALLOWED_BYTES
    linked = {link["peer"] for link in victim.show("links") if link["state"] == "up"}
    assert linked == {pair[1][1].name}
    assert udp and tcp, "honest endpoints get probes and connections as well"
