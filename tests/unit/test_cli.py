"""Goal: scripts can rely on exit codes, errors of one line, and JSON on stdout.  Method: run the command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())"]
NAME = f"absent-{os.getpid()}"


def run(*words, env=None, **options):
    """Run `pipeline WORDS` to its end; of the project's variables the environment has only those of `env`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCAST_PIPELINE_")}
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=30, check=False,
        env=clean | (env or {}), **options,
    )  # fmt: skip


def assert_error(done, code, *words):
    """Check for this exit code, an empty stdout, and one line on stderr with these words."""
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines), done.stdout) == (code, 1, ""), done.stderr
    assert "Traceback" not in done.stderr and "Usage:" not in done.stderr
    for word in words:
        assert str(word) in done.stderr


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["--help"]),
        (["lanch"], ["lanch", "launch"]),
        (["--bogus"], ["--bogus"]),
        (["config"], ["config --help"]),
        (["config", "chek"], ["chek", "check"]),
        (["show"], ["links|groups"]),
        (["show", "grops"], ["grops", "groups"]),
        (["show", "links", "extra"], ["extra"]),
        (["status", "--wait"], ["--wait"]),
        (["status", "--wait", "soon"], ["soon"]),
        (["status", "--wait", "-1"], ["-1"]),
        (["status", "--name", "a b"], ["a b"]),
        (["launch", "--insecure", "--wrokers", "4"], ["--wrokers", "--workers"]),
        (["launch", "--insecure", "--workers", "3"], ["--workers", "3"]),
        (["launch", "--insecure", "--workers", "x"], ["--workers", "x"]),
        (["launch", "--insecure", "--listen", "nowhere"], ["--listen", "nowhere"]),
        (["launch", "--insecure", "--peer", "192.0.2.1:99999"], ["--peer", "99999"]),
        (["launch", "--insecure", "--address", "10.77.0.300/16"], ["--address", "10.77.0.300/16"]),
        (["launch", "--insecure", "--name", "a/b"], ["--name", "a/b"]),
        (["launch", "--insecure", "--tun", "sixteen-letters-"], ["--tun", "sixteen-letters-"]),
        (["launch", "--insecure", "--overlay", "mseh"], ["--overlay", "mseh", "mesh"]),
        (["launch", "--insecure", "--key", "k"], ["--key k", "--insecure"]),
        (["demo", "--workers", "5"], ["--workers", "5"]),
    ],
)
def test_usage_error_names_the_wrong_value(words, named):
    """Goal: exit code 2, and one line with the value.  Method: wrong words."""
    assert_error(run(*words), 2, *named)


def test_help_and_version_are_written_to_stdout():
    """Goal: help is data, not an error.  Method: --help of the overview lists every command; -h of each; --version."""
    overview = run("--help")
    assert overview.returncode == 0 and overview.stderr == ""
    for command in ("launch", "keygen", "status", "show", "stop", "check", "config", "demo"):
        assert command in overview.stdout
        assert run(command, "-h").returncode == 0
    assert run("--version").stdout.startswith("mcast-pipeline ")


# ---------------------------------------------------------------- configuration and keys


def test_launch_without_key_names_both_flags():
    """Goal: exit code 78, and one line with --key and --insecure.  Method: neither flag."""
    assert_error(run("launch"), 78, "--key", "--insecure")


def test_launch_with_unusable_key_names_the_path(tmp_path):
    """Goal: exit code 78, and one line with the path.  Method: a missing, a readable and a malformed one."""
    missing, open_key, bad = tmp_path / "none", tmp_path / "open", tmp_path / "bad"
    assert run("keygen", open_key).returncode == 0
    open_key.chmod(0o644)
    bad.write_text("hello\n")
    bad.chmod(0o600)
    assert_error(run("launch", "--key", missing), 78, missing, "keygen")
    assert_error(run("launch", "--key", open_key), 78, open_key, "chmod 600")
    assert_error(run("launch", "--key", bad), 78, bad)


def test_launch_with_unusable_identity_names_the_path(tmp_path):
    """Goal: exit code 78, and one line with path and remedy.  Method: a readable and a malformed one."""
    path = tmp_path / "identity"
    for content, mode, word in (("A" * 43 + "=", 0o644, "chmod 600"), ("hello", 0o600, "restore it")):
        path.write_text(content)
        path.chmod(mode)
        assert_error(run("launch", "--insecure", env={"MCAST_PIPELINE_NODE_IDENTITY": str(path)}), 78, path, word)


def test_launch_with_unusable_authority_names_the_path(tmp_path):
    """Goal: exit code 78, and one line with the path.  Method: a missing one, from the environment and from a file."""
    assert_error(run("launch", "--insecure", env={"MCAST_PIPELINE_SECURITY_AUTHORITY": "none.pub"}), 78, "none.pub")
    path = tmp_path / "p.toml"
    path.write_text("[security]\nauthority = 'none.pub'\n")
    for words in (["launch", "--insecure", "--config"], ["config", "check"]):
        assert_error(run(*words, path), 78, tmp_path / "none.pub", "authority init")


def test_launch_with_bad_configuration_names_its_origin(tmp_path):
    """Goal: exit code 78, and one line with path and key, or with the variable.
    Method: an unknown key, a missing file, bad variables."""
    path = tmp_path / "p.toml"
    path.write_text("[workers]\ncuont = 4\n")
    assert_error(run("launch", "--insecure", "--config", path), 78, path, "workers.cuont", "workers.count")
    assert_error(run("launch", "--insecure", "--config", tmp_path / "none"), 78, tmp_path / "none")
    assert_error(run("launch", "--insecure", env={"MCAST_PIPELINE_WORKERS": "3"}), 78, "MCAST_PIPELINE_WORKERS=3")
    assert_error(run("launch", "--insecure", env={"MCAST_PIPELINE_OVERLAY": "mseh"}), 78, "MCAST_PIPELINE_OVERLAY")


@pytest.mark.parametrize("words", [["launch", "--insecure", "--config"], ["config", "check"]])
def test_absent_cpu_is_refused_before_the_start(tmp_path, words):
    """Goal: exit code 78 and a line with key and CPU, instead of workers that never start.
    Method: a CPU that no host has."""
    path = tmp_path / "p.toml"
    path.write_text("[workers]\naffinity = [1023]\n")
    assert_error(run(*words, path), 78, path, "workers.affinity", "1023")


def test_keygen_writes_a_private_file_once(tmp_path):
    """Goal: the file is private and never overwritten; "-" is stdout.  Method: the command in an empty directory."""
    assert run("keygen", cwd=tmp_path).returncode == 0
    path = tmp_path / "network.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert_error(run("keygen", cwd=tmp_path), 1, "network.key", "exists")
    assert_error(run("keygen", tmp_path / "no" / "dir"), 1, tmp_path / "no")
    printed = run("keygen", "-")
    assert printed.returncode == 0 and len(printed.stdout.splitlines()) == 2


def test_config_check_accepts_good_and_names_bad_values(tmp_path):
    """Goal: exit code 0 for a good file, 78 and one line for a bad one.
    Method: values that the RFCs forbid, unknown engines and options, an unusable key, lists that are too long."""
    path = tmp_path / "p.toml"
    path.write_text("[membership]\nrobustness = 8\nquery_interval_s = 2.5\nquery_response_interval_s = 1\n")
    done = run("config", "check", path)
    assert (done.returncode, done.stderr) == (0, "") and str(path) in done.stdout
    for text, word in (
        ("[membership]\nrobustness = 0\n", "robustness"),
        ("[membership]\nquery_response_interval_s = 125\n", "query_response_interval_s"),
        ("[overlay]\nengine = 'tere'\n", "tere"),
        ("[overlay.mehs]\nx = 1\n", "mehs"),
        ("[overlay.mesh]\nx = 1\n", "no options"),
        ("[overlay.nemo]\ncrew_size = 99\n", "crew_size"),
        ('[overlay.nemo]\nrendezvous = ["no name"]\n', "'no name'"),
        ("[overlay.nemo]\ncrew = 3\n", "did you mean overlay.nemo.crew_size?"),
        ("[overlay.nemo]\ngrace_s = 2\n", "heartbeat_s"),
        ('[overlay.nemo]\nrepair = "maybe"\n', "expected one of: nack, none"),
        ("[node]\nkey = 'none.key'\n", "none.key"),
        (f"[node]\npeers = {[f'192.0.2.{i}' for i in range(100)]}\n", "node.peers"),
        (f"[overlay.nemo]\nrendezvous = {['a'] * 1025}\n", "overlay.nemo.rendezvous"),
    ):
        path.write_text(text)
        assert_error(run("config", "check", path), 78, path.parent, word)


def test_config_show_prints_a_configuration(tmp_path):
    """Goal: the output is a configuration, with origins if they are requested.
    Method: use its output as a file again; read its JSON."""
    path = tmp_path / "p.toml"
    path.write_text("[node]\nname = 'a'\n[tun]\nmtu = 1400\n")
    shown = run("config", "show", path)
    again = tmp_path / "again.toml"
    again.write_text(shown.stdout)
    assert run("config", "show", again).stdout == shown.stdout
    assert f"file {path}" in run("config", "show", path, "--origin").stdout
    answer = json.loads(run("config", "show", path, "--json").stdout)
    assert answer["schema"] == 1 and answer["config"]["tun"]["mtu"] == 1400
    origins = json.loads(run("config", "show", path, "--json", "--origin").stdout)["config"]
    assert origins["workers"]["count"] == {"value": 4, "origin": "default"}


# ---------------------------------------------------------------- the host


def test_check_lists_every_requirement():
    """Goal: `check` tries and lists every requirement.  Method: its JSON and its table agree with its exit code."""
    done = run("check", "--json", "--listen", "127.0.0.1:47470")
    rows = json.loads(done.stdout)["check"]
    assert {"kernel", "library", "tun", "udp offload", "shared memory", "port"} <= {row["name"] for row in rows}
    states = {row["state"] for row in rows}
    assert done.returncode == (77 if "denied" in states else 1 if "missing" in states else 0)
    table = run("check", "--listen", "127.0.0.1:47470").stdout
    assert all(row["name"] in table for row in rows)


def test_check_names_a_port_in_use():
    """Goal: exit code 1, and the row names the port.  Method: bind it first."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("check", "--json", "--listen", f"127.0.0.1:{port}")
    row = next(row for row in json.loads(done.stdout)["check"] if row["name"] == "port")
    assert done.returncode == 1 and row["state"] == "missing" and str(port) in row["detail"]


def test_check_without_rights_exits_with_77():
    """Goal: exit code 77 without the right to make interfaces, for every user.  Method: drop every capability."""
    code = """
import ctypes, sys
libc = ctypes.CDLL(None)
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)             # PR_CAPBSET_DROP
header = (ctypes.c_uint32 * 2)(0x20080522, 0)       # _LINUX_CAPABILITY_VERSION_3
assert libc.capset(header, (ctypes.c_uint32 * 6)()) == 0
from pipeline.cli import main
sys.exit(main(["check", "--json"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    rows = {row["name"]: row for row in json.loads(done.stdout)["check"]}
    assert done.returncode == 77 and rows["tun"]["state"] == "denied", done.stderr


# ---------------------------------------------------------------- not running, interrupted, broken


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["show", "links"], ["stop"]])
def test_command_names_the_instance_that_does_not_run(words):
    """Goal: exit code 69, and the line names the instance.  Method: a name that no instance has."""
    assert_error(run(*words, "--name", NAME), 69, NAME)


def test_status_waits_for_the_given_time():
    """Goal: `status --wait S` ends after S seconds.  Method: measure the time."""
    begin = time.monotonic()
    assert_error(run("status", "--wait", "0.5", "--name", NAME), 69, NAME)
    assert 0.5 <= time.monotonic() - begin < 3


def test_interrupt_is_silent():
    """Goal: Ctrl-C ends a command with 130 and without output.  Method: SIGINT to a waiting status."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background job SIGINT is ignored
    try:
        process = subprocess.Popen(
            [*COMMAND, "status", "--wait", "20", "--name", NAME], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, old)
    time.sleep(1)  # its imports take about 0.1 s
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_closed_pipe_is_silent():
    """Goal: `pipeline config show | head -0` prints no error.  Method: a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, "config", "show"], stdout=writer, stderr=subprocess.PIPE, check=False, timeout=30
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_full_disk_changes_no_exit_code():
    """Goal: output that cannot be written is an error of one line; an error that cannot be written keeps its exit code.
    Method: stdout or stderr is /dev/full, or closed."""
    shell = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *COMMAND]
    done = subprocess.run([*shell, "config", "show"], capture_output=True, text=True, check=False, timeout=30)
    assert_error(done, 1, "no space left on device")
    for redirection in (">&-", "2>/dev/full", "2>&-"):
        shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND]
        done = subprocess.run([*shell, "lanch"], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        done = subprocess.run([*shell, "config", "show"], capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")


def test_unexpected_error_is_one_line(tmp_path):
    """Goal: a bug causes one line and exit code 1, and a traceback on request.  Method: break a module."""
    code = (
        "import sys, pipeline.keys.file\n"
        "def broken(path): raise ZeroDivisionError('two\\nlines')\n"
        "pipeline.keys.file.write_network_key = broken\n"
        "from pipeline.cli import main; sys.exit(main(['keygen', 'x']))"
    )
    plain = {name: value for name, value in os.environ.items() if name != "MCAST_PIPELINE_DEBUG"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=plain)
    assert_error(done, 1, "ZeroDivisionError", "two lines")
    debug = plain | {"MCAST_PIPELINE_DEBUG": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=debug)
    assert done.returncode == 1 and "Traceback" in done.stderr
