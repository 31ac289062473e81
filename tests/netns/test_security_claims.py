"""Claims of members about nodes: forged records, cloned names, clocks that are wrong, and addresses of other nodes."""

from __future__ import annotations

import itertools
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from pipeline.address import derive_node_id
from pipeline.io import bus
from pipeline.keys.file import load_network_key
from pipeline.lab.instance import Instance, launch, launch_command, network_key, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require, wait_until
from pipeline.limits import INCARNATION_MAX, LINK_TIMEOUT_S, NAME_TAKEN_S
from pipeline.messages import DirectoryUpdate, Header, NodeRecord, encode_node
from tests.netns.network import Network
from tests.netns.sockets import Sockets

MakeLab = Callable[..., Lab]
MakeNetwork = Callable[..., Network]
Measured = Callable[..., None]
DAY_S = 24 * 3600
VERSION_MAX = (1 << 63) - 1

SHIFTED_CLOCK = """
import sys, time
clock, shift_s = time.time_ns, int(sys.argv.pop(1))
time.time_ns = lambda: clock() + shift_s * 10**9
from pipeline.cli import main
sys.exit(main())
"""
"""Program that runs the command line with a clock that is wrong by argv[1] seconds."""

OWN_FILES = 'for each in /run /dev/shm /var/lib; do mount -t tmpfs none "$each"; done; exec "$@"'


def on_own_files(command: Sequence[str]) -> list[str]:
    """Return a command that runs another one with runtime, state and memory files of its own, as on another host."""
    return [require("unshare"), "--mount", require("sh"), "-c", OWN_FILES, "sh", *command]


def with_option(command: Sequence[str], option: str, value: str) -> list[str]:
    """Return a command with another value of one option."""
    changed = list(command)
    changed[changed.index(option) + 1] = value
    return changed


def links_up(instance: Instance) -> dict[str, str]:
    """Return the endpoints of the peers whose links are up, by name."""
    return {link["peer"]: link["endpoint"] for link in instance.show("links") if link["state"] == "up"}


# ---------------------------------------------------------------- records


def test_forged_report_about_a_node_takes_no_link_down(make_network: MakeNetwork, measured: Measured) -> None:
    """Goal: a member cannot remove another node by reports about it.
    Method: a program with the network key reports a record of one node with the highest incarnation and version, and
    others that no node could refuse alone, to both ends of a link.  The link stays up for 3 s, with the same state
    since its begin."""
    network = make_network(3)
    subject, peer, attacker = network.instances
    assert network.key is not None
    curve = bus.derive_curve_keys(load_network_key(network.key))
    values: dict[str, Any] = {
        "node_id": derive_node_id(subject.name, 0), "name": subject.name, "incarnation": INCARNATION_MAX,
        "version": VERSION_MAX, "addresses": (), "lanes": 1, "endpoint": f"{subject.host.underlay}:4747",
        "key_epoch": 0, "sender_key": bytes(32), "engine": "mesh", "explicit_addresses": False,
    }  # fmt: skip
    changes: list[dict[str, Any]] = [
        {},
        {"incarnation": INCARNATION_MAX - 1},
        {"incarnation": time.time_ns() // 1_000_000 + 1000},
        {"name": "A"},
        {"name": "A", "endpoint": f"{attacker.host.underlay}:4999"},
    ]
    head = Header(sender=99, incarnation=1, endpoint=f"{attacker.host.underlay}:4999")
    downs = {each: each.process.log.count("link down") for each in (subject, peer)}
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with attacker.host.enter():
        targets = [f"{each.host.underlay}:4747" for each in (peer, subject)]
        senders = [bus.peer_sender(context, target, curve) for target in targets]
        for sender in senders:
            for change in changes:
                message = encode_node(DirectoryUpdate(records=[NodeRecord(**values | change)], **head))
                wait_until(lambda: bus.send(sender, message), 3, "the report is sent")  # noqa: B023
        time.sleep(3)
    context.destroy(linger=0)
    flaps = sum(each.process.log.count("link down") - downs[each] for each in (subject, peer))
    measured(flaps=flaps)
    assert flaps == 0
    assert links_up(peer)[subject.name] == f"{subject.host.underlay}:4747"
    assert network.is_healthy()


# ---------------------------------------------------------------- clocks and names


def launch_moved(host: Host, old: Instance, command: Sequence[str]) -> Instance:
    """Launch the instance `old` on another host, as after a move of its disk or its address."""
    moved = Instance(host, with_option(command, "--name", old.name))
    moved.name = old.name
    return moved


def test_node_with_a_clock_a_day_back_and_a_new_address_links_within_seconds(
    make_lab: MakeLab, measured: Measured
) -> None:
    """Goal: a clock that is set back delays a link no more than the detection of the dead process.
    Method: a node is killed and starts on another host, without its state directory, with a clock one day back."""
    lab = make_lab(3)
    key, (a, b, c) = network_key(lab), lab.hosts
    first, old = (launch(host, key=key, peers=[a]) for host in (a, b))
    for node in (first, old):
        node.wait_ready()
    wait_linked([first, old])
    old.disconnect()
    old.process.popen.kill()
    old.process.wait(5)
    wait_until(lambda: not b.pids(), 3, "its processes have ended")
    command = launch_command(c, key=key, peers=[a])
    shifted = [sys.executable, "-c", SHIFTED_CLOCK, str(-DAY_S), *command[1:]]
    began = time.monotonic()
    moved = launch_moved(c, old, [require("env"), f"STATE_DIRECTORY={lab.dir / 'empty'}", *shifted])
    expected = f"{c.underlay}:4747"
    wait_until(lambda: links_up(first).get(old.name) == expected, 20, "the node is linked at its new address")
    measured(linked_s=time.monotonic() - began)
    assert time.monotonic() - began < LINK_TIMEOUT_S + 4
    assert moved.process.alive()
    moved.stop()


def test_start_after_the_clock_was_set_back_has_a_higher_incarnation(make_lab: MakeLab, measured: Measured) -> None:
    """Goal: with its state directory, a node whose clock was set back is linked at once, as with a right clock.
    Method: a node stops and starts again one day back; the file of its incarnation grows."""
    lab = make_lab(2)
    key, (a, b) = network_key(lab), lab.hosts
    nodes = [launch(host, key=key, peers=[a]) for host in (a, b)]
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    state = lab.dir / "state"
    kept, took_s = [], []
    for shift_s in (0, -DAY_S):
        nodes[1].stop()
        command = launch_command(b, key=key, peers=[a])
        shifted = [sys.executable, "-c", SHIFTED_CLOCK, str(shift_s), *command[1:]]
        nodes[1] = Instance(b, [require("env"), f"STATE_DIRECTORY={state}", *shifted])
        began = time.monotonic()
        nodes[1].wait_ready()
        wait_linked(nodes)
        took_s.append(time.monotonic() - began)
        kept.append(int((state / "incarnation").read_text()))
    measured(right_clock_s=took_s[0], day_back_s=took_s[1])
    assert kept[1] == kept[0] + 1
    assert "incarnation not kept" not in nodes[1].process.log


def test_clone_with_the_default_listen_ends_with_the_reason(make_lab: MakeLab, measured: Measured) -> None:
    """Goal: a host that was cloned with its name ends with one line that names the other host and the remedy.
    Method: two hosts with one name, both listening on all addresses, with files of their own."""
    lab = make_lab(3)
    key, (a, b, c) = network_key(lab), lab.hosts
    first = launch(a, key=key)
    original = Instance(b, with_option(launch_command(b, key=key, peers=[a]), "--listen", "0.0.0.0:4747"))
    for node in (first, original):
        node.wait_ready()
    wait_linked([first, original])
    command = with_option(launch_command(c, key=key, peers=[a]), "--listen", "0.0.0.0:4747")
    began = time.monotonic()
    clone = launch_moved(c, original, on_own_files(command))
    assert clone.process.wait(3 * NAME_TAKEN_S) == 1
    measured(ended_s=time.monotonic() - began)
    lines = [line for line in clone.process.log.splitlines() if line.startswith("pipeline: ")]
    assert lines == [
        f"pipeline: the name {b.name} is in use by the node at {b.underlay}:4747: choose another --name"
    ], clone.process.log
    assert "is its port open?" not in clone.process.log
    assert links_up(first) == {original.name: f"{b.underlay}:4747"}
    assert first.process.log.count("link down") == 0


# ---------------------------------------------------------------- addresses


def test_configured_address_stays_with_its_first_holder(make_lab: MakeLab, sockets: Sockets) -> None:
    """Goal: a node that is configured with the address of another one does not get its unicast.
    Method: the later node has a name with a lower hash.  Datagrams of a third node reach the first holder, before and
    after, and both nodes log the conflict."""
    lab = make_lab(3)
    key, (a, b, c) = network_key(lab), lab.hosts
    holder, third = (launch(host, key=key, peers=lab.hosts[:2]) for host in (a, b))
    for node in (holder, third):
        node.wait_ready()
    wait_linked([holder, third])
    listener = sockets.open(a, socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((holder.ip4, 5055))
    listener.settimeout(3)
    sender = sockets.open(b, socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"before", (holder.ip4, 5055))
    assert listener.recv(100) == b"before"
    names = (f"{c.name}-{number}" for number in itertools.count())
    lower = next(name for name in names if derive_node_id(name, 0) < derive_node_id(a.name, 0))
    command = launch_command(c, key=key, peers=lab.hosts, addresses=(f"{holder.ip4}/16", "fd77::3/64"))
    usurper = Instance(c, with_option(command, "--name", lower))
    usurper.name = lower
    usurper.wait_ready()
    wait_linked([holder, third, usurper])
    time.sleep(0.5)
    for number in range(5):
        sender.sendto(b"after%d" % number, (holder.ip4, 5055))
        assert listener.recv(100) == b"after%d" % number
    for node in (holder, usurper):
        assert node.process.log.count(f"unicast goes to {a.name}") == 1, node.process.log
