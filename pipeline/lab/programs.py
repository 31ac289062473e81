"""Programs of other people, run by the laboratory: found by name, run to their end or kept in the background.

Knows nothing of namespaces: a program runs where the calling thread is (`Namespace.enter` of lab.py).
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
"""No command of the laboratory takes a second; one that hangs must not hang the tests."""

STOP_TIMEOUT_S = 3.0
"""Between SIGTERM and SIGKILL."""

_PACKAGES = {
    "bridge": "iproute2",
    "ip": "iproute2",
    "nft": "nftables",
    "ping": "iputils-ping",
    "setpriv": "util-linux",
    "tc": "iproute2",
    "unshare": "util-linux",
}
"""Debian packages, where they are not called as the program."""

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
_numbers = itertools.count(1)
_Value = TypeVar("_Value")


class LabError(PipelineError):
    """The laboratory could not be built, or a command in it failed."""


def require(program: str) -> str:
    """The path of a program; LabError with the package to install if there is none."""
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
    """Run a program to its end; LabError with the first line of its complaint if it fails and `check` is set."""
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
        complaint = (done.stderr or done.stdout).strip().splitlines()
        first = complaint[0] if complaint else f"exit code {done.returncode}"
        raise LabError(f"{Path(args[0]).name} {' '.join(args[1:])}: {first}")
    return done


class Process:
    """A program running in a host, in a session of its own, with its output in files (or stdout in a pipe)."""

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
        """The pid of the program itself: nothing stands between."""
        return self.popen.pid

    @property
    def output(self) -> str:
        """What it has written to stdout so far (nothing if stdout is a pipe)."""
        return self.out_path.read_text(errors="replace")

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self.err_path.read_text(errors="replace")

    @property
    def pipe(self) -> IO[bytes]:
        """The reading end of its stdout, for a process spawned with `pipe=True`."""
        assert self.popen.stdout is not None, "spawned without pipe=True"
        return self.popen.stdout

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        if self.alive():
            self.popen.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Its exit code; LabError with the end of its log if it still runs after that time."""
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.label} still runs after {timeout_s} s: {self.log[-500:]}") from None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, and SIGKILL to its whole session if it does not end in time; the exit code."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout_s)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to it and to what is left of its session; the exit code."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        return code


def wait_until(condition: Callable[[], _Value], timeout_s: float, what: str, *, every_s: float = 0.02) -> _Value:
    """Call `condition` until it returns something true and return that; LabError after the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout_s} s: {what}")
        time.sleep(every_s)
