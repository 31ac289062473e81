"""Rights of the processes of an instance, and access of other local users to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.address import derive_addresses, show
from pipeline.io import privileges, rundir
from pipeline.lab.instance import Instance, launch, launch_command, wait_linked
from pipeline.lab.netns import Lab
from pipeline.lab.programs import require, wait_until
from tests.netns.network import INTERFACE, Network, worker_pid

NET_ADMIN = 1 << privileges.CAP_NET_ADMIN
WORKERS = ("tun_ingress", "classify", "overlay_egress", "overlay_ingress")
NOBODY = 65534
CAPABILITY_SETS = ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def capabilities(pid: int) -> set[int]:
    fields = status(pid)
    return {int(fields[name], 16) for name in CAPABILITY_SETS}


def restarts(instance: Instance, role: str) -> int:
    found: int = next(row["restarts"] for row in instance.show("workers") if row["role"] == role)
    return found


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_processes_have_no_unneeded_rights(make_network: Callable[..., Network], workers: int) -> None:
    """Goal: only the supervisor has CAP_NET_ADMIN.  No process can gain rights by exec or leave a core; control and
    workers have a filter of system calls.  The same is true after restarts.
    Method: /proc of every process of a running instance, before and after all except the supervisor are killed."""
    instance = make_network(1, workers=workers).instances[0]
    assert_no_unneeded_rights(instance, workers)
    children = [pid for pid in instance.pids() if pid != instance.process.pid]
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: instance.request("status")["ready"], 5.0, "all workers are ready again")
    assert not set(children) & set(instance.pids())
    assert_no_unneeded_rights(instance, workers)


def assert_no_unneeded_rights(instance: Instance, workers: int) -> None:
    supervisor = instance.process.pid
    assert len(instance.pids()) == 2 + workers
    for pid in instance.pids():
        found = status(pid)
        assert found["NoNewPrivs"] == "1"
        core = Path(f"/proc/{pid}/limits").read_text().split("Max core file size")[1].split()[:2]
        assert core == ["0", "0"]
        sets = {name: int(found[name], 16) for name in CAPABILITY_SETS}
        kept = {"CapPrm": NET_ADMIN, "CapEff": NET_ADMIN} if pid == supervisor else {}
        assert sets == dict.fromkeys(CAPABILITY_SETS, 0) | kept, found["Name"]
        assert found["Seccomp"] == ("0" if pid == supervisor else "2"), found["Name"]
        assert pid != supervisor or int(found["VmLck"].split()[0]) > 0


@pytest.mark.parametrize("role", WORKERS)
def test_forbidden_system_call_kills_the_worker(network: Network, role: str) -> None:
    """Goal: a worker that makes a system call that its stage does not need is killed, the reason is logged, and the
    worker is restarted.
    Method: strace replaces one of its calls by getppid(2), which no stage needs."""
    instance = network.instances[1]
    pid, before = worker_pid(instance, role), restarts(instance, role)
    strace = [require("strace"), "-f", "-p", str(pid), "-e", "trace=all"]
    with subprocess.Popen(
        [*strace, "-e", "inject=ppoll,poll,futex,epoll_wait:retval=0:syscall=getppid"], stderr=subprocess.DEVNULL
    ) as tracer:
        wait_until(lambda: restarts(instance, role) == before + 1, 5.0, f"{role} has ended")
        tracer.wait(5.0)
    wait_until(lambda: worker_pid(instance, role) != pid, 5.0, f"{role} is restarted")
    assert "system call forbidden by its filter" in instance.process.log
    wait_until(lambda: instance.request("status")["ready"], 5.0, "all workers are ready again")


def test_other_user_has_no_access(network: Network) -> None:
    """Goal: an unprivileged user can neither read keys and packets nor connect to the instance.
    Method: a child process with the uid of `nobody` tries shared memory, sockets, memory and descriptors."""
    instance = network.instances[0]
    directory = rundir.ROOT / instance.name
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    shared = Path(f"/dev/shm/mcast-pipeline.{instance.name}")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o600
    pid = worker_pid(instance, "classify")
    files = [shared, directory / "lock", Path(f"/proc/{pid}/mem"), Path(f"/proc/{pid}/environ")]
    if (child := os.fork()) == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            refused = 0
            for path in files:
                try:
                    os.close(os.open(path, os.O_RDONLY))
                except PermissionError:
                    refused += 1
            for name in ("control.sock", "punt.sock"):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    try:
                        sock.connect(str(directory / name))
                    except PermissionError:
                        refused += 1
            for action in (lambda: os.kill(pid, signal.SIGTERM), lambda: os.listdir(f"/proc/{pid}/fd")):
                try:
                    action()
                except PermissionError:
                    refused += 1
            code = 0 if refused == len(files) + 4 else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_user_with_cap_net_admin_is_enough(make_lab: Callable[..., Lab]) -> None:
    """Goal: an instance runs without root, as a user with CAP_NET_ADMIN in its ambient set, as under the systemd unit.
    Method: setpriv sets such a user.  Two of its instances link, and their processes have only the rights that they
    need.  A mount namespace has the usual /dev/net/tun with mode 0666, whatever this host has."""
    lab = make_lab(2)
    tun = lab.dir / "tun"
    os.mknod(tun, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    tun.chmod(0o666)
    mount = f'{require("mount")} --bind {tun} /dev/net/tun && exec "$@"'
    drop = [require("unshare"), "--mount", "/bin/sh", "-c", mount, "sh"]
    drop += [require("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    drop += ["--inh-caps=-all,+net_admin", "--ambient-caps=+net_admin", "--bounding-set=-all,+net_admin"]
    instances = []
    for host in lab.hosts:
        directory = rundir.ROOT / host.name
        directory.mkdir(mode=0o700, parents=True)  # RuntimeDirectory= of the unit
        os.chown(directory, NOBODY, NOBODY)
        instances.append(Instance(host, [*drop, *launch_command(host, key=None, peers=lab.hosts)]))
    try:
        for instance in instances:
            instance.wait_ready()
        wait_linked(instances)
        supervisor, *others = instances[0].pids()
        assert status(supervisor)["Uid"].split() == [str(NOBODY)] * 4
        assert capabilities(supervisor) <= {0, NET_ADMIN}
        # Root owns these files only if the process is not dumpable; else its user does.
        assert {Path(f"/proc/{pid}/mem").stat().st_uid for pid in instances[0].pids()} == {0}
        assert all(capabilities(pid) <= {0, NET_ADMIN} and status(pid)["CapPrm"].strip("0") == "" for pid in others)
        assert [instance.stop() for instance in instances] == [0, 0]
        assert not [path for instance in instances for path in Path("/dev/shm").glob(f"*{instance.name}")]
    finally:
        for host in lab.hosts:
            shutil.rmtree(rundir.ROOT / host.name, ignore_errors=True)


def test_addresses_move_without_rights_in_control(make_lab: Callable[..., Lab]) -> None:
    """Goal: after a conflict the interface gets the new derived addresses, although control may not set them.
    Method: one node is configured with the addresses that the other one derives from its name; the other one moves."""
    lab = make_lab(2)
    a, b = lab.hosts
    v4, v6 = (show(address) for address in derive_addresses(b.name, 0))
    first = launch(a, key=None, peers=lab.hosts, addresses=(f"{v4}/16", f"{v6}/64"))
    second = launch(b, key=None, peers=lab.hosts, addresses=())
    first.wait_ready()
    second.wait_ready()
    wait_until(lambda: second.request("status")["addresses"][0] != f"{v4}/16", 5.0, "the second node has new addresses")
    expected = {text.partition("/")[0] for text in second.request("status")["addresses"]}

    def is_interface_updated() -> bool:
        text = b.run([require("ip"), "-j", "addr", "show", "dev", INTERFACE]).stdout
        return all(address in text for address in expected) and f'"{v4}"' not in text

    wait_until(is_interface_updated, 5.0, "the interface has the new addresses")
    for instance in (first, second):
        assert instance.stop() == 0
