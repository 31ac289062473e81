"""Checks of `pipeline check`: whether this host can run a node.

Each check does the thing itself on a small scale and takes it back: it opens a TUN of its own, binds the port, opens a
file in shared memory.  None looks at the user id.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.util
import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.config import Config, NodeSection
from pipeline.errors import PermissionDeniedError, PipelineError
from pipeline.io import credentials, identity_file, netlink, rundir, sockets, state, tun
from pipeline.keys import certificate as certificates
from pipeline.keys.identity import Identity, fingerprint

KERNEL_MIN = (5, 10)
"""Linux 5.10, of Debian 11, has UDP_SEGMENT, UDP_GRO, pidfd and eventfd as they are used here."""
SHM_BYTES_MIN = 64 << 20
"""Shared memory for the rings of four lanes, a full forwarding table and all replay windows."""
SEGMENT_BYTES = 1400

OK, NOTE, DENIED, MISSING = "ok", "note", "denied", "missing"
"""States of a finding: good; slower or with fewer features; a right is missing; a node does not run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check: `state` is one of the words above, `detail` is what was found and what to do."""

    name: str
    state: str
    detail: str

    def as_dict(self) -> dict[str, str]:
        """Return the row of `--json`."""
        return asdict(self)


def findings(config: Config) -> list[Finding]:
    """Return the finding of each check, in the order in which a launch would meet them."""
    checks: Sequence[tuple[str, Callable[[], Finding]]] = (
        ("kernel", _kernel),
        ("library", _library),
        ("runtime directory", _runtime_directory),
        ("tun", _tun),
        ("udp offload", _udp_offload),
        ("shared memory", _shared_memory),
        ("port", lambda: _port(config.node.listen)),
        ("ipv6", _ipv6),
        ("identity", lambda: _identity(config.node)),
        ("certificate", lambda: _certificate(config)),
    )
    return [_run(name, check) for name, check in checks]


def exit_code(found: Sequence[Finding]) -> int:
    """Return 0 if a node runs here, 77 if rights are missing, 1 if anything else is."""
    states = {finding.state for finding in found}
    if DENIED in states:
        return PermissionDeniedError.exit_code
    return PipelineError.exit_code if MISSING in states else 0


def _run(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except PermissionDeniedError as error:
        return Finding(name, DENIED, str(error))
    except PipelineError as error:
        return Finding(name, MISSING, str(error))
    except OSError as error:
        state = DENIED if error.errno in (errno.EACCES, errno.EPERM) else MISSING
        where = f"{error.filename}: " if error.filename else ""
        return Finding(name, state, where + (error.strerror or str(error)).lower())


def _kernel() -> Finding:
    release = os.uname().release
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version < KERNEL_MIN:
        return Finding("kernel", MISSING, f"Linux {release}: 5.10 or later is needed")
    return Finding("kernel", OK, f"Linux {release}")


def _library() -> Finding:
    """Check that the C extension can be loaded, and with it the library of the cipher."""
    spec = importlib.util.find_spec("pipeline.shm._native")
    if spec is None or spec.origin is None:
        return Finding("library", MISSING, "the C extension is not built: make setup")
    try:
        ctypes.CDLL(spec.origin)
    except OSError as error:
        return Finding("library", MISSING, f"{error} (Debian's package is libssl3)")
    return Finding("library", OK, "C extension and its cipher")


def _runtime_directory() -> Finding:
    where = next(path for path in (rundir.ROOT, *rundir.ROOT.parents) if path.exists())
    os.close(os.open(where, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    return Finding("runtime directory", OK, str(rundir.ROOT))


def _tun() -> Finding:
    """Open an interface of one queue, which ends with it; the kernel replaces %d so that the name is free."""
    queues = tun.open_queues("mcastchk%d", 1)
    try:
        if tun.takes_super_packets(queues[0]):
            return Finding("tun", OK, "multi-queue, vnet header, UDP super-packets")
        return Finding("tun", NOTE, "no UDP super-packets (Linux 6.2 has them): slower delivery")
    finally:
        for queue in queues:
            os.close(queue)


def _udp_offload() -> Finding:
    offloads = {"UDP_SEGMENT": (sockets.UDP_SEGMENT, SEGMENT_BYTES), "UDP_GRO": (sockets.UDP_GRO, 1)}
    lacking = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        for name, (option, value) in offloads.items():
            try:
                sock.setsockopt(socket.IPPROTO_UDP, option, value)
            except OSError:
                lacking.append(name)
    if lacking:
        return Finding("udp offload", NOTE, f"no {' and no '.join(lacking)}: slower")
    return Finding("udp offload", OK, "UDP_SEGMENT, UDP_GRO")


def _shared_memory() -> Finding:
    directory = Path("/dev/shm")  # noqa: S108  # where shm_open puts it
    descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        space = os.fstatvfs(descriptor)
        free = space.f_bavail * space.f_frsize
    finally:
        os.close(descriptor)
    text = f"{directory}: {free >> 20} MiB free"
    if free < SHM_BYTES_MIN:
        why = f"{text}, {SHM_BYTES_MIN >> 20} MiB are needed: mount -o remount,size=256m {directory}"
        return Finding("shared memory", MISSING, why)
    return Finding("shared memory", OK, text)


def _port(listen: str) -> Finding:
    for sock in (*sockets.open_data_sockets(listen, 1), sockets.open_listener("--listen", listen, backlog=1)):
        sock.close()
    return Finding("port", OK, f"{listen}, UDP and TCP")


def _ipv6() -> Finding:
    reason = netlink.why_no_ipv6_on_new_interfaces()
    if reason is not None:
        return Finding("ipv6", NOTE, f"{reason}: IPv4 groups only")
    return Finding("ipv6", OK, "present")


def _identity(node: NodeSection) -> Finding:
    path = identity_file.path_of(node)
    try:
        if state.exists(path):
            public_key = Identity(identity_file.load(path)).public_key
            return Finding("identity", OK, f"{path}: {fingerprint(public_key)}")
        where = next(parent for parent in path.parents if state.exists(parent))
        os.close(os.open(where, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if node.identity:
            raise
        why = f"{path}: {(error.strerror or str(error)).lower()}: each start is another node for its peers"
        return Finding("identity", NOTE, why)
    return Finding("identity", OK, f"{path}: made at the first launch")


def _certificate(config: Config) -> Finding:
    """Check the certificate against the identity, if that has been made, and against the clock."""
    path = identity_file.path_of(config.node)
    public_key = None
    with contextlib.suppress(OSError):  # the state directory may be closed to this user
        public_key = Identity(identity_file.load(path)).public_key if state.exists(path) else None
    found = credentials.load(config, public_key)
    where = credentials.certificate_path(config)
    if found.certificate is None:
        if found.authority:
            return Finding("certificate", MISSING, f"{where}: none yet: launch makes the identity, then have it signed")
        return Finding("certificate", OK, "open network: none is needed")
    reason = certificates.check_time(found.certificate, found.now(time.time()))
    if reason:
        return Finding("certificate", MISSING, f"{where}: {reason}: renew it, or set the clock")
    return Finding("certificate", OK, f"{where}: until {certificates.show_time(found.certificate.not_after)}")
