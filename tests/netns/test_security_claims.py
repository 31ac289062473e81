"""Claims of members about nodes: forged records, cloned names, clocks that are wrong, and addresses of other nodes."""

from __future__ import annotations

import itertools
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pipeline.address import derive_node_id
from pipeline.config import NodeSection
from pipeline.io import bus, identity_file
from pipeline.keys.identity import Identity
from pipeline.lab.instance import Instance, launch, launch_command, network_key, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require, wait_until
from pipeline.limits import INCARNATION_MAX, LINK_TIMEOUT_S, NAME_TAKEN_S
from pipeline.messages import DirectoryUpdate, Goodbye, Header, Hello, encode_unsigned
from pipeline.overlay import records
from tests.netns.member import Member
from tests.netns.network import Network
from tests.netns.sockets import Sockets
from tests.unit.overlay_net import Forger

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


def downs(instance: Instance, peer: Instance) -> int:
    """Return how often the link to a peer went down."""
    return sum("link down" in line and f'"{peer.name}"' in line for line in instance.process.log.splitlines())


def with_identity(command: Sequence[str], path: Path) -> list[str]:
    """Return a command that uses the identity in a file, as after a copy of the host's disk."""
    return [require("env"), f"MCAST_PIPELINE_NODE_IDENTITY={path}", *command]


def copied_identity(lab: Lab, name: str) -> Path:
    """Return a copy of the identity of an instance."""
    copy = lab.dir / "identity"
    shutil.copy(identity_file.path_of(NodeSection(name=name)), copy)
    return copy


# ---------------------------------------------------------------- records


def test_forged_report_about_a_node_takes_no_link_down(make_network: MakeNetwork, measured: Measured) -> None:
    """Goal: a member cannot remove another node by reports about it, nor speak in its name.
    Method: a program with the network key and an identity reports records of one node to both ends of a link: changed
    ones with the highest incarnation and version and others, with the node's signature and with its own; the node's
    first record, which it has kept; and a record of the node's name with another identity.  Then it sends messages of
    protocol 1 in the node's name.  The link stays up for 3 s, with the same state since its begin."""
    network = make_network(3)
    subject, peer, attacker = network.instances
    changes: list[dict[str, Any]] = [
        {"incarnation": INCARNATION_MAX, "version": VERSION_MAX},
        {"incarnation": INCARNATION_MAX - 1},
        {"incarnation": time.time_ns() // 1_000_000 + 1000},
        {"name": "A"},
        {"name": "A", "endpoint": f"{attacker.host.underlay}:4999"},
    ]
    ends = ((subject, peer), (peer, subject))
    before = sum(downs(end, other) for end, other in ends)
    with Member(attacker.host, network.key) as member:
        for target in (subject, peer):
            member.meet(target)
        genuine, identity = member.records[subject.name], member.forger.envelopes.signer
        namesake = Forger(subject.name, at=f"{attacker.host.underlay}:4999", incarnation=INCARNATION_MAX).record
        forged = [records.sign(replace(genuine, **change), identity) for change in changes]
        reported = [
            *forged, *(replace(each, signature=genuine.signature) for each in forged), genuine, namesake,
        ]  # fmt: skip
        head = Header(
            sender=genuine.node_id, incarnation=genuine.incarnation, endpoint=f"{attacker.host.underlay}:4999"
        )
        for target in (peer, subject):
            for record in reported:
                update = DirectoryUpdate(records=[record], **member.forger.header())
                assert bus.send(member.connect(target), member.seal(target, update))
            for message in (
                Goodbye(number=VERSION_MAX, **head),
                Hello(number=VERSION_MAX, record=records.unsigned(genuine), acked_stamp=None, **head),
            ):
                assert bus.send(member.connect(target), encode_unsigned(message))
        time.sleep(3)
    flaps = sum(downs(end, other) for end, other in ends) - before
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
    Method: a node is killed and starts on another host, with its identity and nothing else of its state directory, with
    a clock one day back."""
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
    shifted = with_identity(shifted, copied_identity(lab, old.name))
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
    nodes = [launch(a, key=key, peers=[a])]
    nodes[0].wait_ready()
    state = lab.dir / "state"
    kept, took_s = [], []
    for shift_s in (0, 0, -DAY_S):
        command = launch_command(b, key=key, peers=[a])
        shifted = [sys.executable, "-c", SHIFTED_CLOCK, str(shift_s), *command[1:]]
        nodes[1:] = [Instance(b, [require("env"), f"STATE_DIRECTORY={state}", *shifted])]
        began = time.monotonic()
        nodes[1].wait_ready()
        wait_linked(nodes)
        took_s.append(time.monotonic() - began)
        kept.append(int((state / "incarnation").read_text()))
        if len(kept) < 3:
            nodes[1].stop()
    measured(right_clock_s=took_s[1], day_back_s=took_s[2])
    assert kept[2] == kept[1] + 1
    assert "incarnation not kept" not in nodes[1].process.log


@pytest.mark.parametrize("has_identity", [False, True], ids=["namesake", "clone"])
def test_clone_with_the_default_listen_ends_with_the_reason(
    make_lab: MakeLab, measured: Measured, has_identity: bool
) -> None:
    """Goal: a host that was cloned with its name ends with one line that names the other host and the remedy.
    Method: two hosts with one name, both listening on all addresses, with files of their own; the later one has an
    identity of its own, or a copy of the other's."""
    lab = make_lab(3)
    key, (a, b, c) = network_key(lab), lab.hosts
    first = launch(a, key=key)
    original = Instance(b, with_option(launch_command(b, key=key, peers=[a]), "--listen", "0.0.0.0:4747"))
    for node in (first, original):
        node.wait_ready()
    wait_linked([first, original])
    command = with_option(launch_command(c, key=key, peers=[a]), "--listen", "0.0.0.0:4747")
    command = on_own_files(command)
    if has_identity:
        command = with_identity(command, copied_identity(lab, b.name))
    began = time.monotonic()
    clone = launch_moved(c, original, command)
    assert clone.process.wait(3 * NAME_TAKEN_S) == 1
    measured(ended_s=time.monotonic() - began)
    lines = [line for line in clone.process.log.splitlines() if line.startswith("pipeline: ")]
    remedy = ", with this node's identity: remove the copy of its file" if has_identity else ": choose another --name"
    expected = f"pipeline: the name {b.name} is in use by the node at {b.underlay}:4747{remedy}"
    assert lines == [expected], clone.process.log
    assert "is its port open?" not in clone.process.log
    assert links_up(first) == {original.name: f"{b.underlay}:4747"}
    assert first.process.log.count("link down") == 0


# ---------------------------------------------------------------- addresses


def new_node_id(path: Path) -> int:
    """Make an identity file; return the node id of the identity."""
    seed, _ = identity_file.load_or_make(NodeSection(name="a", identity=str(path)))
    return derive_node_id(Identity(seed).public_key, 0)


def test_configured_address_stays_with_its_first_holder(make_lab: MakeLab, sockets: Sockets) -> None:
    """Goal: a node that is configured with the address of another one does not get its unicast.
    Method: the later node has a lower node id.  Datagrams of a third node reach the first holder, before and
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
    first_id = int(holder.request("status")["node_id"], 16)
    paths = (lab.dir / f"identity{number}" for number in itertools.count())
    lower = next(path for path in paths if new_node_id(path) < first_id)
    command = launch_command(c, key=key, peers=lab.hosts, addresses=(f"{holder.ip4}/16", "fd77::3/64"))
    usurper = Instance(c, with_identity(command, lower))
    usurper.wait_ready()
    assert int(usurper.request("status")["node_id"], 16) < first_id
    wait_linked([holder, third, usurper])
    time.sleep(0.5)
    for number in range(5):
        sender.sendto(b"after%d" % number, (holder.ip4, 5055))
        assert listener.recv(100) == b"after%d" % number
    for node in (holder, usurper):
        assert node.process.log.count(f"unicast goes to {a.name}") == 1, node.process.log
