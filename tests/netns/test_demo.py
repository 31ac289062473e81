"""`pipeline demo` as a command: its report, its end, and the configuration files in configs/demo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.lab.cleanup import NETNS_DIR
from pipeline.lab.instance import Instance, network_key, program, wait_linked
from pipeline.lab.netns import Lab
from pipeline.lab.programs import run_program
from tests.netns.network import wait_route
from tests.netns.traffic import Receiver, Sender

Measured = Callable[..., None]
CONFIGS = Path(__file__).resolve().parents[2] / "configs/demo"


def test_demo_delivers_a_stream_and_removes_everything(measured: Measured) -> None:
    """Goal: the demonstration delivers a real stream without a continuity error and removes everything.
    Method: 12 s with --json.  Both viewers receive the stream; one leaves, joins and receives it again."""
    began = time.monotonic()
    done = run_program([program(), "demo", "--seconds", "12", "--json"], check=False, timeout_s=40)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 16
    report = json.loads(done.stdout)["demo"]
    measured(**{viewer["name"]: viewer["packets"] for viewer in report["viewers"]}, ready_s=report["ready_s"])
    assert report["ok"]
    assert report["removed"]
    for viewer in report["viewers"]:
        assert viewer["continuity_errors"] == 0
        assert 9 < viewer["mbit"] < 12
    assert [len(viewer["first_data_ms"]) for viewer in report["viewers"]] == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_removes_everything(number: int, tmp_path: Path) -> None:
    """Goal: Ctrl-C or SIGTERM ends the demonstration without a traceback and removes everything.
    Method: a signal once the stream runs; exit code, and namespaces of its pid."""
    with (tmp_path / "out").open("w+") as output:
        with subprocess.Popen([program(), "demo"], stdout=output, stderr=subprocess.STDOUT) as demo:
            deadline = time.monotonic() + 15
            while "studio sends MPEG-TS" not in (tmp_path / "out").read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            demo.send_signal(number)
            code = demo.wait(10)
        text = (tmp_path / "out").read_text()
    assert code == 128 + number, text
    assert "studio sends MPEG-TS" in text
    assert "Traceback" not in text
    assert not [name for name in os.listdir(NETNS_DIR) if name.startswith(f"lab{demo.pid}x")]


def test_demo_configuration_files_work_by_hand(make_lab: Callable[..., Lab]) -> None:
    """Goal: the files in configs/demo work unchanged.
    Method: launch the three nodes on hosts with the addresses in the files; key and name are the laboratory's.  A
    stream from the studio reaches both viewers."""
    lab = make_lab(3)
    nodes = []
    for host, name in zip(lab.hosts, ("studio", "viewer-1", "viewer-2"), strict=True):
        options = ["--config", str(CONFIGS / f"{name}.toml"), "--key", str(network_key(lab)), "--name", host.name]
        nodes.append(Instance(host, [program(), "launch", *options]))
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    receivers = [Receiver(node.host, "239.77.0.1", port=5004) for node in nodes[1:]]
    wait_route(nodes[0], "239.77.0.1", nodes[1:])
    sent = Sender(nodes[0].host, "239.77.0.1", port=5004, mbit=11, seconds=0.5).sent()
    for receiver in receivers:
        receiver.account().assert_perfect(sent)
