"""`pipeline top` on a pseudo-terminal, and without one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator

from pipeline.lab.instance import program
from pipeline.lab.programs import wait_until
from tests.netns.network import Network, assert_one_line, fresh_group, wait_route
from tests.netns.traffic import Receiver, Sender


class Terminal:
    """Program on a terminal of 160 × 50 characters, with all its output."""

    def __init__(self, *command: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        environment = os.environ | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.written = ""

    def read(self) -> str:
        """Return the output so far."""
        while select.select([self._master], [], [], 0)[0]:
            try:
                self.written += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # EIO: its last writer has ended
                break
        return self.written

    def press(self, keys: str) -> None:
        """Type these keys."""
        os.write(self._master, keys.encode())

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit code; output is read meanwhile, since a full terminal would block it."""
        wait_until(lambda: self.read() is None or self.process.poll() is not None, timeout_s, "the program has ended")
        self.read()
        return self.process.wait(timeout_s)

    def close(self) -> None:
        """Kill the program if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def terminal(*command: str) -> Iterator[Terminal]:
    shown = Terminal(*command)
    try:
        yield shown
    finally:
        shown.close()


def test_top_shows_traffic_and_ends_on_q(make_network: Callable[..., Network]) -> None:
    """Goal: `top` draws the node's traffic, workers, links and groups on a terminal, and q ends it.
    Method: two nodes with a stream between them, top on the receiver's node; then q, and exit code 0."""
    network = make_network(2)
    sending, receiving = network.instances
    group = fresh_group()
    receiver = Receiver(receiving.host, group)
    wait_route(sending, group, [receiving])
    sender = Sender(sending.host, group, mbit=5, seconds=8)
    with terminal(program(), "top", "--name", receiving.name) as shown:
        words = [receiving.name, sending.name, group, "overlay_ingress", "received Mbit/s"]
        wait_until(lambda: all(word in shown.read() for word in words), 8, f"{words} are shown")
        shown.press("q")
        assert shown.wait(3) == 0
    sender.stop()
    receiver.stop()


def test_top_ends_with_its_node(make_network: Callable[..., Network]) -> None:
    """Goal: top ends with its node, with exit code 69 and one line.
    Method: SIGTERM to the supervisor while top runs."""
    network = make_network(1)
    with terminal(program(), "top", "--name", network.instances[0].name) as shown:
        wait_until(lambda: "overlay_egress" in shown.read(), 8, "workers are shown")
        os.kill(network.instances[0].process.popen.pid, signal.SIGTERM)
        assert shown.wait(10) == 69
        assert f"pipeline: instance {network.instances[0].name} is not running" in shown.written


def test_top_without_a_terminal_names_other_commands(make_network: Callable[..., Network]) -> None:
    """Goal: without a terminal top ends with one line that names the commands for scripts.
    Method: run it with a pipe for stdout."""
    name = make_network(1).instances[0].name
    done = subprocess.run([program(), "top", "--name", name], capture_output=True, text=True, timeout=20, check=False)
    assert_one_line(done, 1, "terminal", "show counters")
