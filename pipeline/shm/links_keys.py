"""Links, sender keys of peers and own sender keys in shared memory: control writes them here, stages copy them in C.

This module allocates the places of keys and their replay windows; overlay/ allocates link indices.  A writer that
follows a killed one adopts the keys in the table.  A key that is set again unchanged keeps its windows, so that no
datagram is accepted twice.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.address import Address, NodeId
from pipeline.shm._native import ffi, lib
from pipeline.shm.fib import TableFullError
from pipeline.shm.region import Region

WINDOW_REST_S = 1.0
"""A stage drops its copy of a key before its next burst: no stage uses windows that were freed so long ago."""

_FREE, _TAKEN = 0, 1


class UdpEndpoint(NamedTuple):
    """Address and port of a peer's datagrams; `scope` is the interface on which a link-local address is valid."""

    address: Address
    port: int
    scope: int = 0


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A link as the stages see it."""

    node: NodeId
    up: bool
    """True if probes are sent."""
    endpoint: UdpEndpoint | None
    """Has answered a probe: datagrams go there."""
    candidate: UdpEndpoint | None
    """Has not answered yet: probes go there."""
    is_host_known: bool = False
    """True if the candidate's host has connected to this node: a host that has not gets fewer probes."""
    probe_keys: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """Keys that seal probes and echoes to the peer, and open those from it; None: sender keys do."""


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """Figures of a link: sums over lanes since the start; rtt_ns 0: unknown; bytes are UDP payload, probes included."""

    tx_datagrams: int
    tx_bytes: int
    tx_errors: int
    rx_datagrams: int
    rx_bytes: int
    probes: int
    echoes: int
    answered: int
    rtt_ns: int
    loss_ppm: int


@dataclass(frozen=True, slots=True)
class _Key:
    index: int
    secret: bytes | None
    lanes: int
    window: int


class LinksKeysWriter:
    """The only writer of a region's links and keys."""

    def __init__(self, region: Region, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._region = region
        lib.mp_links_keys_repair(region.native)
        self._keys: dict[NodeId, dict[int, _Key]] = {}
        """Keys by origin and epoch."""
        self._free: deque[int] = deque()
        self._windows = _Windows(lib.MP_WINDOWS_MAX, clock)
        self._adopt()

    # ---------------------------------------------------------------- links

    def set_link(self, index: int, link: LinkRecord) -> None:
        """Write a link; ValueError if a value is out of bounds."""
        native = ffi.new("struct mp_link *")
        native.node, native.up, native.is_host_known = link.node, link.up, link.is_host_known
        _fill_endpoint(native.endpoint, link.endpoint)
        _fill_endpoint(native.candidate, link.candidate)
        if link.probe_keys is not None:
            native.has_probe_keys = True
            for place, key in zip((native.probe_seal, native.probe_open), link.probe_keys, strict=True):
                _check_secret(key)
                ffi.memmove(place, key, lib.MP_KEY_BYTES)
        _check(lib.mp_link_set(self._region.native, index, native), "link", index)

    def clear_link(self, index: int) -> None:
        """Free the index."""
        _check(lib.mp_link_clear(self._region.native, index), "link", index)

    def link(self, index: int) -> LinkRecord | None:
        """Return the link; None if the index is free."""
        record = ffi.new("struct mp_link *")
        consistent = lib.mp_link_read(self._region.native, index, record)
        assert consistent, "this is the only writer"
        if not record.node:
            return None
        endpoint, candidate = (_endpoint(e) if e.family else None for e in (record.endpoint, record.candidate))
        seal, open_ = (bytes(ffi.buffer(key)) for key in (record.probe_seal, record.probe_open))
        probe_keys = (seal, open_) if record.has_probe_keys else None
        return LinkRecord(record.node, bool(record.up), endpoint, candidate, bool(record.is_host_known), probe_keys)

    def link_figures(self, index: int) -> LinkFigures:
        """Return the figures that the stages have counted for the index, for all peers that ever had it."""
        view = ffi.new("struct mp_link_view *")
        _check(lib.mp_link_get(self._region.native, index, view), "link", index)
        return LinkFigures(**{name: getattr(view, name) for name in LinkFigures.__slots__})

    # ---------------------------------------------------------------- keys of peers

    def set_key(self, origin: NodeId, epoch: int, *, key: bytes | None, lanes: int) -> None:
        """Accept datagrams of the origin's epoch from now on; key None: without a tag (--insecure).

        Each lane of the origin gets a fresh replay window for data and one for probes, unless the same key is in the
        table already.  Raises TableFullError, or PipelineError if /dev/shm is full.
        """
        _check_secret(key)
        old = self._keys.get(origin, {}).get(epoch)
        if old is not None and (old.secret, old.lanes) == (key, lanes):
            return
        if old is None and not self._free:
            raise TableFullError(f"the table of sender keys is full: {lib.MP_KEYS_MAX} keys")
        window = self._windows.allocate(2 * lanes)
        if window is None:
            raise TableFullError(f"no replay windows left for a node of {lanes} lanes")
        index = old.index if old is not None else self._free[0]
        native = self._region.native
        try:
            self._region.reserve(lib.mp_window_at(native, window), lib.mp_window_at(native, window + 2 * lanes))
            secret = bytes(lib.MP_KEY_BYTES) if key is None else key
            _check(lib.mp_key_set(native, index, origin, epoch, key is not None, lanes, window, secret), "key", index)
        except BaseException:
            self._windows.free(window, 2 * lanes)
            raise
        if old is None:
            self._free.popleft()
        else:
            self._windows.free(old.window, 2 * old.lanes)
        self._keys.setdefault(origin, {})[epoch] = _Key(index, key, lanes, window)

    def clear_key(self, origin: NodeId, epoch: int) -> bool:
        """Accept datagrams of the origin's epoch no more; return whether they were accepted."""
        keys = self._keys.get(origin, {})
        key = keys.pop(epoch, None)
        if key is None:
            return False
        if not keys:
            del self._keys[origin]
        _check(lib.mp_key_clear(self._region.native, key.index), "key", key.index)
        self._free.append(key.index)
        self._windows.free(key.window, 2 * key.lanes)
        return True

    def keys(self) -> frozenset[tuple[NodeId, int]]:
        """Return (origin, epoch) of every key in the table."""
        return frozenset((origin, epoch) for origin in self._keys for epoch in self._keys[origin])

    def epochs_of(self, origin: NodeId) -> list[int]:
        """Return the epochs of the origin's keys in the table."""
        return list(self._keys.get(origin, ()))

    # ---------------------------------------------------------------- own keys

    def set_sender(self, origin: NodeId, keys: Mapping[int, bytes | None], *, active: int) -> None:
        """Set this node's id and its keys by epoch, at most one even and one odd.

        New datagrams are sealed with the key of epoch `active`.  With --insecure all keys are None, else none is.
        """
        slots: list[tuple[int, object]] = [(0, ffi.NULL), (1, ffi.NULL)]
        for epoch, key in keys.items():
            _check_secret(key)
            slots[epoch & 1] = (epoch, bytes(lib.MP_KEY_BYTES) if key is None else key)
        if len({epoch & 1 for epoch in keys}) != len(keys) or active not in keys:
            raise ValueError("one epoch of each parity, and the active one among them")
        sealed = keys[active] is not None
        (even, even_key), (odd, odd_key) = slots
        native = self._region.native
        _check(lib.mp_sender_set(native, origin, sealed, active, even, even_key, odd, odd_key), "epoch", active)

    # ---------------------------------------------------------------- after a predecessor

    def _adopt(self) -> None:
        record = ffi.new("struct mp_key *")
        for index in range(lib.MP_KEYS_MAX):
            consistent = lib.mp_key_read(self._region.native, index, record)
            assert consistent, "half-written records were repaired, and this is the only writer"
            if not record.origin:
                self._free.append(index)
                continue
            secret = bytes(ffi.buffer(record.key)) if record.sealed else None
            key = _Key(index, secret, record.lanes, record.window)
            self._keys.setdefault(record.origin, {})[record.epoch] = key
            self._windows.take(record.window, 2 * record.lanes)


class _Windows:
    """Allocator of replay windows in runs, from the low end, so that few pages are ever needed."""

    def __init__(self, count: int, clock: Callable[[], float]) -> None:
        self._state = bytearray(count)
        self._clock = clock
        self._resting: deque[tuple[float, int, int]] = deque()

    def take(self, start: int, count: int) -> None:
        self._state[start : start + count] = bytes([_TAKEN]) * count

    def free(self, start: int, count: int) -> None:
        self._resting.append((self._clock(), start, count))

    def allocate(self, count: int) -> int | None:
        """Return the first of `count` free windows, of resting ones if there are no others; None: no room."""
        self._release_rested(self._clock() - WINDOW_REST_S)
        start = self._state.find(bytes(count))
        if start < 0:
            self._release_rested(float("inf"))
            start = self._state.find(bytes(count))
        if start < 0:
            return None
        self.take(start, count)
        return start

    def _release_rested(self, before: float) -> None:
        while self._resting and self._resting[0][0] <= before:
            _, start, count = self._resting.popleft()
            self._state[start : start + count] = bytes([_FREE]) * count


def _check_secret(key: bytes | None) -> None:
    if key is not None and len(key) != lib.MP_KEY_BYTES:
        raise ValueError(f"a key has {lib.MP_KEY_BYTES} bytes")


def read_endpoint(punt: bytes) -> tuple[int, UdpEndpoint]:
    """Return link and endpoint of a punt of kind ENDPOINT or CANDIDATE (u32 link, struct mp_endpoint)."""
    link = int(ffi.from_buffer("uint32_t *", punt)[0])
    return link, _endpoint(ffi.from_buffer("struct mp_endpoint *", punt[4:]))


def _endpoint(native: Any) -> UdpEndpoint:
    size = 4 if native.family == socket.AF_INET else 16
    return UdpEndpoint(bytes(ffi.buffer(native.address))[:size], native.port, native.scope)


def _fill_endpoint(native: Any, endpoint: UdpEndpoint | None) -> None:
    if endpoint is not None:
        native.family = socket.AF_INET if len(endpoint.address) == 4 else socket.AF_INET6
        native.port, native.scope = endpoint.port, endpoint.scope
        ffi.memmove(native.address, endpoint.address, len(endpoint.address))


def proving_link(punt: bytes) -> int:
    """Return the link of the peer that proved a forgery, from a punt of kind FORGERY (u32 link)."""
    return int(ffi.from_buffer("uint32_t *", punt)[0])


def _check(status: int, what: str, number: int) -> None:
    if status:
        raise ValueError(f"{what} {number} is out of bounds")
