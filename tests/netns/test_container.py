"""Goal: a node runs in a plain container: IPv6 switched off by sysctl, /proc/sys read-only.
Method: the same in a network and a mount namespace; two nodes, IPv4 traffic between them."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.lab.instance import Instance, launch_command, network_key, program, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require
from tests.netns.network import fresh_group, wait_route
from tests.netns.traffic import Receiver, Sender

READ_ONLY_SYSCTLS = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'


def in_container(command: list[str]) -> list[str]:
    """Return a command that runs another one in a mount namespace where /proc/sys is read-only."""
    return [require("unshare"), "--mount", require("sh"), "-c", READ_ONLY_SYSCTLS, "sh", *command]


def launch_in_container(host: Host, lab: Lab) -> Instance:
    host.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    host.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
    return Instance(host, in_container(launch_command(host, key=network_key(lab), peers=lab.hosts)))


def test_node_without_ipv6_runs_with_ipv4(make_lab: Callable[..., Lab]) -> None:
    """Goal: the node is ready, its log has one line about the missing IPv6, and IPv4 groups work.
    Method: two such nodes; a stream from one to the other."""
    lab = make_lab(2)
    a, b = instances = [launch_in_container(host, lab) for host in lab.hosts]
    for instance in instances:
        instance.wait_ready()
    wait_linked(instances)
    receiver = Receiver(b.host, group := fresh_group())
    wait_route(a, group, [b])
    sent = Sender(a.host, group, pps=500, count=200).sent()
    receiver.account().assert_perfect(sent)
    lines = [line for line in a.process.log.splitlines() if "IPv6" in line]
    assert len(lines) == 1, a.process.log
    assert "disable_ipv6" in lines[0]


def test_check_reports_missing_ipv6(make_lab: Callable[..., Lab]) -> None:
    """Goal: `pipeline check` succeeds and reports the missing IPv6.  Method: the command in such a container."""
    host = make_lab(1).hosts[0]
    host.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
    done = host.run(in_container([program(), "check"]))
    line = next(line for line in done.stdout.splitlines() if line.startswith("ipv6"))
    assert "note" in line
    assert "disable_ipv6" in line
