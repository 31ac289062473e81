"""Unicast between overlay addresses where `[security] unicast` limits it: services, ports, replies to queries."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.lab.instance import Instance, launch, network_key, wait_linked
from pipeline.lab.netns import Lab
from pipeline.lab.programs import LabError, require
from tests.netns.network import drops
from tests.netns.sockets import Sockets, family_of, read_datagrams
from tests.netns.test_security_members import configured

MakeLab = Callable[..., Lab]
TCP_PORT, UDP_PORT, OTHER_PORT, RESPONDER_PORT = 8080, 8081, 8090, 1900
QUERY_S = 30.0
"""MP_QUERY_NS of mp_unicast.h."""
TIMEOUT_S = 0.35
"""Time after which a datagram or a connection counts as dropped; those that pass take some milliseconds."""
SEALED = pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "insecure"])


def open_pair(lab: Lab, settings: str, *, sealed: bool) -> tuple[Instance, Instance]:
    """Launch a node with settings of `[security]` and one without; return both when they are linked."""
    key = network_key(lab) if sealed else None
    extra = configured(lab, f"[security]\n{settings}\n")
    limited = launch(lab.hosts[0], key=key, extra=extra)
    member = launch(lab.hosts[1], key=key, peers=[lab.hosts[0]])
    for node in (limited, member):
        node.wait_ready()
    wait_linked([limited, member])
    return limited, member


def addresses_of(node: Instance) -> list[str]:
    """Return the IPv4, IPv6 and link-local IPv6 address of a node; a link-local one with its interface."""
    return [node.ip4, node.ip6, f"fe80::{node.host.index:x}%mcast0"]


def sockaddr(sockets: Sockets, node: Instance, address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return an address as sockets of the node's host take it."""
    text, _, interface = address.partition("%")
    if ":" not in text:
        return text, port
    return text, port, 0, sockets.index(node.host, interface) if interface else 0


def connects(sockets: Sockets, client: Instance, server: Instance, address: str, port: int) -> bool:
    """Return whether a TCP connection to a service of the server is established."""
    listener = sockets.open(server.host, family_of(address), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(sockaddr(sockets, server, address, port))
    listener.listen()
    sock = sockets.open(client.host, family_of(address), socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(sockaddr(sockets, client, address, port))
    except TimeoutError:
        return False
    finally:
        sock.close()
        listener.close()
    return True


def arrives(sockets: Sockets, sender: Instance, receiver: Instance, address: str, port: int, size: int = 10) -> bool:
    """Return whether a UDP datagram arrives at a service of the receiver."""
    listener = sockets.open(receiver.host, family_of(address), socket.SOCK_DGRAM)
    listener.bind(sockaddr(sockets, receiver, address, port))
    sock = sockets.open(sender.host, family_of(address), socket.SOCK_DGRAM)
    sock.sendto(bytes(size), sockaddr(sockets, sender, address, port))
    found = read_datagrams(listener, 1, TIMEOUT_S)
    listener.close()
    return [len(each.payload) for each in found] == [size]


def is_pinged(sender: Instance, address: str, size: int = 56) -> bool:
    command = [require("ping"), "-n", "-q", "-c", "1", "-W", "0.5", "-s", str(size), address]
    return sender.host.run(command, check=False).returncode == 0


@SEALED
@pytest.mark.parametrize("policy", ["all", "discovery", "none"])
def test_unicast_policy_decides_about_services(make_lab: MakeLab, sockets: Sockets, policy: str, sealed: bool) -> None:
    """Goal: members reach the TCP and UDP services of a host with "all" only, and ping it with "discovery" too.
    Method: a service on each overlay address of one node, whose policy varies; another node connects to it, and sends
    one datagram of one packet and one of several fragments.  What is dropped is counted."""
    limited, member = open_pair(make_lab(2), f'unicast = "{policy}"', sealed=sealed)
    for address in addresses_of(limited):
        assert connects(sockets, member, limited, address, TCP_PORT) == (policy == "all"), address
        for size in (10, 4000):
            assert arrives(sockets, member, limited, address, UDP_PORT, size) == (policy == "all"), (address, size)
        for size in (56, 4000):
            assert is_pinged(member, address, size) == (policy != "none"), (address, size)
    assert (drops(limited).get("unicast_denied", 0) > 0) == (policy != "all")


@pytest.mark.parametrize("policy", ["all", "discovery", "none"])
def test_listed_ports_are_reached(make_lab: MakeLab, sockets: Sockets, policy: str) -> None:
    """Goal: with each policy the ports of `unicast_ports` can be reached, and no others; with "none" this host sends
    unicast from them only.
    Method: services on a listed port, inside a listed range and beside it; datagrams of this host from both."""
    settings = f'unicast = "{policy}"\nunicast_ports = ["{TCP_PORT}", "{UDP_PORT}-{UDP_PORT + 3}"]'
    limited, member = open_pair(make_lab(2), settings, sealed=True)
    for address in addresses_of(limited):
        for port, is_open in ((TCP_PORT, True), (UDP_PORT + 2, True), (OTHER_PORT, False)):
            assert connects(sockets, member, limited, address, port) == is_open, (address, port)
            assert arrives(sockets, member, limited, address, port, 4000) == is_open, (address, port)
    for address in addresses_of(member):
        assert arrives(sockets, limited, member, address, OTHER_PORT) == (policy != "none"), address


def query(client: socket.socket, responder: socket.socket, group: str) -> tuple[str, int]:
    """Send queries to the group until the responder gets one, as the first may precede the route; return its source."""
    deadline = time.monotonic() + 5
    responder.settimeout(0.3)
    while time.monotonic() < deadline:
        client.sendto(b"query", (group, RESPONDER_PORT))
        with contextlib.suppress(TimeoutError):
            source: tuple[str, int] = responder.recvfrom(100)[1]
            return source
    raise LabError(f"no query to {group} arrives")


def open_discovery(
    sockets: Sockets, client: Instance, responder: Instance
) -> Iterator[tuple[str, str, socket.socket, socket.socket]]:
    """Yield address and group of each family, a socket that queries, and a socket that replies."""
    for address, group in zip(addresses_of(client), ("239.255.255.250", "ff05::c", "ff02::fb"), strict=True):
        asking = sockets.sender(client.host, group)
        asking.bind(sockaddr(sockets, client, address, 0))
        replying = sockets.open(responder.host, family_of(group), socket.SOCK_DGRAM)
        replying.bind(("", RESPONDER_PORT))
        sockets.join(replying, responder.host, group)
        yield address, group, asking, replying


@SEALED
def test_replies_to_a_query_pass_for_its_time(make_lab: MakeLab, sockets: Sockets, sealed: bool) -> None:
    """Goal: with "discovery" a host discovers services by multicast queries as mDNS and SSDP send them, and stays
    closed otherwise.
    Method: a program on the limited node queries a group from each of its addresses; the responder on the other node
    replies to the source.  Nothing passes to the port before the query, nor to another port, nor by TCP.  To a
    sealed pair a datagram is sent when the time of the query is over, to the other one before: it does not pass and
    passes."""
    limited, member = open_pair(make_lab(2), 'unicast = "discovery"', sealed=sealed)
    asked = []
    for address, group, client, responder in open_discovery(sockets, limited, member):
        port = client.getsockname()[1]
        target = sockaddr(sockets, member, address, port)
        responder.sendto(b"before", target)
        assert read_datagrams(client, 1, TIMEOUT_S) == []
        responder.sendto(b"reply", query(client, responder, group))
        assert [each.payload for each in read_datagrams(client, 1, 3)] == [b"reply"], group
        assert not arrives(sockets, member, limited, address, OTHER_PORT)
        assert not connects(sockets, member, limited, address, port)
        asked.append((client, target))
        responder.close()
    if sealed:
        time.sleep(QUERY_S + 0.5)
    for client, target in asked:
        sender = sockets.open(member.host, family_of(target[0]), socket.SOCK_DGRAM)
        sender.sendto(b"late", target)
        assert len(read_datagrams(client, 1, TIMEOUT_S)) == (not sealed), target


def test_responder_with_discovery_replies_to_queries(make_lab: MakeLab, sockets: Sockets) -> None:
    """Goal: a host with "discovery" replies to the queries of other nodes.
    Method: as above, but the responder is on the limited node; the client's node has "discovery" too, as on a network
    where all have it."""
    lab = make_lab(2)
    extra = configured(lab, '[security]\nunicast = "discovery"\n')
    nodes = [launch(host, key=network_key(lab), peers=lab.hosts, extra=extra) for host in lab.hosts]
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    for _, group, client, responder in open_discovery(sockets, nodes[1], nodes[0]):
        responder.sendto(b"reply", query(client, responder, group))
        assert [each.payload for each in read_datagrams(client, 1, 3)] == [b"reply"], group
        responder.close()
