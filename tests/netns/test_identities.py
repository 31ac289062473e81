"""Identities of nodes in an open network: kept in the state directory, pinned by peers, used by one process only."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.lab.instance import Instance, launch_command, network_key, program, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require, run_program, wait_until
from pipeline.limits import NAME_TAKEN_S
from tests.netns.network import fresh_group, wait_route
from tests.netns.traffic import Receiver, Sender

NOTICED_MARK = """
import sys
from pipeline.io import vm_generation
vm_generation._MARK = b"SYNTH_ARG_NEWVMGENID=1"
from pipeline.cli import main
sys.exit(main())
"""
"""Program that runs the command line, and takes an event that a test can cause for that of a new generation."""
MakeLab = Callable[..., Lab]
Measured = Callable[..., None]


def state_of(lab: Lab, name: str) -> Path:
    """Return the state directory of a node."""
    return lab.dir / f"state-{name}"


def start(lab: Lab, host: Host, *, name: str = "", state: Path | None = None) -> Instance:
    """Launch a node with a state directory of its own, and the first two hosts as peers."""
    command = launch_command(host, key=network_key(lab), peers=lab.hosts[:2])
    if name:
        command[command.index("--name") + 1] = name
    node = Instance(host, [require("env"), f"STATE_DIRECTORY={state or state_of(lab, host.name)}", *command])
    node.name = name or host.name
    return node


def links_up(node: Instance) -> set[str]:
    """Return the names of the peers whose links are up."""
    return {link["peer"] for link in node.show("links") if link["state"] == "up"}


def errors_of(node: Instance) -> list[str]:
    """Return the lines of a node's log that are errors for the operator."""
    return [line for line in node.process.log.splitlines() if line.startswith("pipeline: ")]


def test_node_that_has_lost_its_identity_is_refused_until_its_pin_is_forgotten(
    make_lab: MakeLab, measured: Measured
) -> None:
    """Goal: nobody takes a node's name while it is away, and one line names the command that moves the name.
    Method: a node stops, and starts without its state directory; the pin is then forgotten on both peers."""
    lab = make_lab(3)
    nodes = [start(lab, host) for host in lab.hosts]
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    time.sleep(3)
    lost = nodes.pop()
    lost.stop()
    shutil.rmtree(state_of(lab, lost.name))
    again = start(lab, lost.host)
    began = time.monotonic()
    assert again.process.wait(3 * NAME_TAKEN_S) == 1
    measured(ended_s=time.monotonic() - began)
    [line] = errors_of(again)
    assert f"the name {lost.name} is pinned to another identity at 10.99.0." in line
    assert f"pipeline identity forget {lost.name}" in line
    for node in nodes:
        assert f"{lost.name} at {lost.host.underlay}:4747 has another identity than before" in node.process.log
        run_program([program(), "identity", "forget", lost.name, "--name", node.name], timeout_s=10)
    moved = start(lab, lost.host)
    moved.wait_ready()
    wait_linked([*nodes, moved])
    moved.stop()


def test_pins_outlive_a_restart(make_lab: MakeLab) -> None:
    """Goal: a restarted node still knows which identity a name has.
    Method: both nodes stop; the first starts again, then a node of another identity with the name of the second."""
    lab = make_lab(3)
    first, second = (start(lab, host) for host in lab.hosts[:2])
    for node in (first, second):
        node.wait_ready()
    wait_linked([first, second])
    wait_until(lambda: list(state_of(lab, first.name).glob("pins-*.json")), 5, "the pin is written")
    second.stop()
    first.stop()
    first = start(lab, lab.hosts[0])
    first.wait_ready()
    usurper = start(lab, lab.hosts[2], name=second.name)
    wait_until(lambda: "has another identity than before" in first.process.log, 10, "it is refused")
    assert links_up(first) == set()
    usurper.process.wait(3 * NAME_TAKEN_S)


def test_clone_of_an_identity_ends_and_both_report_it(make_lab: MakeLab, measured: Measured) -> None:
    """Goal: of two processes with one identity the later ends with one line, and the first one keeps its links.
    Method: the state directory of a running node is copied to another host, as with a cloned machine."""
    lab = make_lab(3)
    nodes = [start(lab, host) for host in lab.hosts[:2]]
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    time.sleep(1)
    original = nodes[1]
    copied = lab.dir / "copied"
    shutil.copytree(state_of(lab, original.name), copied)
    began = time.monotonic()
    command = launch_command(lab.hosts[2], key=network_key(lab), peers=lab.hosts[:1])
    command[command.index("--name") + 1] = original.name
    own_run = 'mount -t tmpfs none /run && exec "$@"'
    unshared = [require("unshare"), "--mount", require("sh"), "-c", own_run, "sh"]
    clone = Instance(lab.hosts[2], [*unshared, require("env"), f"STATE_DIRECTORY={copied}", *command])
    assert clone.process.wait(3 * NAME_TAKEN_S) == 1, clone.process.log
    measured(ended_s=time.monotonic() - began)
    [line] = errors_of(clone)
    assert f"the name {original.name} is in use by the node at {original.host.underlay}:4747" in line
    assert "this node's identity" in line
    assert "a clone of this node has been started at" in original.process.log
    assert f"a clone of node {original.name}" in nodes[0].process.log
    assert [links_up(node) for node in nodes] == [{original.name}, {nodes[0].name}]
    assert [node.process.log.count("link down") for node in nodes] == [0, 0]


def test_new_generation_of_the_virtual_machine_makes_new_keys(make_lab: MakeLab, measured: Measured) -> None:
    """Goal: a host that was restored from a snapshot seals nothing with keys of before, and is linked again.
    Method: an event of the kernel like that of its driver; only its mark is another.  A stream passes afterwards."""
    lab = make_lab(2)
    command = launch_command(lab.hosts[1], key=network_key(lab), peers=lab.hosts[:1])
    changed = [sys.executable, "-c", NOTICED_MARK, *command[1:]]
    nodes = [
        start(lab, lab.hosts[0]),
        Instance(lab.hosts[1], [require("env"), f"STATE_DIRECTORY={state_of(lab, lab.hosts[1].name)}", *changed]),
    ]
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    before = nodes[1].request("status")
    began = time.monotonic()
    Path("/sys/class/mem/null/uevent").write_text("change 00000000-0000-4000-8000-000000000001 NEWVMGENID=1")
    wait_until(lambda: nodes[1].request("status")["key_epoch"] != before["key_epoch"], 3, "it has a new key")
    measured(renewed_s=time.monotonic() - began)
    wait_linked(nodes)
    measured(linked_s=time.monotonic() - began)
    assert "all sessions and keys are made anew" in nodes[1].process.log
    assert nodes[1].request("status")["node_id"] == before["node_id"]
    group = fresh_group()
    receiver = Receiver(nodes[0].host, group)
    wait_route(nodes[1], group, [nodes[0]])
    sent = Sender(nodes[1].host, group, pps=500, seconds=1).sent()
    receiver.account().assert_perfect(sent)
