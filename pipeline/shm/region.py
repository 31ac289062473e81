"""Shared memory of one instance: create, attach, reserve and remove it; its table of processes.

    create ─▶ (fork: children keep the mapping) ─▶ close, unlink        the supervisor
    attach ─▶ close                                                     any other process with the rights

The supervisor formats the region, and only the supervisor unlinks it.  All pages up to `lazy_at` have memory behind
them from the start.  Control reserves the pages behind that (forwarding entries, replay windows) before it uses them: a
full /dev/shm is an error with a text, never a SIGBUS.  The meaning of the parts is defined in C (mp_layout.h) and used
by the modules beside this one.
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
"""Packets in the stages of a lane: 1 ms of 1 million packets a second, behind the queue of the TUN."""
OVERLAY_SLOTS = 64
"""Super-buffers of up to 64 KiB to relay: 4 MiB a lane, more than 1 ms at 25 Gbit/s."""
FIB_ENTRIES = 262_144
"""Entries of the forwarding table: four for each of 65,536 groups, for host side, overlay side and sources."""
FIB_BUCKETS = 262_144
"""Buckets of the forwarding table: as many as entries, for chains of one or two."""
MODE = 0o600
DIRECTORY = "/dev/shm"  # noqa: S108  # Linux shows POSIX shared memory there; used in error messages


class ProcessState(enum.IntEnum):
    """State of a process (enum mp_process_state)."""

    ABSENT = lib.MP_ABSENT
    STARTING = lib.MP_STARTING
    READY = lib.MP_READY
    STOPPED = lib.MP_STOPPED


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
    probe_secret: tuple[int, int]

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
        """Return the geometry for lanes and a TUN MTU; the seed of the hash is random unless a test fixes it."""
        return cls(
            lanes=lanes,
            host_slots=host_slots,
            host_slot_bytes=lib.mp_host_slot_bytes(mtu),
            overlay_slots=overlay_slots,
            fib_entries=fib_entries,
            fib_buckets=fib_buckets,
            mtu=mtu,
            seed=int.from_bytes(os.urandom(4)) if seed is None else seed,
            probe_secret=(int.from_bytes(os.urandom(8)), int.from_bytes(os.urandom(8))),
        )


@dataclass(frozen=True, slots=True)
class Process:
    """A row of the process table; pid 0: never started; `stages` is a bit set of enum mp_stage_id."""

    pid: int
    state: ProcessState
    restarts: int
    stages: int


def region_name(instance: str) -> str:
    """Return the POSIX name of an instance's region, visible as /dev/shm/mcast-pipeline.<instance>."""
    return f"/mcast-pipeline.{instance}"


def _path(instance: str) -> str:
    return DIRECTORY + region_name(instance)


class Region:
    """A mapped region.  create() and attach() make it."""

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
        """Create and format the region; PipelineError if the name is in use or /dev/shm too small."""
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
        """Map the region of a running instance; PipelineError if there is none or it has another version."""
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
        """Remove the name of a region if it exists, and return whether it did; processes keep their mappings."""
        try:
            posix_ipc.unlink_shared_memory(region_name(instance))
        except posix_ipc.ExistentialError:
            return False
        except posix_ipc.PermissionsError:
            raise PermissionDeniedError(f"no permission to remove {_path(instance)}: run as root") from None
        return True

    def unlink(self) -> None:
        """Remove the name of the region.  The supervisor calls this when all processes have ended."""
        self.unlink_stale(self.instance)

    def close(self) -> None:
        """Unmap the region in this process.  Objects made from `native` must not be used afterwards."""
        if self._fd < 0:
            return
        self.native = ffi.NULL
        ffi.release(self._buffer)
        self._map.close()
        os.close(self._fd)
        self._fd = -1

    def reserve(self, start: int, end: int) -> None:
        """Reserve the pages from `start` to `end`; PipelineError if /dev/shm is full."""
        start -= start % mmap.PAGESIZE
        end = min(end, self.size)
        if start < end:
            _allocate(self._fd, self.instance, start, end - start)

    def lock_keys(self) -> bool:
        """Keep the pages with keys out of swap until this process ends; return whether that is allowed."""
        return bool(lib.mp_keys_lock(self.native) == 0)

    def wipe_keys(self) -> None:
        """Overwrite all keys.  The supervisor calls this when all processes have ended."""
        lib.mp_keys_wipe(self.native)

    def fileno(self) -> int:
        """Return the descriptor, which control needs for reserve()."""
        return self._fd

    @property
    def geometry(self) -> Geometry:
        """Geometry of the region."""
        native = self.native.geometry
        values = {name: getattr(native, name) for name in Geometry.__slots__}
        return Geometry(**values | {"probe_secret": tuple(native.probe_secret)})

    # ---------------------------------------------------------------- table of processes, 0 is control

    def process(self, index: int) -> Process:
        """Return a row of the table; IndexError if there is no such row."""
        view = ffi.new("struct mp_process_view *")
        _check_index(lib.mp_process_get(self.native, index, view))
        return Process(view.pid, ProcessState(view.state), view.restarts, view.stages)

    def process_pid(self, index: int) -> int:
        """Return the pid; 0 before the first start."""
        return self.process(index).pid

    def process_state(self, index: int) -> ProcessState:
        """Return the state that the process or the supervisor set last."""
        return self.process(index).state

    def process_restarts(self, index: int) -> int:
        """Return the number of restarts."""
        return self.process(index).restarts

    def set_process_pid(self, index: int, pid: int) -> None:
        """Set the pid.  The supervisor calls this at each start."""
        _check_index(lib.mp_process_set_pid(self.native, index, pid))

    def set_process_state(self, index: int, state: ProcessState) -> None:
        """Set the state: READY by the process itself, the others by the supervisor."""
        _check_index(lib.mp_process_set_state(self.native, index, state))

    def set_process_stages(self, index: int, stages: int) -> None:
        """Set the bit set of its stages.  The supervisor calls this before the first start."""
        _check_index(lib.mp_process_set_stages(self.native, index, stages))

    def count_restart(self, index: int) -> None:
        """Count a restart.  The supervisor calls this."""
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
