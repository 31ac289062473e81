"""Goal: a node runs in a container, where IPv6 may be switched off by sysctl and /proc/sys may be read-only.
Method: the same in a network and a mount namespace; two nodes with traffic between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.lab.instance import Instance, launch_command, network_key, program, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require
from tests.netns.network import fresh_group, fresh_group6, wait_route
from tests.netns.traffic import Receiver, Sender

READ_ONLY_SYSCTLS = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'


def in_container(command: list[str]) -> list[str]:
    """Return a command that runs another one in a mount namespace where /proc/sys is read-only."""
    return [require("unshare"), "--mount", require("sh"), "-c", READ_ONLY_SYSCTLS, "sh", *command]


def switch_ipv6_off(host: Host) -> None:
    host.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    host.sysctl("net.ipv6.conf.default.disable_ipv6", 1)


def start_pair(lab: Lab, wrap: Callable[[list[str]], list[str]], *extra: str) -> list[Instance]:
    """Launch a node on both hosts by the command that `wrap` returns; wait until they are linked."""
    commands = [launch_command(host, key=network_key(lab), peers=lab.hosts, extra=extra) for host in lab.hosts]
    instances = [Instance(host, wrap(command)) for host, command in zip(lab.hosts, commands, strict=True)]
    for instance in instances:
        instance.wait_ready()
    wait_linked(instances)
    return instances


def assert_delivers(source: Instance, member: Instance, group: str) -> None:
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sent = Sender(source.host, group, pps=500, count=200).sent()
    receiver.account().assert_perfect(sent)


def lines_about_ipv6(instance: Instance) -> list[str]:
    return [line for line in instance.process.log.splitlines() if "IPv6" in line]


@pytest.mark.parametrize("extra", [(), ("--listen", "[::]:4747")], ids=["IPv4", "listen on [::]"])
def test_node_without_ipv6_runs_with_ipv4(make_lab: Callable[..., Lab], extra: tuple[str, ...]) -> None:
    """Goal: the node is ready, one line of its log reports that IPv6 is absent, and IPv4 groups work.
    Method: IPv6 switched off, and /proc/sys read-only; a stream from one node to the other."""
    lab = make_lab(2)
    for host in lab.hosts:
        switch_ipv6_off(host)
    a, b = start_pair(lab, in_container, *extra)
    assert_delivers(a, b, fresh_group())
    lines = lines_about_ipv6(a)
    assert len(lines) == 1, a.process.log
    assert "disable_ipv6" in lines[0]


def test_node_with_read_only_sysctls_has_both_families(make_lab: Callable[..., Lab]) -> None:
    """Goal: read-only settings alone cost nothing: groups of both families work, and no line is logged.
    Method: IPv6 on, /proc/sys read-only; streams in both directions."""
    a, b = start_pair(make_lab(2), in_container)
    for group in (fresh_group(), fresh_group6()):
        assert_delivers(a, b, group)
        assert_delivers(b, a, group)
    assert not lines_about_ipv6(a)


def test_node_switches_ipv6_on_for_its_own_interface(make_lab: Callable[..., Lab]) -> None:
    """Goal: with writable settings the node has IPv6 on its interface although the host has none.
    Method: IPv6 switched off for all and for new interfaces; an IPv6 stream."""
    lab = make_lab(2)
    for host in lab.hosts:
        switch_ipv6_off(host)
    a, b = start_pair(lab, lambda command: command)
    assert_delivers(a, b, fresh_group6())
    assert not lines_about_ipv6(a)


def test_check_reports_missing_ipv6(make_lab: Callable[..., Lab]) -> None:
    """Goal: `pipeline check` succeeds and reports that IPv6 is absent.  Method: the command in such a container."""
    host = make_lab(1).hosts[0]
    host.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
    done = host.run(in_container([program(), "check"]))
    line = next(line for line in done.stdout.splitlines() if line.startswith("ipv6"))
    assert "note" in line
    assert "disable_ipv6" in line
