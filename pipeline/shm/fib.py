"""Forwarding table in shared memory: control writes it here, stages read it in C.

Keys are FibKey of pipeline.forwarding with one difference: `via` is the *index* of the incoming link, as link sets hold
indices too.  The table holds IPv4 addresses as ::ffff:a.b.c.d.  This module decides nothing: the entries come from
forwarding/table.py.

There is one writer at a time.  A new writer repairs the table after a killed one; the entries stay.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.address import Address
from pipeline.errors import PipelineError
from pipeline.forwarding.route import FibKey, Kind, Side
from pipeline.shm._native import ffi, lib
from pipeline.shm.region import Region

RESERVE_ENTRIES = 4096
"""Entries whose pages are reserved together: 768 KiB, so that thousands of changes take one system call."""

_V4_PREFIX = bytes(10) + b"\xff\xff"
_NO_ADDRESS = bytes(16)
_WORD = (1 << 64) - 1
_SIDES = {Side.HOST: lib.MP_SIDE_HOST, Side.OVERLAY: lib.MP_SIDE_OVERLAY}
_KINDS = {
    Kind.GROUP: lib.MP_KIND_GROUP,
    Kind.UNICAST: lib.MP_KIND_UNICAST,
    Kind.FLOOD: lib.MP_KIND_FLOOD,
    Kind.SOURCE: lib.MP_KIND_SOURCE,
}
_SIDE_OF = {number: side for side, number in _SIDES.items()}
_KIND_OF = {number: kind for kind, number in _KINDS.items()}


class TableFullError(PipelineError):
    """A table of shared memory is full.  Its entries stay valid and can still be changed."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry of the table; `used`: a stage has forwarded by it since the mark was last cleared."""

    key: FibKey
    links: frozenset[int]
    local: bool
    stream: int
    stripes: int
    repairs: bool
    used: bool


def mapped(address: Address) -> bytes:
    """Return 16 bytes: an IPv6 address as it is, an IPv4 address as ::ffff:a.b.c.d."""
    return address if len(address) == 16 else _V4_PREFIX + address


def unmapped(packed: bytes) -> Address:
    """Return the address that mapped() was called with."""
    return packed[12:] if packed.startswith(_V4_PREFIX) else packed


class ForwardingTableWriter:
    """The only writer of a region's forwarding table; MemoryError if its own list of entries finds no memory."""

    def __init__(self, region: Region) -> None:
        self._region = region
        native = lib.mp_fib_writer_new(region.native)
        if native == ffi.NULL:
            raise MemoryError("forwarding table")
        self._writer = ffi.gc(native, lib.mp_fib_writer_free)
        self._key = ffi.new("struct mp_fib_key *")
        self._value = ffi.new("struct mp_fib_value *")
        self._reserved = 0
        self._reserve(0)

    def __len__(self) -> int:
        return int(lib.mp_fib_entries(self._region.native))

    def set(
        self,
        key: FibKey,
        links: Iterable[int],
        *,
        local: bool = False,
        stream: int = 0,
        stripes: int = 1,
        repairs: bool = False,
    ) -> None:
        """Add or replace an entry: readers see the old one or the new one.

        `links` are link indices.  `stream` is the index of the group's stream counter.  `stripes`, in the entry of
        stripe 0, is the number of entries that the packets of a stream alternate between.  With `repairs`, stages
        report gaps of the stream and keep its datagrams.  Raises TableFullError, or PipelineError if /dev/shm is full.
        """
        if lib.mp_fib_high_water(self._writer, 1) > self._reserved:
            self._reserve(RESERVE_ENTRIES)
        value = self._value
        bits = 0
        for link in links:
            bits |= 1 << link
        words = -(-bits.bit_length() // 64)
        if words > lib.MP_LINK_WORDS:
            raise ValueError(f"link index beyond {lib.MP_LINKS_MAX - 1}")
        for i in range(words):
            value.links[i] = bits >> 64 * i & _WORD
        value.words, value.stream, value.stripes = words, stream, stripes
        value.flags = (lib.MP_ENTRY_LOCAL if local else 0) | (lib.MP_ENTRY_REPAIR if repairs else 0)
        status = lib.mp_fib_set(self._writer, self._fill(key), value)
        if status == -errno.ENOSPC:
            raise TableFullError(f"the forwarding table is full: {len(self)} entries")
        assert status == 0, "the words are in bounds"

    def delete(self, key: FibKey) -> bool:
        """Delete an entry; return whether there was one."""
        return bool(lib.mp_fib_delete(self._writer, self._fill(key)) == 0)

    def lookup(self, key: FibKey) -> StoredEntry | None:
        """Return the entry of exactly this key, as a stage would find it."""
        index = lib.mp_fib_lookup(self._region.native, self._fill(key), self._value)
        return None if index == lib.MP_NO_ENTRY else self._stored(key, used=False)

    def entries(self, *, clear_used: bool = False) -> Iterator[StoredEntry]:
        """Iterate over all entries, in no order.  Entries may be deleted meanwhile; those set then may be missed."""
        cursor, used, key = ffi.new("uint32_t *"), ffi.new("uint32_t *"), ffi.new("struct mp_fib_key *")
        while lib.mp_fib_next(self._writer, cursor, key, self._value, used, clear_used):
            yield self._stored(_read_key(key), used=bool(used[0]))

    def take_used(self) -> list[FibKey]:
        """Return the keys that stages have forwarded by since the last call, and clear their marks."""
        cursor, key = ffi.new("uint32_t *"), ffi.new("struct mp_fib_key *")
        found = []
        while lib.mp_fib_next_used(self._writer, cursor, key):
            found.append(_read_key(key))
        return found

    @property
    def version(self) -> int:
        """Version of the table; every change increments it."""
        return int(lib.mp_fib_version(self._region.native))

    # ---------------------------------------------------------------- C values

    def _fill(self, key: FibKey) -> Any:
        native = self._key
        ffi.memmove(native.group, mapped(key.group), 16)
        ffi.memmove(native.source, mapped(key.source) if key.source else _NO_ADDRESS, 16)
        native.origin = key.origin or 0
        native.via = lib.MP_NO_LINK if key.via is None else key.via
        native.side, native.kind = _SIDES[key.side], _KINDS[key.kind] | key.stripe << lib.MP_STRIPE_SHIFT
        return native

    def _stored(self, key: FibKey, *, used: bool) -> StoredEntry:
        value = self._value
        bits = sum(value.links[i] << 64 * i for i in range(value.words))
        return StoredEntry(
            key=key,
            links=frozenset(_bits_of(bits)),
            local=bool(value.flags & lib.MP_ENTRY_LOCAL),
            stream=value.stream,
            stripes=value.stripes,
            repairs=bool(value.flags & lib.MP_ENTRY_REPAIR),
            used=used,
        )

    def _reserve(self, more: int) -> None:
        """Reserve the pages of the entries used so far and of the next `more`."""
        entries = lib.mp_fib_high_water(self._writer, more)
        native = self._region.native
        self._region.reserve(lib.mp_fib_entry_at(native, self._reserved), lib.mp_fib_entry_at(native, entries))
        self._reserved = entries


def _bits_of(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _read_key(native: Any) -> FibKey:
    source = bytes(ffi.buffer(native.source))
    return FibKey(
        side=_SIDE_OF[native.side],
        kind=_KIND_OF[native.kind & (1 << lib.MP_STRIPE_SHIFT) - 1],
        group=unmapped(bytes(ffi.buffer(native.group))),
        source=None if source == _NO_ADDRESS else unmapped(source),
        origin=native.origin or None,
        via=None if native.via == lib.MP_NO_LINK else native.via,
        stripe=native.kind >> lib.MP_STRIPE_SHIFT,
    )
