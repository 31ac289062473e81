"""Discovery of other nodes, and overlay addresses of nodes."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable

from pipeline import address
from pipeline.lab.instance import Instance, launch, launch_command, network_key, wait_linked
from pipeline.lab.netns import Lab
from pipeline.lab.programs import require, wait_until
from tests.netns.network import INTERFACE, Network, fresh_group, wait_route
from tests.netns.traffic import Receiver, Sender

MakeLab = Callable[..., Lab]
MakeNetwork = Callable[..., Network]
Measured = Callable[..., None]


def assert_stream_is_complete(source: Instance, member: Instance) -> None:
    """Send a short stream; check that it arrives complete."""
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sent = Sender(source.host, group, mbit=10, seconds=0.5).sent()
    receiver.account().assert_perfect(sent)


def interface_addresses(instance: Instance) -> list[str]:
    """Return the global addresses that the kernel has on the interface, with their prefix lengths."""
    shown = instance.host.run([require("ip"), "-j", "addr", "show", "dev", INTERFACE]).stdout
    addresses = json.loads(shown)[0]["addr_info"]
    return [f"{each['local']}/{each['prefixlen']}" for each in addresses if each["scope"] == "global"]


def test_nodes_with_one_seed_link_to_all(make_lab: MakeLab, measured: Measured) -> None:
    """Goal: nodes that are configured with one seed find all others, and need the seed no longer.
    Method: four nodes, three of which name the first one; all links come up.  The seed is killed: links and a stream
    between the others go on.  A new instance of the seed links to all again."""
    lab = make_lab(4)
    key, seed = network_key(lab), lab.hosts[0]
    nodes = [launch(host, key=key, peers=[seed]) for host in lab.hosts]
    for node in nodes:
        node.wait_ready()
    began = time.monotonic()
    wait_linked(nodes)
    measured(linked_s=time.monotonic() - began)
    assert_stream_is_complete(nodes[2], nodes[3])
    nodes[0].process.popen.kill()
    assert_stream_is_complete(nodes[3], nodes[1])
    wait_linked(nodes[1:])
    nodes[0] = launch(seed, key=key)
    nodes[0].wait_ready()
    wait_linked(nodes, 15)
    assert_stream_is_complete(nodes[0], nodes[2])


def test_chain_of_seeds_links_all(make_lab: MakeLab) -> None:
    """Goal: any connected graph of seeds is enough, whatever the order of starts.
    Method: each of four nodes names only the next one, and the last starts first; all links come up."""
    lab = make_lab(4)
    nodes: list[Instance] = []
    for index in (3, 0, 2, 1):
        nodes.append(launch(lab.hosts[index], key=network_key(lab), peers=lab.hosts[index + 1 : index + 2]))
        nodes[-1].wait_ready()
    wait_linked(nodes)


def test_addresses_are_derived_from_the_name(make_lab: MakeLab) -> None:
    """Goal: without --address a node derives its addresses from its name, in 10.77.0.0/16 and fd77::/64, the same at
    each start.
    Method: two nodes without addresses.  Interface, `status` and the derivation agree; a ping works; a second launch
    has the same addresses."""
    lab = make_lab(2)
    nodes = [launch(host, key=network_key(lab), peers=lab.hosts, addresses=()) for host in lab.hosts]
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    for node in nodes:
        v4, v6 = (address.show(each) for each in address.derive_addresses(node.name, 0))
        assert sorted(interface_addresses(node)) == sorted([f"{v4}/16", f"{v6}/64"])
        assert sorted(node.request("status")["addresses"]) == sorted([f"{v4}/16", f"{v6}/64"])
    for target in interface_addresses(nodes[1]):
        command = [require("ping"), "-n", "-c", "2", "-i", "0.05", "-W", "2", target.partition("/")[0]]
        assert " 0% packet loss" in nodes[0].host.run(command).stdout
    before = interface_addresses(nodes[0])
    nodes[0].stop()
    nodes[0] = launch(lab.hosts[0], key=network_key(lab), peers=lab.hosts, addresses=())
    nodes[0].wait_ready()
    assert interface_addresses(nodes[0]) == before


def test_derived_address_moves_on_conflict(make_lab: MakeLab) -> None:
    """Goal: when two nodes have the same address, the node that has derived it takes another one, and both work.
    Method: the second node is configured with the address that the first one derives from its name.  The first node
    moves within 10.77.0.0/16, its interface follows, and ping and streams work."""
    lab = make_lab(2)
    derived = f"{address.show(address.derive_addresses(lab.hosts[0].name, 0)[0])}/16"
    first = launch(lab.hosts[0], key=network_key(lab), peers=lab.hosts, addresses=())
    first.wait_ready()
    assert derived in interface_addresses(first)
    second = launch(lab.hosts[1], key=network_key(lab), peers=lab.hosts, addresses=(derived, "fd77::2/64"))
    second.wait_ready()
    wait_linked([first, second])
    wait_until(lambda: derived not in interface_addresses(first), 5, "the derived address is removed")
    wait_until(lambda: len(interface_addresses(first)) == 2, 3, "a new address is set")
    assert derived in interface_addresses(second)
    moved = next(each for each in interface_addresses(first) if "." in each)
    assert ipaddress.ip_interface(moved).network == address.OVERLAY_V4
    command = [require("ping"), "-n", "-c", "2", "-i", "0.05", "-W", "2", moved.partition("/")[0]]
    assert " 0% packet loss" in second.host.run(command).stdout
    assert_stream_is_complete(first, second)
    assert_stream_is_complete(second, first)


def test_underlay_may_be_ipv6(make_lab: MakeLab) -> None:
    """Goal: the underlay may be IPv6.
    Method: two nodes with IPv6 endpoints for --listen and --peer; a stream in each direction; `show links` has the
    IPv6 endpoint."""
    lab = make_lab(2)
    nodes = []
    for host, other in (lab.hosts, lab.hosts[::-1]):
        command = launch_command(host, key=network_key(lab), extra=["--peer", f"[{other.underlay6}]:4747"])
        command[command.index("--listen") + 1] = f"[{host.underlay6}]:4747"
        nodes.append(Instance(host, command))
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    assert_stream_is_complete(nodes[0], nodes[1])
    assert_stream_is_complete(nodes[1], nodes[0])
    assert nodes[0].show("links")[0]["endpoint"] == f"[{lab.hosts[1].underlay6}]:4747"


def test_membership_converges_despite_loss(make_network: MakeNetwork, measured: Measured) -> None:
    """Goal: membership of remote nodes converges despite packet loss.
    Method: 20 % of all packets are lost in both directions; 50 joins, then 25 leaves, end in the right routes."""
    network = make_network(2)
    source, member = network.instances
    for host in network.hosts:
        network.lab.loss(host, 20)
    staying, leaving = Receiver(member.host, "239.84.1.1+25"), Receiver(member.host, "239.84.2.1+25", port=5002)
    began = time.monotonic()
    wait_until(lambda: routed_groups(source, member) == 50, 15, "all joins have arrived", every_s=0.05)
    measured(joined_s=time.monotonic() - began)
    leaving.stop()
    wait_until(lambda: routed_groups(source, member) == 25, 15, "all leaves have arrived", every_s=0.05)
    staying.stop()


def routed_groups(source: Instance, member: Instance) -> int:
    rows = source.show("routes")
    return len({row["group"] for row in rows if row["group"].startswith("239.84.") and member.name in row["next_hops"]})
