"""Goal: finding an instance, asking it and ending it.  Method: a stand-in instance: a process that holds a lock as the
supervisor does and answers as control does, in a runtime directory of the test's own."""

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

STAND_IN = textwrap.dedent(
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
    born = time.monotonic()
    while True:
        request = decode_local(socket.recv())
        if behaviour == "nonsense":
            socket.send(b"nonsense")
        elif request.verb == "status":
            ready = behaviour == "ready" or behaviour == "late" and time.monotonic() - born > 0.3
            socket.send(encode_local(Reply(ok=True, value={"name": sys.argv[2], "ready": ready})))
        elif request.noun == "links":
            socket.send(encode_local(Reply(ok=True, value=[{"peer": "b"}])))
        else:
            socket.send(encode_local(Reply(ok=False, error=f"{request.noun}: nothing known of that")))
    """
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "ROOT", tmp_path / "run")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def start(root):
    """start(name, delay=…, behaviour=…) → the stand-in's process, locked by then."""
    processes = []

    def starter(name, *, delay=0.0, behaviour="ready"):
        command = [sys.executable, "-c", STAND_IN, root, name, str(delay), behaviour]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield starter
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_running_or_left_behind(root, start):
    """Goal: a directory whose lock is free is no instance.  Method: none, a running one, the same one killed, a
    directory with the pid of a living process that is not its supervisor."""
    assert client.running_pid("a") is None and client.running_names() == []
    process = start("a")
    assert client.running_pid("a") == process.pid and client.running_names() == ["a"]
    process.kill()
    process.wait()
    assert client.running_pid("a") is None and client.running_names() == []
    (root / "b").mkdir()
    (root / "b" / "lock").write_text(f"{os.getpid()}\n")
    assert client.running_pid("b") is None


def test_looking_does_not_disturb_a_start(root):
    """Goal: `status --wait` never makes a launch fail with “name in use”.  Method: while another process looks all the
    time, take and give back the lock as a starting supervisor does, many times."""
    code = (
        "import sys; from pathlib import Path; from pipeline.io import rundir; rundir.ROOT = Path(sys.argv[1])\n"
        "from pipeline import client; print('looking', flush=True)\n"
        "while True: client.running_pid('a')"
    )
    looker = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE)
    looker.stdout.readline()
    try:
        for _ in range(300):
            rundir.RuntimeDirectory("a").remove()
            (root).mkdir(exist_ok=True)
    finally:
        looker.kill()
        looker.wait()
        looker.stdout.close()


def test_asking(start):
    """Goal: values come as control gives them, its refusals as errors.  Method: both."""
    start("a")
    assert client.request("a", "show", "links") == [{"peer": "b"}]
    with pytest.raises(PipelineError, match="nothing known of that"):
        client.request("a", "show", "rings")


def test_nonsense_is_an_error(start):
    """Goal: an instance of another version is told apart.  Method: an answer that is no message."""
    start("a", behaviour="nonsense")
    with pytest.raises(PipelineError, match="another version"):
        client.request("a", "show", "links")


def test_question_outlives_a_restart_of_control(start):
    """Goal: a control process that comes late answers still.  Method: its socket appears after 0.5 s."""
    start("a", delay=0.5)
    assert client.request("a", "show", "links") == [{"peer": "b"}]


def test_wait_ready(start):
    """Goal: it returns as soon as the instance is ready, and 69 if it is not in time.  Method: one that becomes ready
    after 0.3 s, one that never does, one whose control never answers."""
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


def test_waiting_for_one_that_starts_later(root, start):
    """Goal: `status --wait` may come before `launch`.  Method: start in the middle of the wait."""
    code = (
        "import sys; from pathlib import Path; from pipeline.io import rundir; rundir.ROOT = Path(sys.argv[1])\n"
        "from pipeline.cli import main; sys.exit(main(['status', '--wait', '10', '--name', 'a', '--json']))"
    )
    status = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True)
    time.sleep(0.3)
    start("a")
    out, _ = status.communicate(timeout=15)
    assert status.returncode == 0 and out == '{"schema": 1, "status": {"name": "a", "ready": true}}\n'


def test_name_of_the_only_instance(start):
    """Goal: no --name needed where there is no doubt.  Method: no, one and two instances; flag and environment win."""
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


def test_stop(start):
    """Goal: SIGTERM, and back when it has ended.  Method: stop one; a second time it is not running."""
    process = start("a")
    client.stop("a", 5)
    assert process.wait(1) == -signal.SIGTERM
    with pytest.raises(NotRunningError, match="instance a is not running"):
        client.stop("a", 5)


def test_stop_gives_up(root):
    """Goal: one that does not end is told.  Method: a supervisor that ignores SIGTERM."""
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


def test_lock_is_only_looked_at(start):
    """Goal: looking leaves no lock behind.  Method: after the instance's death the lock can be taken."""
    process = start("a")
    client.running_pid("a")
    process.kill()
    process.wait()
    with (rundir.ROOT / "a" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
