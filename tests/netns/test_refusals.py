"""Refused launches: bad configuration, missing rights, conflicts with other programs.

Every refusal is one line on stderr with the right exit code, and leaves nothing on the host.
"""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.io import rundir
from pipeline.lab.instance import launch, launch_command, network_key, program
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require
from tests.netns.network import INTERFACE, assert_one_line
from tests.netns.sockets import Sockets

MakeLab = Callable[..., Lab]
FAILURE, USAGE, NO_PERMISSION, BAD_CONFIGURATION = 1, 2, 77, 78


def refused(host: Host, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a launch that must end by itself; check that no interface and no process is left."""
    done = host.run(command, check=False, timeout_s=10)
    assert host.interface(INTERFACE) is None
    assert host.pids() == []
    return done


def in_private_mounts(command: Sequence[str], mount: str) -> list[str]:
    """Return the command to run in its own mount namespace, after this mount command."""
    return [require("unshare"), "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", *command]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--workers", "3"], "3"),
        (["--workers", "0"], "0"),
        (["--workers", "many"], "many"),
        (["--listen", "10.99.0.1:"], "10.99.0.1:"),
        (["--listen", "10.99.0.1:99999"], "99999"),
        (["--peer", "nowhere:port"], "nowhere:port"),
        (["--address", "10.77.0.300/16"], "10.77.0.300/16"),
        (["--address", "239.1.1.1/16"], "239.1.1.1/16"),
        (["--overlay", "pigeons"], "pigeons"),
        (["--tun", "a-name-that-is-too-long"], "a-name-that-is-too-long"),
        (["--name", "a/b"], "a/b"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_bad_flag_is_a_usage_error(make_lab: MakeLab, flags: list[str], word: str) -> None:
    """Goal: a bad value of a flag is a usage error, and the line contains the value.
    Method: launch with each; exit code 2, one line."""
    host = make_lab(1).hosts[0]
    command = [program(), "launch", "--insecure", *flags]
    if "--name" not in flags:
        command += ["--name", host.name]
    assert_one_line(refused(host, command), USAGE, word)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tun]\nmtuu = 1400\n", ["mtuu", "mtu"]),
        ("[tunn]\nmtu = 1400\n", ["tunn", "tun"]),
        ("[tun]\nmtu = 12\n", ["12"]),
        ("[membership]\nrobustness = 0\n", ["robustness"]),
        ("[membership]\nquery_interval_s = 5\nquery_response_interval_s = 10\n", ["query_response_interval_s"]),
        ("[node\n", []),
        ('[node]\npeers = ["10.0.0.1:0"]\n', ["10.0.0.1:0"]),
    ],
)
def test_bad_configuration_names_file_and_key(make_lab: MakeLab, text: str, words: list[str]) -> None:
    """Goal: with a bad configuration file launch exits with 78; the line names the file and the key, and for an unknown
    key the nearest known one.
    Method: launch with each file."""
    lab = make_lab(1)
    path = lab.dir / "bad.toml"
    path.write_text(text)
    command = launch_command(lab.hosts[0], key=None, extra=["--config", str(path)])
    assert_one_line(refused(lab.hosts[0], command), BAD_CONFIGURATION, str(path), *words)


def test_unusable_key_names_path_or_flags(make_lab: MakeLab) -> None:
    """Goal: a missing or unusable key is a bad configuration; the line names the path, or `--key` and `--insecure`.
    Method: launch without a key, with a missing file, with a malformed one, and with one that others may read."""
    lab = make_lab(1)
    host = lab.hosts[0]
    bare = [program(), "launch", "--name", host.name, "--listen", f"{host.underlay}:4747"]
    assert_one_line(refused(host, bare), BAD_CONFIGURATION, "--key", "--insecure")
    missing, malformed, exposed = (lab.dir / name for name in ("missing.key", "malformed.key", "exposed.key"))
    malformed.write_text("nonsense\n")
    malformed.chmod(0o600)
    exposed.write_bytes(network_key(lab).read_bytes())
    exposed.chmod(0o644)
    for path in (missing, malformed, exposed):
        assert_one_line(refused(host, launch_command(host, key=path)), BAD_CONFIGURATION, str(path))


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_port_in_use_is_named(make_lab: MakeLab, sockets: Sockets, protocol: str) -> None:
    """Goal: when the port is in use, launch exits with 1 and a line that names the port.
    Method: bind it before the launch, for UDP (data) or TCP (control)."""
    host = make_lab(1).hosts[0]
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    blocker = sockets.open(host, socket.AF_INET, kind)
    blocker.bind((host.underlay, 4747))
    if protocol == "TCP":
        blocker.listen()
    assert_one_line(refused(host, launch_command(host, key=None)), FAILURE, "4747")


def test_name_in_use_is_named(make_lab: MakeLab) -> None:
    """Goal: a second instance with the same name exits with 1 and a line that has the name; the first one runs on.
    Method: launch the same name in another network namespace of the machine."""
    lab = make_lab(2)
    first = launch(lab.hosts[0], key=None)
    first.wait_ready()
    command = launch_command(lab.hosts[1], key=None)
    command[command.index("--name") + 1] = first.name
    assert_one_line(refused(lab.hosts[1], command), FAILURE, first.name)
    assert first.request("status")["ready"]
    assert first.stop() == 0


def test_interface_of_another_program_is_named_and_kept(make_lab: MakeLab) -> None:
    """Goal: when another program owns an interface of that name, launch exits with 1 and a line that names it, and the
    interface stays.
    Method: a bridge called mcast0."""
    host = make_lab(1).hosts[0]
    host.run([require("ip"), "link", "add", INTERFACE, "type", "bridge"])
    done = host.run(launch_command(host, key=None), check=False, timeout_s=10)
    assert_one_line(done, FAILURE, INTERFACE)
    assert host.interface(INTERFACE) is not None


def test_listen_address_of_another_host_is_named(make_lab: MakeLab) -> None:
    """Goal: with a listen address that the host does not have, launch exits with 1 and a line that names it.
    Method: listen on the address of another host."""
    lab = make_lab(2)
    command = launch_command(lab.hosts[0], key=None)
    command[command.index("--listen") + 1] = f"{lab.hosts[1].underlay}:4747"
    assert_one_line(refused(lab.hosts[0], command), FAILURE, lab.hosts[1].underlay)


@pytest.mark.parametrize(
    "rights", [["--bounding-set=-net_admin", "--inh-caps=-net_admin"], ["--reuid=65534", "--clear-groups"]]
)
def test_missing_rights_exit_with_77(make_lab: MakeLab, rights: list[str]) -> None:
    """Goal: without the necessary rights launch exits with 77; it tries what it needs and does not check the uid.
    Method: root without CAP_NET_ADMIN, and another user."""
    host = make_lab(1).hosts[0]
    command = [require("setpriv"), *rights, *launch_command(host, key=None)]
    assert_one_line(refused(host, command), NO_PERMISSION)


def test_missing_tun_device_is_named(make_lab: MakeLab) -> None:
    """Goal: on a host without /dev/net/tun launch exits with 1 and a line that names it.
    Method: an empty file system over /dev/net, in a mount namespace."""
    host = make_lab(1).hosts[0]
    command = in_private_mounts(launch_command(host, key=None), "mount -t tmpfs none /dev/net")
    assert_one_line(refused(host, command), FAILURE, "/dev/net/tun")


def test_full_shared_memory_is_named(make_lab: MakeLab) -> None:
    """Goal: with a full /dev/shm launch exits with 1 and a line that names it.
    Method: a file system of 256 KiB over /dev/shm, in a mount namespace."""
    host = make_lab(1).hosts[0]
    command = in_private_mounts(launch_command(host, key=None), "mount -t tmpfs -o size=256k none /dev/shm")
    assert_one_line(refused(host, command), FAILURE, "/dev/shm")
    assert not list(Path("/dev/shm").glob(f"*{host.name}*"))


def test_commands_exit_with_69_when_nothing_runs(make_lab: MakeLab) -> None:
    """Goal: `status`, `show` and `stop` of an instance that does not run exit with 69.
    Method: each command with a name that no instance has."""
    host = make_lab(1).hosts[0]
    for words in (["status"], ["status", "--wait", "0.2"], ["show", "links"], ["stop"]):
        done = host.run([program(), *words, "--name", host.name], check=False)
        assert_one_line(done, 69, host.name)


def test_read_only_runtime_directory_is_named(make_lab: MakeLab) -> None:
    """Goal: with a read-only runtime directory the line names the file system, and does not advise root to run as root.
    Method: a read-only tmpfs over the runtime directory, in a mount namespace."""
    host = make_lab(1).hosts[0]
    mount = f"mkdir -p {rundir.ROOT} && mount -t tmpfs -o ro none {rundir.ROOT}"
    done = refused(host, in_private_mounts(launch_command(host, key=None), mount))
    assert_one_line(done, FAILURE, f"{rundir.ROOT / host.name}: read-only file system")


def test_signal_during_launch_leaves_nothing(make_lab: MakeLab) -> None:
    """Goal: SIGTERM during a launch ends it with exit code 0 and leaves nothing, without the delay after which the
    supervisor kills a child.
    Method: SIGTERM as soon as the runtime directory exists, ten times; exit within 2 s, nothing is left."""
    host = make_lab(1).hosts[0]
    directory = rundir.ROOT / host.name
    for _ in range(10):
        process = host.spawn(launch_command(host, key=None), label="launch")
        while process.alive() and not directory.exists():
            pass
        process.signal(signal.SIGTERM)
        assert process.popen.wait(2) == 0, process.log
        assert not directory.exists()
        assert not list(Path("/dev/shm").glob(f"*{host.name}*"))
        assert host.interface(INTERFACE) is None
