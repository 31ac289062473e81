"""What the processes of an instance may do, and what other users of the host may do with it."""

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
def test_processes_keep_no_rights(make_network: Callable[..., Network], workers: int) -> None:
    """Goal: only the supervisor can change the interface; nobody can exec into rights or leave a core; control and
    workers have a filter of system calls.  So it is after restarts.
    Method: /proc of every process of a running instance, then again when all but the supervisor have been killed."""
    instance = make_network(1, workers=workers).instances[0]
    assert_no_rights(instance, workers)
    children = [pid for pid in instance.pids() if pid != instance.process.pid]
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: instance.ask("status")["ready"], 5.0, "all are ready again")
    assert not set(children) & set(instance.pids())
    assert_no_rights(instance, workers)


def assert_no_rights(instance: Instance, workers: int) -> None:
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
def test_forbidden_call_ends_the_worker(network: Network, role: str) -> None:
    """Goal: a worker that asks for what its stage does not need is killed, the log says why, a new one comes.
    Method: strace makes one of its calls getppid(2), which no stage needs."""
    instance = network.instances[1]
    pid, before = worker_pid(instance, role), restarts(instance, role)
    strace = [require("strace"), "-f", "-p", str(pid), "-e", "trace=all"]
    with subprocess.Popen(
        [*strace, "-e", "inject=ppoll,poll,futex,epoll_wait:retval=0:syscall=getppid"], stderr=subprocess.DEVNULL
    ) as tracer:
        wait_until(lambda: restarts(instance, role) == before + 1, 5.0, f"{role} is restarted")
        tracer.wait(5.0)
    assert "system call forbidden by its filter" in instance.process.log
    assert worker_pid(instance, role) != pid
    wait_until(lambda: instance.ask("status")["ready"], 5.0, "all are ready again")


def test_another_user_sees_nothing(network: Network) -> None:
    """Goal: an unprivileged user can neither read keys and packets nor talk to the instance.
    Method: a child becomes nobody and tries shared memory, sockets, memory and descriptors of the processes."""
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


def test_runs_as_a_user_of_its_own(make_lab: Callable[..., Lab]) -> None:
    """Goal: as under the systemd unit, a user with CAP_NET_ADMIN in its ambient set is enough, root is not needed.
    Method: setpriv makes such a user; two of its instances link, and the processes keep what they should.  (The usual
    /dev/net/tun, mode 0666, is put over this host's in a mount namespace.)"""
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
        # Of a process that may be dumped the user would own these.
        assert {Path(f"/proc/{pid}/mem").stat().st_uid for pid in instances[0].pids()} == {0}
        assert all(capabilities(pid) <= {0, NET_ADMIN} and status(pid)["CapPrm"].strip("0") == "" for pid in others)
        assert [instance.stop() for instance in instances] == [0, 0]
        assert not [path for instance in instances for path in Path("/dev/shm").glob(f"*{instance.name}")]
    finally:
        for host in lab.hosts:
            shutil.rmtree(rundir.ROOT / host.name, ignore_errors=True)


def test_addresses_move_without_rights_in_control(make_lab: Callable[..., Lab]) -> None:
    """Goal: after a conflict of derived addresses the interface has the new ones, although control may not set them.
    Method: one node is given the addresses that the other's name yields; the other gives way."""
    lab = make_lab(2)
    a, b = lab.hosts
    v4, v6 = (show(address) for address in derive_addresses(b.name, 0))
    first = launch(a, key=None, peers=lab.hosts, addresses=(f"{v4}/16", f"{v6}/64"))
    second = launch(b, key=None, peers=lab.hosts, addresses=())
    first.wait_ready()
    second.wait_ready()
    wait_until(lambda: second.ask("status")["addresses"][0] != f"{v4}/16", 5.0, "the second node gives way")
    wanted = {text.partition("/")[0] for text in second.ask("status")["addresses"]}

    def interface_has() -> bool:
        text = b.run([require("ip"), "-j", "addr", "show", "dev", INTERFACE]).stdout
        return all(address in text for address in wanted) and f'"{v4}"' not in text

    wait_until(interface_has, 5.0, "the interface has the new addresses")
    for instance in (first, second):
        assert instance.stop() == 0
