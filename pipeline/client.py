"""Running instances of this host: their names, requests to the control process of one, and their end.

An instance runs if its supervisor holds the lock of its runtime directory (io/rundir.py).  Names are unique on a host,
whatever the network namespace.  Control replies to Request(verb, noun) with Reply(value): for the verb "show" the JSON
value of the noun, for "status" an object with at least `ready`.  This module does not interpret the values.
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
"""Interval at which an instance that starts is polled: a hundredth of the second that it may take."""
REPLY_TIMEOUT_S = 5.0
"""A restarted control process is ready within a second, and a reply with 65,536 groups takes less than another."""
ATTEMPT_TIMEOUT_S = 1.5
"""Time after which a request is sent again: it may be lost with the control process that had received it."""


# ---------------------------------------------------------------- running instances


def running_pid(name: str) -> int | None:
    """Return the pid of the instance's supervisor, or None if it does not run.

    PermissionDeniedError if this user may not read its lock.
    """
    path = rundir.ROOT / name / "lock"
    try:
        with path.open("rb") as lock:
            text = lock.read(32).strip()
            pid = int(text) if text.isdigit() else 0
            # The lock of a dead pid is not tried, as that could make a supervisor that starts at this moment fail.
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
        raise PermissionDeniedError(f"{path.parent}: no permission to read it: run as root") from None


def running_names() -> list[str]:
    """Return the names of the instances that run on this host; one with an unreadable lock counts as running."""
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
    """Return the name of a command's instance: that of --name, else of the environment, else the host name.

    If no name is given, the instance of the host name does not run, and exactly one other runs, it is that one.
    """
    requested = flag or env.get("MCAST_PIPELINE_NODE_NAME") or env.get("MCAST_PIPELINE_NAME")
    if requested:
        try:
            return str(CHECKS["node.name"](requested))
        except ValueError as error:
            raise UsageError(f"--name {requested}: {error}") from None
    name = os.uname().nodename
    if running_pid(name) is None:
        running = running_names()
        if len(running) == 1:
            return running[0]
    return name


def not_running(name: str) -> NotRunningError:
    """Return the error for an instance that does not run; it lists those that do."""
    others = running_names()
    hint = f"running here: {', '.join(others)}" if others else "none runs on this host; start one: pipeline launch"
    return NotRunningError(f"instance {name} is not running ({hint})")


# ---------------------------------------------------------------- requests


class Client:
    """Connection to the control process of one instance, over its ipc socket."""

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
        timeout_s: float = REPLY_TIMEOUT_S,
        arguments: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """Send a request and return the value of the reply.

        NotRunningError if the instance has ended; PipelineError if control refuses, with its error, or does not reply
        in time.
        """
        from pipeline.messages import Request

        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            data = self._attempt(Request(verb, noun, dict(arguments)), min(left, ATTEMPT_TIMEOUT_S))
            if data is not None:
                return self._value(data)
            if running_pid(self._name) is None:
                raise not_running(self._name)
        raise PipelineError(f"instance {self._name} did not reply within {timeout_s:g} s; its log says why")

    def close(self) -> None:
        """Close the connection; requests without a reply are dropped."""
        self._context.destroy(linger=0)

    def _attempt(self, request: Request, timeout_s: float) -> bytes | None:
        import zmq

        from pipeline.messages import encode_local

        socket: zmq.Socket[bytes] = self._context.socket(zmq.REQ)
        try:
            socket.setsockopt(zmq.RECONNECT_IVL, 5)  # ms: a control process that starts listens soon
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
            raise PipelineError(f"instance {self._name} replied with a {type(reply).__name__}")
        if not reply.ok:
            raise PipelineError(f"instance {self._name}: {reply.error}")
        return reply.value


def request(name: str, verb: str, noun: str = "", *, arguments: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Send one request to a running instance and return the value of the reply."""
    if running_pid(name) is None:
        raise not_running(name)
    client = Client(name)
    try:
        return client.request(verb, noun, arguments=arguments)
    finally:
        client.close()


def reload(name: str) -> None:
    """Read the instance's key file with the rights of the caller, and send the keys to control.

    Control itself reads certificate and revocation list again, which are no secrets.
    """
    import base64

    from pipeline.keys import file as key_file

    path = request(name, "status")["key"]
    arguments = {}
    if path is not None:
        keys = [base64.b64encode(key).decode() for key in key_file.load_network_keys(path)]
        arguments["keys"] = " ".join(keys)
    request(name, "reload", arguments=arguments)


def wait_ready(flag: str | None, timeout_s: float) -> dict[str, Any]:
    """Wait until an instance is ready and return its status.  NotRunningError after the time."""
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
    except PipelineError:  # ended, or not listening yet: the caller tries until its deadline
        return None
    return value if isinstance(value, dict) else None


# ---------------------------------------------------------------- end


def stop(name: str, timeout_s: float) -> None:
    """Send SIGTERM to the supervisor and wait for its end; it removes everything that it has created before it ends."""
    pid = running_pid(name)
    if pid is None:
        raise not_running(name)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if running_pid(name) != pid:  # it has ended meanwhile, so the pid may belong to another process
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
