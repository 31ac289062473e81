"""Records of a member that name the endpoint of a stranger: what the stranger is sent."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

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
WATCH_S = 60
ALLOWED_BYTES = 10_000
PROBE_BYTES = 80
INVENTED, ALIVE = 900, 20
SERVICE_PORT = 7777
OWN_ADDRESSES = ("127.0.0.1", "127.1.2.3")


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

    def read_stamp(self, timeout_ms: int) -> Stamp | None:
        """Return the newest version of the victim's record that it has sent to this member; None without a new one."""
        stamp = None
        while self._receiver.poll(timeout_ms if stamp is None else 0):
            message = decode_node(self._receiver.recv_multipart()[-1])
            if isinstance(message, Hello):
                stamp = message.record.stamp
        return stamp

    def send(self, data: bytes) -> None:
        assert bus.send(self._sender, data)

    def close(self) -> None:
        self._context.destroy(linger=0)


def record_of(number: int, endpoint: str) -> NodeRecord:
    return NodeRecord(
        node_id=number, name=f"invented{number}", incarnation=1, version=1, addresses=(), lanes=1, endpoint=endpoint,
        key_epoch=0, sender_key=bytes(32), engine="mesh", explicit_addresses=False,
    )  # fmt: skip


def received_packets(sniffer: socket.socket, host: Host) -> Iterator[bytes]:
    """Yield the IPv4 packets to the host that have arrived."""
    address = socket.inet_aton(host.underlay)
    sniffer.setblocking(False)
    while True:
        try:
            packet = sniffer.recv(65536)[ETHERNET_BYTES:]
        except BlockingIOError:
            return
        if packet[0] >> 4 == 4 and packet[16:20] == address:
            yield packet


def port_of(packet: bytes) -> int:
    return int.from_bytes(packet[22:24])


@pytest.fixture
def attack(pair: tuple[Lab, list[Instance]]) -> Iterator[Attack]:
    lab, (victim, _) = pair
    attacker, stranger = lab.hosts[2:]
    member = CraftedMember(attacker, victim, load_network_key(network_key(lab)))
    yield Attack(member, stranger)
    member.close()


@pytest.fixture
def pair(make_lab: MakeLab) -> tuple[Lab, list[Instance]]:
    """Four hosts: two linked nodes, the host of a crafted member, and a stranger that runs nothing."""
    lab = make_lab(4)
    instances = [launch(host, key=network_key(lab), peers=lab.hosts[:2]) for host in lab.hosts[:2]]
    for each in instances:
        each.wait_ready()
    wait_linked(instances)
    return lab, instances


@dataclass
class Attack:
    """900 nodes with a stranger's endpoints, of which 20 keep their sessions alive, and some with the victim's own."""

    member: CraftedMember
    stranger: Host
    stamp: Stamp | None = None
    number: int = 1

    def begin(self) -> None:
        """Report all records in gossip, then let each node send its Hello."""
        records = [record_of(1000 + n, f"{self.stranger.underlay}:{6000 + n}") for n in range(INVENTED)]
        records += [record_of(3000 + n, f"{address}:{SERVICE_PORT}") for n, address in enumerate(OWN_ADDRESSES)]
        head = Header(sender=66, incarnation=1, endpoint=self.member.endpoint)
        for start in range(0, len(records), 225):
            self.member.send(encode_node(DirectoryUpdate(records=records[start : start + 225], **head)))
        self.acknowledge(records)

    def go_on(self) -> None:
        """Acknowledge the victim's newest record in the name of the nodes whose sessions stay."""
        self.acknowledge([record_of(1000 + n, f"{self.stranger.underlay}:{6000 + n}") for n in range(ALIVE)])

    def acknowledge(self, records: list[NodeRecord]) -> None:
        self.stamp = self.member.read_stamp(0) or self.stamp
        self.number += 1
        hello = partial(self.member.hello, acked_stamp=self.stamp, message=self.number)
        for n, record in enumerate(records):
            self.member.send(hello(record.node_id, record.endpoint))
            if n % 100 == 99:
                time.sleep(0.1)


@pytest.mark.timeout(120)
def test_stranger_in_records_gets_few_probes_and_no_stream(
    pair: tuple[Lab, list[Instance]], attack: Attack, sockets: Sockets, measured: Callable[..., None]
) -> None:
    """Goal: no data goes to an endpoint that has not answered, three probes at the most, and few SYNs.  Nothing goes to
    services of this host's loopback.
    Method: for a minute a member acknowledges in the name of nodes whose records have a stranger's endpoints, or
    loopback; a stream is flooded to all links.  The stranger counts what it receives, each port on its own."""
    lab, (victim, _) = pair
    stranger = lab.hosts[3]
    services = [sockets.open(victim.host, socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    for service in services:
        service.bind(("0.0.0.0", SERVICE_PORT))
    services[0].listen()
    attack.stamp = attack.member.read_stamp(3000)
    assert attack.stamp is not None, "the node answers its member"
    sniffer, source = sockets.sniffer(stranger, "u0"), sockets.sender(victim.host, FLOODED)
    attack.begin()
    for _ in range(WATCH_S):
        for _ in range(20):
            source.sendto(bytes(1000), (FLOODED, 5000))
        attack.go_on()
        time.sleep(1)
    packets = list(received_packets(sniffer, stranger))
    linked = {link["peer"] for link in victim.show("links") if link["state"] == "up"}
    udp = [packet for packet in packets if packet[9] == socket.IPPROTO_UDP]
    probes = Counter(port_of(packet) for packet in udp)
    measured(
        udp=len(udp), tcp=len(packets) - len(udp), bytes=sum(map(len, packets)), ports=len(probes),
        most=max(probes.values(), default=0), largest=max(map(len, udp), default=0),
    )  # fmt: skip
    assert not [packet for packet in udp if len(packet) > PROBE_BYTES], "data"
    assert max(probes.values(), default=0) <= 3
    assert sum(map(len, packets)) <= ALLOWED_BYTES
    assert linked == {pair[1][1].name}
    assert len(udp) >= ALIVE and len(packets) > len(udp), "honest endpoints get probes and connections as well"
    for service, read in zip(services, (socket.socket.accept, lambda sock: sock.recv(1)), strict=True):
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            read(service)
