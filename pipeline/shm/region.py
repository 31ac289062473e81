"""The shared memory of one instance: creating, attaching, reserving and removing it; its table of processes.

    create ─▶ (fork: children keep the mapping) ─▶ close, unlink        the supervisor
    attach ─▶ close                                                     anybody else with the rights

The supervisor formats the region and is the only one to unlink it.  Everything up to `lazy_at` has memory behind it
from the start; what lies behind (forwarding entries, replay windows) is reserved by control before it is used: a full
/dev/shm is an error with a text, never a SIGBUS.  What the parts mean is known in C (mp_layout.h) and in the modules
beside this one.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import mmap
import os
from dataclasses import asdict, dataclass
from typing import Any

import posix_ipc

from pipeline.errors import PermissionDeniedError, PipelineError
from pipeline.shm._native import ffi, lib

HOST_SLOTS = 1024
"""Packets under way in a lane: 1 ms of 1 million packets a second, and the queue of the TUN stands before it."""
OVERLAY_SLOTS = 64
"""Super-buffers of up to 64 KiB to be relayed: 4 MiB a lane, a millisecond and more at 25 Gbit/s."""
FIB_ENTRIES = 262_144
"""Four for each of 65,536 groups: host side, overlay side, and sources."""
FIB_BUCKETS = 262_144
"""As many as entries: chains of one or two."""
MODE = 0o600
DIRECTORY = "/dev/shm"  # noqa: S108  # where Linux shows POSIX shared memory: for messages


class ProcessState(enum.IntEnum):
    """As enum mp_process_state."""

    ABSENT = 0
    STARTING = 1
    READY = 2
    STOPPED = 3


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a region (struct mp_geometry); slots and buckets are powers of two, bytes multiples of 64."""

    lanes: int
    host_slots: int
    host_slot_bytes: int
    overlay_slots: int
    fib_entries: int
    fib_buckets: int
    mtu: int
    seed: int

    @classmethod
    def of(
        cls,
        *,
        lanes: int,
        mtu: int,
        host_slots: int = HOST_SLOTS,
        overlay_slots: int = OVERLAY_SLOTS,
        fib_entries: int = FIB_ENTRIES,
        fib_buckets: int = FIB_BUCKETS,
        seed: int | None = None,
    ) -> Geometry:
        """The geometry for lanes and a TUN MTU; the hash's seed is random unless a test wants it otherwise."""
        return cls(
            lanes=lanes,
            host_slots=host_slots,
            host_slot_bytes=lib.mp_host_slot_bytes(mtu),
            overlay_slots=overlay_slots,
            fib_entries=fib_entries,
            fib_buckets=fib_buckets,
            mtu=mtu,
            seed=int.from_bytes(os.urandom(4)) if seed is None else seed,
        )


@dataclass(frozen=True, slots=True)
class Process:
    """A row of the process table: pid 0 if it was never started; `stages` is a bit set of enum mp_stage_id."""

    pid: int
    state: ProcessState
    restarts: int
    stages: int


def region_name(instance: str) -> str:
    """The POSIX name, seen as /dev/shm/mcast-pipeline.<instance>."""
    return f"/mcast-pipeline.{instance}"


def _path(instance: str) -> str:
    return DIRECTORY + region_name(instance)


class Region:
    """A mapped region.  Made by create() or attach(), not directly."""

    def __init__(self, instance: str, fd: int, size: int) -> None:
        self.instance = instance
        self.size = size
        self._fd = fd
        self._map = mmap.mmap(fd, size)
        self._buffer = ffi.from_buffer(self._map, require_writable=True)
        self.native: Any = ffi.cast("struct mp_region *", self._buffer)
        """The `struct mp_region *` that C functions take."""

    # ---------------------------------------------------------------- life cycle

    @classmethod
    def create(cls, instance: str, geometry: Geometry) -> Region:
        """Makes and formats the region; PipelineError if the name is in use or /dev/shm too small."""
        native = ffi.new("struct mp_geometry *", asdict(geometry))
        size, eager = lib.mp_region_size(native), lib.mp_region_lazy_at(native)
        if not size:
            raise PipelineError(f"shared memory of these sizes is out of bounds: {geometry}")
        memory = _open(instance, posix_ipc.O_CREX)
        try:
            os.ftruncate(memory.fd, size)
            _allocate(memory.fd, instance, 0, eager)
            region = cls(instance, memory.fd, size)
        except BaseException:
            os.close(memory.fd)
            cls.unlink_stale(instance)
            raise
        status = lib.mp_region_format(region.native, native)
        assert status == 0, "mp_region_size() accepted this geometry"
        return region

    @classmethod
    def attach(cls, instance: str) -> Region:
        """Maps the region of a running instance; PipelineError if there is none or it is of another version."""
        memory = _open(instance, 0)
        size = os.fstat(memory.fd).st_size
        if size < mmap.PAGESIZE:
            os.close(memory.fd)
            raise PipelineError(f"{_path(instance)} is no region of mcast-pipeline: remove it")
        region = cls(instance, memory.fd, size)
        if lib.mp_region_check(region.native, size):
            region.close()
            raise PipelineError(f"{_path(instance)} is of another version of mcast-pipeline: restart it")
        return region

    @classmethod
    def unlink_stale(cls, instance: str) -> bool:
        """Removes the name, if it is there, whoever left it; processes that have it mapped keep it."""
        try:
            posix_ipc.unlink_shared_memory(region_name(instance))
        except posix_ipc.ExistentialError:
            return False
        except posix_ipc.PermissionsError:
            raise PermissionDeniedError(f"no permission to remove {_path(instance)}: run as root") from None
        return True

    def unlink(self) -> None:
        """Removes the region's name: the supervisor, when all processes have ended."""
        self.unlink_stale(self.instance)

    def close(self) -> None:
        """Unmaps it here.  Nothing made from `native` may be used any more."""
        if self._fd < 0:
            return
        self.native = ffi.NULL
        ffi.release(self._buffer)
        self._map.close()
        os.close(self._fd)
        self._fd = -1

    def reserve(self, start: int, end: int) -> None:
        """Puts memory behind the bytes from `start` to `end`; PipelineError if /dev/shm is full."""
        start -= start % mmap.PAGESIZE
        end = min(end, self.size)
        if start < end:
            _allocate(self._fd, self.instance, start, end - start)

    def lock_keys(self) -> bool:
        """Keeps the pages with keys out of swap as long as this process lives; whether that is allowed."""
        return bool(lib.mp_keys_lock(self.native) == 0)

    def wipe_keys(self) -> None:
        """Overwrites all keys: the supervisor, when all processes have ended."""
        lib.mp_keys_wipe(self.native)

    def fileno(self) -> int:
        """The descriptor, which control needs for reserve()."""
        return self._fd

    @property
    def geometry(self) -> Geometry:
        """As it stands in the region."""
        native = self.native.geometry
        return Geometry(**{name: getattr(native, name) for name in Geometry.__slots__})

    # ---------------------------------------------------------------- table of processes, 0 is control

    def process(self, index: int) -> Process:
        """A row of the table; IndexError beyond it."""
        view = ffi.new("struct mp_process_view *")
        _check_index(lib.mp_process_get(self.native, index, view))
        return Process(view.pid, ProcessState(view.state), view.restarts, view.stages)

    def process_pid(self, index: int) -> int:
        """The pid, 0 before the first start."""
        return self.process(index).pid

    def process_state(self, index: int) -> ProcessState:
        """What the process said last, or the supervisor of it."""
        return self.process(index).state

    def process_restarts(self, index: int) -> int:
        """How often it had to be started again."""
        return self.process(index).restarts

    def set_process_pid(self, index: int, pid: int) -> None:
        """The supervisor started it."""
        _check_index(lib.mp_process_set_pid(self.native, index, pid))

    def set_process_state(self, index: int, state: ProcessState) -> None:
        """READY by the process itself, the others by the supervisor."""
        _check_index(lib.mp_process_set_state(self.native, index, state))

    def set_process_stages(self, index: int, stages: int) -> None:
        """Which stages it runs, as a bit set: the supervisor, before the first start."""
        _check_index(lib.mp_process_set_stages(self.native, index, stages))

    def count_restart(self, index: int) -> None:
        """The supervisor starts it again."""
        _check_index(lib.mp_process_count_restart(self.native, index))


def _check_index(status: int) -> None:
    if status:
        raise IndexError("no such process in this region")


def _open(instance: str, flags: int) -> posix_ipc.SharedMemory:
    path = _path(instance)
    try:
        return posix_ipc.SharedMemory(region_name(instance), flags, mode=MODE)
    except posix_ipc.ExistentialError:
        if flags:
            raise PipelineError(f"{path} exists: another instance {instance!r} has it, choose another --name") from None
        raise PipelineError(f"{path} does not exist: instance {instance!r} is not running") from None
    except posix_ipc.PermissionsError:
        raise PermissionDeniedError(f"no permission on {path}: run as the user of the instance, or as root") from None
    except OSError as error:
        raise PipelineError(f"cannot open {path}: {error.strerror}: is {DIRECTORY} mounted?") from None


def _allocate(fd: int, instance: str, start: int, length: int) -> None:
    try:
        os.posix_fallocate(fd, start, length)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM):
            raise
        free = 0
        with contextlib.suppress(OSError):
            stat = os.statvfs(DIRECTORY)
            free = stat.f_bavail * stat.f_frsize
        raise PipelineError(
            f"{DIRECTORY} is full: instance {instance!r} needs {length} bytes more there, {free} are free; "
            f"free some, or mount it larger (mount -o remount,size=… {DIRECTORY})"
        ) from None
