"""Goal: a client finds an instance, sends it requests, and ends it.
Method: a process in place of an instance, which holds a lock as the supervisor does and replies as control does, in a
runtime directory of the test's own."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from pipeline import client
from pipeline.errors import NotRunningError, PipelineError, UsageError
from pipeline.io import rundir

SUBSTITUTE = textwrap.dedent(
    """
    import fcntl, os, sys, time
    from pathlib import Path
    from pipeline.io import rundir
    rundir.ROOT = Path(sys.argv[1])
    directory = rundir.RuntimeDirectory(sys.argv[2])
    print("locked", flush=True)
    delay, behaviour = float(sys.argv[3]), sys.argv[4]
    import zmq
    from pipeline.messages import Reply, decode_local, encode_local
    time.sleep(delay)
    socket = zmq.Context().socket(zmq.REP)
    socket.bind(rundir.control_endpoint(sys.argv[2]))
    started = time.monotonic()
    while True:
        request = decode_local(socket.recv())
        if behaviour == "nonsense":
            socket.send(b"nonsense")
        elif request.verb == "status":
            ready = behaviour == "ready" or behaviour == "late" and time.monotonic() - started > 0.3
            socket.send(encode_local(Reply(ok=True, value={"name": sys.argv[2], "ready": ready})))
        elif request.noun == "links":
            socket.send(encode_local(Reply(ok=True, value=[{"peer": "b"}])))
        else:
            socket.send(encode_local(Reply(ok=False, error=f"{request.noun}: no such noun")))
    """
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "ROOT", tmp_path / "run")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def start(root):
    """Function that starts a stand-in: start(name, delay=…, behaviour=…) returns its process, which holds the lock."""
    processes = []

    def starter(name, *, delay=0.0, behaviour="ready"):
        command = [sys.executable, "-c", SUBSTITUTE, root, name, str(delay), behaviour]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield starter
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_directory_with_a_free_lock_is_no_instance(root, start):
    """Goal: only an instance that runs is found.
    Method: no instance, a running one, the same one killed, and a directory with the pid of another live process."""
    assert client.running_pid("a") is None and client.running_names() == []
    process = start("a")
    assert client.running_pid("a") == process.pid and client.running_names() == ["a"]
    process.kill()
    process.wait()
    assert client.running_pid("a") is None and client.running_names() == []
    (root / "b").mkdir()
    (root / "b" / "lock").write_text(f"{os.getpid()}\n")
    assert client.running_pid("b") is None


def test_search_for_an_instance_does_not_disturb_its_start(root):
    """Goal: `status --wait` never makes a launch fail with “name in use”.
    Method: take and release the lock many times as a starting supervisor does, while another process searches."""
    code = (
        "import sys; from pathlib import Path; from pipeline.io import rundir; rundir.ROOT = Path(sys.argv[1])\n"
        "from pipeline import client; print('searching', flush=True)\n"
        "while True: client.running_pid('a')"
    )
    searcher = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE)
    searcher.stdout.readline()
    try:
        for _ in range(300):
            rundir.RuntimeDirectory("a").remove()
            (root).mkdir(exist_ok=True)
    finally:
        searcher.kill()
        searcher.wait()
        searcher.stdout.close()


def test_request_returns_the_value_or_raises_the_refusal(start):
    """Goal: a value is returned as control sends it, a refusal is an error.  Method: one of each."""
    start("a")
    assert client.request("a", "show", "links") == [{"peer": "b"}]
    with pytest.raises(PipelineError, match="no such noun"):
        client.request("a", "show", "rings")


def test_malformed_reply_is_an_error(start):
    """Goal: the error for an instance of another version names the reason.  Method: a reply that is no message."""
    start("a", behaviour="nonsense")
    with pytest.raises(PipelineError, match="another version"):
        client.request("a", "show", "links")


def test_request_survives_a_restart_of_control(start):
    """Goal: a request waits for a control process that is restarted.  Method: its socket appears after 0.5 s."""
    start("a", delay=0.5)
    assert client.request("a", "show", "links") == [{"peer": "b"}]


def test_wait_ready_ends_when_ready_or_too_late(start):
    """Goal: the wait ends as soon as the instance is ready, and with an error if it is not ready in time.
    Method: an instance that is ready after 0.3 s, one that never is, and one that never replies."""
    start("late", delay=0.2, behaviour="late")
    begin = time.monotonic()
    assert client.wait_ready("late", 10)["ready"]
    assert time.monotonic() - begin < 5
    start("never", behaviour="never")
    with pytest.raises(NotRunningError, match="never is not ready"):
        client.wait_ready("never", 0.4)
    start("mute", delay=60)
    begin = time.monotonic()
    with pytest.raises(NotRunningError, match="mute is not ready"):
        client.wait_ready("mute", 0.4)
    assert time.monotonic() - begin < 3


def test_status_waits_for_an_instance_that_starts_later(root, start):
    """Goal: `status --wait` may be called before `launch`.  Method: start the instance during the wait."""
    code = (
        "import sys; from pathlib import Path; from pipeline.io import rundir; rundir.ROOT = Path(sys.argv[1])\n"
        "from pipeline.cli import main; sys.exit(main(['status', '--wait', '10', '--name', 'a', '--json']))"
    )
    status = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True)
    time.sleep(0.3)
    start("a")
    out, _ = status.communicate(timeout=15)
    assert status.returncode == 0 and out == '{"schema": 1, "status": {"name": "a", "ready": true}}\n'


def test_name_is_optional_for_a_single_instance(start):
    """Goal: --name is not needed if one instance runs.  Method: none, one and two; the flag and the variable win."""
    host = os.uname().nodename
    assert client.instance_name(None, {}) == host
    start("a")
    assert client.instance_name(None, {}) == "a"
    assert client.instance_name("z", {}) == "z"
    assert client.instance_name(None, {"MCAST_PIPELINE_NAME": "y"}) == "y"
    start("b")
    assert client.instance_name(None, {}) == host
    assert "a, b" in str(client.not_running(host))
    with pytest.raises(UsageError, match="a b"):
        client.instance_name("a b", {})


def test_stop_returns_after_the_end(start):
    """Goal: SIGTERM ends the instance, and `stop` waits for its end.  Method: stop it twice."""
    process = start("a")
    client.stop("a", 5)
    assert process.wait(1) == -signal.SIGTERM
    with pytest.raises(NotRunningError, match="instance a is not running"):
        client.stop("a", 5)


def test_stop_reports_an_instance_that_does_not_end(root):
    """Goal: the error has the pid.  Method: a supervisor that ignores SIGTERM."""
    code = (
        "import signal, sys, time; from pathlib import Path; from pipeline.io import rundir\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); rundir.ROOT = Path(sys.argv[1])\n"
        "held = rundir.RuntimeDirectory('a'); print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        with pytest.raises(PipelineError, match=f"pid {process.pid}.*has not ended"):
            client.stop("a", 0.2)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_search_for_an_instance_keeps_no_lock(start):
    """Goal: a search keeps no lock.  Method: the lock can be taken after the instance is killed."""
    process = start("a")
    client.running_pid("a")
    process.kill()
    process.wait()
    with (rundir.ROOT / "a" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
