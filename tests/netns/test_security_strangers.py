"""Records of a member that name the endpoint of a stranger: what the stranger is sent."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import zmq

from pipeline import limits, messages
from pipeline.io import bus
from pipeline.keys.file import load_network_key
from pipeline.lab.instance import Instance, launch, network_key, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import wait_until
from pipeline.messages import AnyNodeMessage, DirectoryUpdate, Hello, NodeRecord
from pipeline.overlay import records
from tests.netns.sockets import Sockets
from tests.unit.overlay_net import Forger

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
    """A member with a modified program: it reads what a node sends to its own endpoint, and sends as any node."""

    def __init__(self, host: Host, victim: Instance, network_key: bytes) -> None:
        self._forger = Forger("m", at=f"{host.underlay}:4999")
        self.victim: NodeRecord | None = None
        """Newest record of the victim."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        curve = bus.derive_curve_keys(network_key)
        with host.enter():
            self._receiver = self._context.socket(zmq.ROUTER)
            self._receiver.setsockopt(zmq.CURVE_SERVER, 1)
            self._receiver.setsockopt(zmq.CURVE_SECRETKEY, curve.server_secret)
            self._receiver.setsockopt(zmq.CURVE_PUBLICKEY, curve.server_public)
            self._receiver.bind(f"tcp://{self._forger.record.endpoint}")
            self._sender = bus.peer_sender(self._context, f"{victim.host.underlay}:4747", curve)
            greeting = self._forger.envelopes.greeting(self._forger.record, "")
            wait_until(lambda: bus.send(self._sender, greeting), 3, "the member has a connection")
            wait_until(self._has_victim, 3, "the node answers its member")
        self.acknowledge(self._forger)

    def _has_victim(self) -> bool:
        self.read()
        return self.victim is not None

    def read(self) -> None:
        """Note the newest record in the messages that have arrived."""
        while self._receiver.poll(0):
            frame = messages.decode_frame(self._receiver.recv_multipart()[-1])
            if frame.record is not None:
                self.victim = records.verify(frame.record, self._forger.envelopes.signer)

    def acknowledge(self, node: Forger) -> None:
        """Send a Hello of a node, which acknowledges the victim's newest record."""
        assert self.victim is not None
        node.number += 1
        hello = Hello(number=node.number, record=node.record, acked_stamp=self.victim.stamp, **node.header())
        self._send(node, hello)

    def report(self, reported: list[NodeRecord]) -> None:
        """Report records of other nodes."""
        self._forger.number += 1
        self._send(self._forger, DirectoryUpdate(records=reported, **self._forger.header()))

    def _send(self, node: Forger, message: AnyNodeMessage) -> None:
        assert self.victim is not None
        assert bus.send(self._sender, node.envelopes.seal(node.record, self.victim, node.number, message))

    def close(self) -> None:
        self._context.destroy(linger=0)


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
def pair(make_lab: MakeLab) -> tuple[Lab, list[Instance]]:
    """Four hosts: two linked nodes, the host of a crafted member, and a stranger that runs nothing."""
    lab = make_lab(4)
    instances = [launch(host, key=network_key(lab), peers=lab.hosts[:2]) for host in lab.hosts[:2]]
    for each in instances:
        each.wait_ready()
    wait_linked(instances)
    return lab, instances


class Attack:
    """900 nodes with endpoints of a stranger, of which 20 keep their sessions alive, and two on the loopback."""

    def __init__(self, member: CraftedMember, stranger: Host) -> None:
        self._member = member
        self._nodes = [Forger(f"invented{n}", at=f"{stranger.underlay}:{6000 + n}") for n in range(INVENTED)]
        self._on_own_host = [Forger(f"own{address}", at=f"{address}:{SERVICE_PORT}") for address in OWN_ADDRESSES]

    def begin(self) -> None:
        """Report all records in gossip, then let each node send its Hello."""
        nodes = self._nodes + self._on_own_host
        for start in range(0, len(nodes), limits.RECORDS_PER_MESSAGE_MAX):
            part = nodes[start : start + limits.RECORDS_PER_MESSAGE_MAX]
            self._member.report([node.record for node in part])
        for number, node in enumerate(nodes):
            self._member.acknowledge(node)
            if number % 100 == 99:
                time.sleep(0.15)

    def go_on(self) -> None:
        """Acknowledge the victim's newest record in the name of the nodes whose sessions stay."""
        self._member.read()
        for node in self._nodes[:ALIVE]:
            self._member.acknowledge(node)


@pytest.fixture
def attack(pair: tuple[Lab, list[Instance]]) -> Iterator[Attack]:
    lab, (victim, _) = pair
    attacker, stranger = lab.hosts[2:]
    member = CraftedMember(attacker, victim, load_network_key(network_key(lab)))
    yield Attack(member, stranger)
    member.close()


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
