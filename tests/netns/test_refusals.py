"""Bad configuration, missing rights, things in the way: one line on stderr, the right exit code, nothing left."""

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
    """Runs a launch that must end by itself, and looks that it has made no interface."""
    done = host.run(command, check=False, timeout_s=10)
    assert host.interface(INTERFACE) is None
    assert host.pids() == []
    return done


def in_private_mounts(command: Sequence[str], mount: str) -> list[str]:
    """The command in a mount namespace of its own, after a mount."""
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
def test_bad_flags(make_lab: MakeLab, flags: list[str], word: str) -> None:
    """Goal: a bad value of a flag is a usage error that holds the value (design §6).
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
def test_bad_configuration(make_lab: MakeLab, text: str, words: list[str]) -> None:
    """Goal: a bad configuration file ends with 78 and a line that names the file and the key, or the nearest one.
    Method: launch with each."""
    lab = make_lab(1)
    path = lab.dir / "bad.toml"
    path.write_text(text)
    command = launch_command(lab.hosts[0], key=None, extra=["--config", str(path)])
    assert_one_line(refused(lab.hosts[0], command), BAD_CONFIGURATION, str(path), *words)


def test_unusable_keys(make_lab: MakeLab) -> None:
    """Goal: a missing or unusable key is a bad configuration; the line names the path, or the two flags (design §6).
    Method: launch without a key, with one that is missing, one of nonsense, and one that others may read."""
    lab = make_lab(1)
    host = lab.hosts[0]
    bare = [program(), "launch", "--name", host.name, "--listen", f"{host.underlay}:4747"]
    assert_one_line(refused(host, bare), BAD_CONFIGURATION, "--key", "--insecure")
    missing, nonsense, exposed = (lab.dir / name for name in ("missing.key", "nonsense.key", "exposed.key"))
    nonsense.write_text("nonsense\n")
    nonsense.chmod(0o600)
    exposed.write_bytes(network_key(lab).read_bytes())
    exposed.chmod(0o644)
    for path in (missing, nonsense, exposed):
        assert_one_line(refused(host, launch_command(host, key=path)), BAD_CONFIGURATION, str(path))


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_port_in_use(make_lab: MakeLab, sockets: Sockets, protocol: str) -> None:
    """Goal: a port in use ends with 1 and a line that names it.
    Method: bind it before the launch, UDP (data) or TCP (control)."""
    host = make_lab(1).hosts[0]
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    blocker = sockets.open(host, socket.AF_INET, kind)
    blocker.bind((host.underlay, 4747))
    if protocol == "TCP":
        blocker.listen()
    assert_one_line(refused(host, launch_command(host, key=None)), FAILURE, "4747")


def test_name_in_use(make_lab: MakeLab) -> None:
    """Goal: a second instance of a name ends with 1 and a line that names it; the first does not notice.
    Method: launch the same name in another network namespace of the machine."""
    lab = make_lab(2)
    first = launch(lab.hosts[0], key=None)
    first.wait_ready()
    command = launch_command(lab.hosts[1], key=None)
    command[command.index("--name") + 1] = first.name
    assert_one_line(refused(lab.hosts[1], command), FAILURE, first.name)
    assert first.ask("status")["ready"]
    assert first.stop() == 0


def test_interface_in_use(make_lab: MakeLab) -> None:
    """Goal: an interface of that name that is not ours ends with 1 and a line that names it, and stays.
    Method: a bridge called mcast0."""
    host = make_lab(1).hosts[0]
    host.run([require("ip"), "link", "add", INTERFACE, "type", "bridge"])
    done = host.run(launch_command(host, key=None), check=False, timeout_s=10)
    assert_one_line(done, FAILURE, INTERFACE)
    assert host.interface(INTERFACE) is not None


def test_address_not_of_this_host(make_lab: MakeLab) -> None:
    """Goal: an address to listen on that the host does not have ends with 1 and a line that names it.
    Method: listen on another host's."""
    lab = make_lab(2)
    command = launch_command(lab.hosts[0], key=None)
    command[command.index("--listen") + 1] = f"{lab.hosts[1].underlay}:4747"
    assert_one_line(refused(lab.hosts[0], command), FAILURE, lab.hosts[1].underlay)


@pytest.mark.parametrize(
    "rights", [["--bounding-set=-net_admin", "--inh-caps=-net_admin"], ["--reuid=65534", "--clear-groups"]]
)
def test_missing_rights(make_lab: MakeLab, rights: list[str]) -> None:
    """Goal: without the rights launch ends with 77 (rights are tried, not the uid looked at).
    Method: root without CAP_NET_ADMIN, and another user."""
    host = make_lab(1).hosts[0]
    command = [require("setpriv"), *rights, *launch_command(host, key=None)]
    assert_one_line(refused(host, command), NO_PERMISSION)


def test_no_tun_device(make_lab: MakeLab) -> None:
    """Goal: a host without /dev/net/tun ends with 1 and a line that names it.
    Method: an empty file system over /dev/net, in a mount namespace of its own."""
    host = make_lab(1).hosts[0]
    command = in_private_mounts(launch_command(host, key=None), "mount -t tmpfs none /dev/net")
    assert_one_line(refused(host, command), FAILURE, "/dev/net/tun")


def test_full_shared_memory(make_lab: MakeLab) -> None:
    """Goal: a full /dev/shm ends with 1 and a line that names it.
    Method: a file system of 256 KiB over it, in a mount namespace of its own."""
    host = make_lab(1).hosts[0]
    command = in_private_mounts(launch_command(host, key=None), "mount -t tmpfs -o size=256k none /dev/shm")
    assert_one_line(refused(host, command), FAILURE, "/dev/shm")
    assert not list(Path("/dev/shm").glob(f"*{host.name}*"))


def test_asking_what_does_not_run(make_lab: MakeLab) -> None:
    """Goal: status, show and stop of an instance that does not run end with 69.
    Method: ask for a name that nobody has."""
    host = make_lab(1).hosts[0]
    for words in (["status"], ["status", "--wait", "0.2"], ["show", "links"], ["stop"]):
        done = host.run([program(), *words, "--name", host.name], check=False)
        assert_one_line(done, 69, host.name)


def test_read_only_runtime_directory(make_lab: MakeLab) -> None:
    """Goal: who is root already is not told to run as root, but what is in the way.
    Method: a read-only tmpfs over the runtime directory, in a mount namespace; one line that says so."""
    host = make_lab(1).hosts[0]
    mount = f"mkdir -p {rundir.ROOT} && mount -t tmpfs -o ro none {rundir.ROOT}"
    done = refused(host, in_private_mounts(launch_command(host, key=None), mount))
    assert_one_line(done, FAILURE, f"{rundir.ROOT / host.name}: read-only file system")


def test_ended_in_the_middle_of_its_start(make_lab: MakeLab) -> None:
    """Goal: a signal between the first thing that a launch makes and its last leaves none of them, and
    no child has to be killed.
    Method: SIGTERM as soon as the runtime directory stands, ten times; exit code 0 in time, all is gone."""
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
