"""Upgrades of a network node by node: daemons of the previous version beside daemons of this one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

import pytest

from pipeline.lab.instance import Instance, launch, launch_command, network_key, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require, wait_until
from tests import previous
from tests.netns.network import fresh_group
from tests.netns.traffic import Receiver, Sender

MakeLab = Callable[..., Lab]
Measured = Callable[..., None]
pytestmark = pytest.mark.timeout(120)  # the first test builds the previous version, which takes some 10 s
STREAMS = 7
MBIT = 1.0
"""Rate of each stream.  At 11 Mbit/s nothing is lost either, but a daemon takes 7 s to start on two cores."""
LINKED_S = 10.0
"""Longest time from the launch of a daemon until it has all links: peers that could not connect try again after 5 s."""

LATER_VERSION = """
import sys
from pipeline import messages
messages.PROTOCOLS = (3, 4)
from pipeline.cli import main
sys.exit(main())
"""
"""Program that runs the command line of a version that speaks other protocols than this one."""


class MixedNetwork:
    """A daemon on each host of a laboratory, of either version."""

    def __init__(self, lab: Lab, *, sealed: bool = True, engine: str = "mesh") -> None:
        self.lab = lab
        self.instances: dict[Host, Instance] = {}
        self._key = network_key(lab) if sealed else None
        self._extra = ["--overlay", engine]

    def launch(self, host: Host, *, is_new: bool) -> None:
        """Launch a daemon that knows all hosts as peers, with a state directory that stays."""
        command = launch_command(host, key=self._key, peers=self.lab.hosts, workers=2, extra=self._extra)
        program = command if is_new else previous.program(command[1:])
        state = f"STATE_DIRECTORY={self.lab.dir / f'state-{host.name}'}"
        self.instances[host] = Instance(host, [require("env"), state, *program])
        self.instances[host].wait_ready()

    def launch_all(self, versions: Sequence[bool]) -> None:
        """Launch a daemon on each host, and wait for their links."""
        for host, is_new in zip(self.lab.hosts, versions, strict=True):
            self.launch(host, is_new=is_new)
        wait_linked(list(self.instances.values()))

    def relaunch(self, host: Host, *, is_new: bool) -> float:
        """Stop a daemon and launch one of either version; return the seconds from then until all links are up."""
        assert self.instances.pop(host).stop() == 0
        began = time.monotonic()
        self.launch(host, is_new=is_new)
        wait_linked(list(self.instances.values()))
        return time.monotonic() - began


def wait_members(network: MixedNetwork, group: str, hosts: Sequence[Host]) -> None:
    """Wait until every daemon knows the members of the group on these hosts."""
    for instance in network.instances.values():
        instance.wait_members(group, [network.instances[host] for host in hosts])


def gap_lines(instance: Instance) -> list[str]:
    """Return the lines of a daemon's log about protocols of other versions."""
    events = [json.loads(line)["event"] for line in instance.process.log.splitlines() if line.startswith("{")]
    return [event for event in events if "speaks protocol" in event]


def assert_streams_reach_all(network: MixedNetwork) -> None:
    """Check that a stream of each host reaches all others."""
    group, hosts = fresh_group(), network.lab.hosts
    receivers = [Receiver(host, group, streams=len(hosts)) for host in hosts]
    wait_members(network, group, hosts)
    senders = [Sender(host, group, stream=number, pps=200, seconds=0.5) for number, host in enumerate(hosts)]
    sent = [sender.sent() for sender in senders]
    for receiver in receivers:
        account = receiver.account()
        for number, count in enumerate(sent):
            account.assert_perfect(count, stream=number)


def test_rolling_upgrade_loses_no_packet_between_other_nodes(make_lab: MakeLab, measured: Measured) -> None:
    """Goal: while one node is upgraded, all others miss nothing.
    Method: five nodes of the previous version are upgraded in turn.  Meanwhile the other four send seven streams to
    each other, those that are upgraded already included.  In the end each node receives a stream of each other one."""
    network = MixedNetwork(make_lab(5))
    network.launch_all([False] * 5)
    linked_s, datagrams = [], 0
    for host in network.lab.hosts:
        group, others = fresh_group(), [each for each in network.lab.hosts if each is not host]
        receivers = [Receiver(each, group, streams=STREAMS) for each in others]
        wait_members(network, group, others)
        senders = [Sender(others[number % 4], group, stream=number, mbit=MBIT) for number in range(STREAMS)]
        time.sleep(0.2)
        linked_s.append(network.relaunch(host, is_new=True))
        time.sleep(0.5)
        sent = [sender.stop() for sender in senders]
        for receiver in receivers:
            account = receiver.account()
            for number, count in enumerate(sent):
                account.assert_perfect(count, stream=number)
        datagrams += sum(sent) * len(receivers)
    assert_streams_reach_all(network)
    measured(datagrams=datagrams, linked_s=max(linked_s))
    assert max(linked_s) < LINKED_S


def test_mixed_network_carries_streams_and_a_node_can_be_rolled_back(make_lab: MakeLab, measured: Measured) -> None:
    """Goal: nodes of both versions carry each other's streams, also without keys and with the other engine, and a node
    can go back.
    Method: the second of three nodes is upgraded, then the first; then the second is rolled back."""
    network = MixedNetwork(make_lab(3), sealed=False, engine="nemo")
    network.launch_all([False] * 3)
    first, second, _ = network.lab.hosts
    linked_s = []
    for host, is_new in ((second, True), (first, True), (second, False)):
        linked_s.append(network.relaunch(host, is_new=is_new))
        assert_streams_reach_all(network)
    measured(linked_s=max(linked_s))
    assert max(linked_s) < LINKED_S


def test_both_daemons_without_a_common_protocol_log_which_to_upgrade(make_lab: MakeLab) -> None:
    """Goal: a gap of versions is one line on both sides.  Method: a daemon that speaks later protocols only."""
    lab = make_lab(2)
    key, (a, b) = network_key(lab), lab.hosts
    here = launch(a, key=key, peers=lab.hosts)
    command = launch_command(b, key=key, peers=lab.hosts)
    there = Instance(b, [sys.executable, "-c", LATER_VERSION, *command[1:]])
    line = f"{b.name} speaks protocol 3–4, {a.name} 1–2: upgrade {a.name}"
    for node in (here, there):
        node.wait_ready()
    for node in (here, there):
        wait_until(lambda: gap_lines(node), 10, "the gap is logged")  # noqa: B023
    time.sleep(2)
    for node in (here, there):
        [found] = gap_lines(node)
        assert found.endswith(line)
        assert not node.show("links") or all(link["state"] != "up" for link in node.show("links"))
