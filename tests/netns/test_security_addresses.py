"""Overlay addresses that members may have: no address of an underlay host, and further networks that are listed."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest

from pipeline.lab.instance import Instance, launch, network_key, wait_linked
from pipeline.lab.netns import Lab
from pipeline.lab.programs import require, wait_until
from tests.netns.network import drops, fresh_group, fresh_group6, wait_route
from tests.netns.sockets import Sockets, family_of, read_datagrams
from tests.netns.test_security_members import configured

MakeLab = Callable[..., Lab]
PORT = 5065
UNDERLAY_V6 = "2001:db8:17::3"


def source_addresses(instance: Instance) -> set[str]:
    """Return the addresses of its peers that an instance shows."""
    return {text.partition("/")[0] for link in instance.show("links") for text in link["addresses"]}


def listen(sockets: Sockets, node: Instance, group: str) -> tuple[socket.socket, socket.socket]:
    """Return a member of the group, and a socket at the node's overlay address of the same family."""
    unicast = sockets.open(node.host, family_of(group), socket.SOCK_DGRAM)
    unicast.bind((node.ip6 if ":" in group else node.ip4, PORT + 1))
    return sockets.member(node.host, group, PORT), unicast


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "insecure"])
def test_member_cannot_send_in_the_name_of_an_underlay_host(make_lab: MakeLab, sockets: Sockets, sealed: bool) -> None:
    """Goal: a member that claims the address of an underlay host can send no datagram from it to programs.
    Method: a member is launched with the IPv4 and an IPv6 address of another host, which runs no node, and sends from
    them to a group and to the overlay addresses of two nodes.  The node with the default drops all.  The one whose
    configuration lists the prefixes gets them."""
    lab = make_lab(4)
    key, (a, b, stranger, d) = network_key(lab) if sealed else None, lab.hosts
    listed = configured(lab, f'[overlay]\nprefixes = ["{stranger.underlay}/32", "{UNDERLAY_V6}/128"]\n')
    strict, admitting = launch(a, key=key), launch(d, key=key, peers=[a], extra=listed)
    claimed = (f"{stranger.underlay}/32", f"{UNDERLAY_V6}/128")
    claimant = launch(b, key=key, peers=[a, d], addresses=claimed)
    for node in (strict, admitting, claimant):
        node.wait_ready()
    wait_linked([strict, admitting, claimant])
    for flag, network in (("-4", "10.77.0.0/16"), ("-6", "fd77::/64")):
        b.run([require("ip"), flag, "route", "add", network, "dev", "mcast0"])
    for source, group in ((stranger.underlay, fresh_group()), (UNDERLAY_V6, fresh_group6())):
        listeners = {node: listen(sockets, node, group) for node in (strict, admitting)}
        wait_route(claimant, group, [strict, admitting])
        sender = sockets.sender(b, group)
        sender.bind((source, 0))
        before = drops(strict).get("foreign_source", 0)
        sender.sendto(b"group", (group, PORT))
        for _, unicast in listeners.values():
            sender.sendto(b"unicast", unicast.getsockname()[:2])
        for node, expected in ((admitting, 1), (strict, 0)):
            for listener in listeners[node]:
                found = read_datagrams(listener, 1, 3 if expected else 0.5)
                assert [each.source for each in found] == [source] * expected, (node, group)
        assert drops(strict)["foreign_source"] - before == 2
    assert not source_addresses(strict) & {stranger.underlay, UNDERLAY_V6}
    assert source_addresses(admitting) >= {stranger.underlay, UNDERLAY_V6}
    assert strict.process.log.count("[overlay] prefixes") == 1, strict.process.log
    assert "[overlay] prefixes" not in admitting.process.log


def test_address_of_this_host_is_refused_from_others(make_lab: MakeLab) -> None:
    """Goal: no other node is accepted with an address of another interface of this host, even in a listed prefix.
    Method: a node claims an address that a host has beside the underlay's; the host's node lists its prefix."""
    lab = make_lab(2)
    a, b = lab.hosts
    a.run([require("ip"), "addr", "add", "198.51.100.9/32", "dev", "lo"])
    first = launch(a, key=None, extra=configured(lab, '[overlay]\nprefixes = ["198.51.100.0/24"]\n'))
    second = launch(b, key=None, peers=[a], addresses=("198.51.100.9/32", "fd77::9/64"))
    for node in (first, second):
        node.wait_ready()
    wait_until(lambda: "one of this host's own" in first.process.log, 10, "the refusal is logged")
    assert source_addresses(first) == {"fd77::9"}


def test_networks_that_list_each_other_have_unicast(make_lab: MakeLab) -> None:
    """Goal: the line in the log names a remedy that works.
    Method: nodes with addresses of two networks; each is then launched again with the other's network in
    `[overlay] prefixes`.  A ping passes."""
    lab = make_lab(2)
    networks = ("10.91.0", "10.92.0")

    def launch_both(*extra: str) -> list[Instance]:
        nodes = []
        for index, host in enumerate(lab.hosts):
            addresses = (f"{networks[index]}.1/24", f"fd9{index + 1}::1/64")
            nodes.append(launch(host, key=None, peers=lab.hosts, addresses=addresses, extra=extra))
        for node in nodes:
            node.wait_ready()
        for host, network in zip(lab.hosts, reversed(networks), strict=True):
            host.run([require("ip"), "route", "add", f"{network}.0/24", "dev", "mcast0"])
        return nodes

    nodes = launch_both()
    for node in nodes:
        wait_until(lambda: "[overlay] prefixes" in node.process.log, 10, "the refusal is logged")  # noqa: B023
        node.stop()
    both = json.dumps([f"{network}.0/24" for network in networks] + ["fd91::/64", "fd92::/64"])
    nodes = launch_both(*configured(lab, f"[overlay]\nprefixes = {both}\n"))
    wait_linked(nodes)
    lab.hosts[0].run([require("ping"), "-c", "1", "-W", "3", f"{networks[1]}.1"])
    assert all("[overlay] prefixes" not in node.process.log for node in nodes)
