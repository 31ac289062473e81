"""Running instances of this host: which there are, and asking one's control process.

An instance runs if its supervisor holds the lock of its runtime directory (io/rundir.py); names are unique on a host,
whatever the network namespace.  Control answers Request(verb, noun) with Reply(value): for the verb "show" the JSON
value of the noun, for "status" an object that holds at least `ready`.  Nothing here knows what the values mean.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.config_checks import CHECKS
from pipeline.errors import NotRunningError, PermissionDeniedError, PipelineError, UsageError, WireError
from pipeline.io import rundir

if TYPE_CHECKING:
    import zmq

    from pipeline.messages import Request

POLL_INTERVAL_S = 0.01
"""Between looks at an instance that starts: a hundredth of the second it may take."""
ANSWER_TIMEOUT_S = 5.0
"""A control process that is restarted is back in a second; 65,536 groups take it less than another."""
ATTEMPT_TIMEOUT_S = 1.5
"""A request may have died with the control process that it reached: ask again."""


# ---------------------------------------------------------------- which instances run


def running_pid(name: str) -> int | None:
    """The supervisor's pid if that instance runs; PermissionDeniedError if we may not look."""
    path = rundir.ROOT / name / "lock"
    try:
        with path.open("rb") as lock:
            text = lock.read(32).strip()
            pid = int(text) if text.isdigit() else 0
            # A dead pid needs no look at the lock: trying it could get in the way of a supervisor that starts.
            if not pid or not Path(f"/proc/{pid}").exists():
                return None
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return pid
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise PermissionDeniedError(f"{path.parent}: no permission to look at instance {name}: run as root") from None


def running_names() -> list[str]:
    """Names of the instances that run on this host, as far as we may look; those that we may not are counted in."""
    try:
        names = sorted(entry.name for entry in rundir.ROOT.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []
    return [name for name in names if _may_run(name)]


def _may_run(name: str) -> bool:
    try:
        return running_pid(name) is not None
    except PermissionDeniedError:
        return True


def instance_name(flag: str | None, env: Mapping[str, str] = os.environ) -> str:
    """The instance that a command means: --name, else the environment's, else the host name.

    If nobody said a name, the host name's instance does not run and one single other does, it is that one.
    """
    given = flag or env.get("MCAST_PIPELINE_NODE_NAME") or env.get("MCAST_PIPELINE_NAME")
    if given:
        try:
            return str(CHECKS["node.name"](given))
        except ValueError as error:
            raise UsageError(f"--name {given}: {error}") from None
    name = os.uname().nodename
    if running_pid(name) is None:
        running = running_names()
        if len(running) == 1:
            return running[0]
    return name


def not_running(name: str) -> NotRunningError:
    """The error for an instance that does not run: it names those that do."""
    others = running_names()
    hint = f"running here: {', '.join(others)}" if others else "none runs on this host; start one: pipeline launch"
    return NotRunningError(f"instance {name} is not running ({hint})")


# ---------------------------------------------------------------- asking one


class Client:
    """One instance's control process, asked over its ipc socket."""

    def __init__(self, name: str) -> None:
        import zmq

        self._name = name
        self._context = zmq.Context()
        self._context.setsockopt(zmq.LINGER, 0)

    def request(
        self,
        verb: str,
        noun: str = "",
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        arguments: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """The value of the answer.

        NotRunningError if the instance is gone, PipelineError with control's own words if it refuses, or if it does
        not answer in time.
        """
        from pipeline.messages import Request

        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            data = self._attempt(Request(verb, noun, dict(arguments)), min(left, ATTEMPT_TIMEOUT_S))
            if data is not None:
                return self._value(data)
            if running_pid(self._name) is None:
                raise not_running(self._name)
        raise PipelineError(f"instance {self._name} did not answer within {timeout_s:g} s; its log says why")

    def close(self) -> None:
        """Forget unanswered questions."""
        self._context.destroy(linger=0)

    def _attempt(self, request: Request, timeout_s: float) -> bytes | None:
        import zmq

        from pipeline.messages import encode_local

        socket: zmq.Socket[bytes] = self._context.socket(zmq.REQ)
        try:
            socket.setsockopt(zmq.RECONNECT_IVL, 5)  # ms: a control process that starts is there in a moment
            socket.connect(rundir.control_endpoint(self._name))
            socket.send(encode_local(request))
            return socket.recv() if socket.poll(round(timeout_s * 1000)) else None
        finally:
            socket.close(linger=0)

    def _value(self, data: bytes) -> Any:
        from pipeline.messages import Reply, decode_local

        try:
            reply = decode_local(data)
        except WireError as error:
            raise PipelineError(f"instance {self._name} is of another version: {error}") from error
        if not isinstance(reply, Reply):
            raise PipelineError(f"instance {self._name} answered with a {type(reply).__name__}")
        if not reply.ok:
            raise PipelineError(f"instance {self._name}: {reply.error}")
        return reply.value


def request(name: str, verb: str, noun: str = "") -> Any:
    """One question to a running instance."""
    if running_pid(name) is None:
        raise not_running(name)
    client = Client(name)
    try:
        return client.request(verb, noun)
    finally:
        client.close()


def reload(name: str) -> None:
    """Reads the instance's key file with the rights of the caller, and hands its keys over."""
    import base64

    from pipeline.keys import file as key_file

    if running_pid(name) is None:
        raise not_running(name)
    client = Client(name)
    try:
        path = client.request("status")["key"]
        if path is None:
            raise PipelineError(f"instance {name} runs with --insecure: it has no key to read again")
        found = [base64.b64encode(key).decode() for key in key_file.load_network_keys(path)]
        client.request("reload", arguments={"keys": " ".join(found)})
    finally:
        client.close()


def wait_ready(flag: str | None, timeout_s: float) -> dict[str, Any]:
    """The status of an instance once it is ready; NotRunningError if it is not by then."""
    deadline = time.monotonic() + timeout_s
    client: Client | None = None
    status: dict[str, Any] | None = None
    try:
        while True:
            name = instance_name(flag)
            left = deadline - time.monotonic()
            if running_pid(name) is not None:
                client = client or Client(name)
                status = _status(client, max(left, 0.1))
                if status and status.get("ready"):
                    return status
            if left <= POLL_INTERVAL_S:
                break
            time.sleep(POLL_INTERVAL_S)
    finally:
        if client:
            client.close()
    if running_pid(name) is None:
        raise not_running(name)
    raise NotRunningError(f"instance {name} is not ready after {timeout_s:g} s; its log says why")


def _status(client: Client, timeout_s: float) -> dict[str, Any] | None:
    try:
        value = client.request("status", timeout_s=timeout_s)
    except PipelineError:  # gone again, or not there yet: the caller's deadline decides
        return None
    return value if isinstance(value, dict) else None


# ---------------------------------------------------------------- ending one


def stop(name: str, timeout_s: float) -> None:
    """SIGTERM to the supervisor, and wait for its end; it has removed all it made by then."""
    pid = running_pid(name)
    if pid is None:
        raise not_running(name)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if running_pid(name) != pid:  # ended while we looked, so the pid may be another's by now
            return
        signal.pidfd_send_signal(process, signal.SIGTERM)
        poller = select.poll()
        poller.register(process, select.POLLIN)
        if not poller.poll(timeout_s * 1000):
            raise PipelineError(f"instance {name} (pid {pid}) has not ended after {timeout_s:g} s; its log says why")
    except ProcessLookupError:
        return
    except PermissionError:
        raise PermissionDeniedError(f"instance {name} (pid {pid}): no permission to stop it: run as root") from None
    finally:
        os.close(process)
