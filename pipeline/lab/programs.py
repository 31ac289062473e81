"""External programs of a laboratory: found by name, run to their end or in the background.

This module knows no namespaces: a program runs in the namespace of the calling thread (`Namespace.enter` of netns.py).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from pipeline.errors import PipelineError

COMMAND_TIMEOUT_S = 20.0
"""No command of the laboratory takes a second; the bound keeps a hanging command from hanging the tests."""

STOP_TIMEOUT_S = 3.0
"""Time between SIGTERM and SIGKILL."""

_PACKAGES = {
    "bridge": "iproute2",
    "ip": "iproute2",
    "nft": "nftables",
    "ping": "iputils-ping",
    "setpriv": "util-linux",
    "tc": "iproute2",
    "unshare": "util-linux",
}
"""Debian packages with another name than their program."""

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
_numbers = itertools.count(1)
_Value = TypeVar("_Value")


class LabError(PipelineError):
    """The laboratory could not be built, or a command in it failed."""


def require(program: str) -> str:
    """Return the path of a program.  LabError with the package to install if it does not exist."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        package = _PACKAGES.get(program, program)
        raise LabError(f"{program} is not installed; install it with: apt-get install {package}")
    return path


def run_program(
    args: Sequence[str],
    *,
    check: bool = True,
    timeout_s: float = COMMAND_TIMEOUT_S,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.  LabError with its first line of output if it fails and `check` is set."""
    try:
        done = subprocess.run(
            list(args),
            check=False,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, **env} if env else None,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(args)} still ran after {timeout_s} s") from None
    if check and done.returncode != 0:
        output = (done.stderr or done.stdout).strip().splitlines()
        first = output[0] if output else f"exit code {done.returncode}"
        raise LabError(f"{Path(args[0]).name} {' '.join(args[1:])}: {first}")
    return done


def run_ip_batch(netns: str | None, commands: Sequence[str], *, force: bool = False) -> None:
    """Run several `ip` commands in one process."""
    args = [require("ip"), *(["-n", netns] if netns else []), *(["-force"] if force else []), "-batch", "-"]
    run_program(args, stdin="\n".join(commands) + "\n")


class Process:
    """A running program, in a session of its own, with its output in files (or stdout in a pipe)."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        label: str,
        log_dir: Path,
        pipe: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        number = next(_numbers)
        self.label = label
        self.args = list(args)
        self.out_path = log_dir / f"{number:04d}-{label}.out"
        self.err_path = log_dir / f"{number:04d}-{label}.err"
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self.popen = subprocess.Popen(
                self.args,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, **env} if env else None,
            )

    @property
    def pid(self) -> int:
        """The pid of the program itself; no shell runs between."""
        return self.popen.pid

    @property
    def output(self) -> str:
        """Its output on stdout so far; empty if stdout is a pipe."""
        return self.out_path.read_text(errors="replace")

    @property
    def log(self) -> str:
        """Its output on stderr so far."""
        return self.err_path.read_text(errors="replace")

    @property
    def pipe(self) -> IO[bytes]:
        """The reading end of the pipe from its stdout; only with `pipe=True`."""
        assert self.popen.stdout is not None, "spawned without pipe=True"
        return self.popen.stdout

    def alive(self) -> bool:
        """Return whether the program still runs."""
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.alive():
            self.popen.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Return the exit code.  LabError with the end of its log if it still runs after this time."""
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.label} still runs after {timeout_s} s: {self.log[-500:]}") from None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Send SIGTERM, and SIGKILL to its session after the time; return the exit code."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout_s)
        return self.kill()

    def kill(self) -> int:
        """Send SIGKILL to all processes of its session; return the exit code."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        return code


def wait_until(condition: Callable[[], _Value], timeout_s: float, what: str, *, every_s: float = 0.02) -> _Value:
    """Call `condition` until its value is true, and return the value.  LabError after the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout_s} s: {what}")
        time.sleep(every_s)
