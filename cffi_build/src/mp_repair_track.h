/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_track: which datagrams of a stream have come.  A stream is what one origin sends to one group.
 *
 * For each stream that is to be repaired a bit map of the last MP_REPAIR_TRACK_NUMBERS stream sequence numbers, in shared memory,
 * since packets that take stripes come by several peers and so by several lanes.  Bits are marked as in a replay window (mp_seal.h): a
 * word names its block, so one compare-and-swap is a whole update, and nothing is cleared as the window moves.
 *
 *   begins    with the first datagram that is heard: nothing before it is missing
 *   begins anew    when the origin has (another key, and numbers from elsewhere)
 *   gives way    to another stream when the set that its name falls into is full and it has been silent the longest
 *
 * Stages of several lanes that begin or replace a stream at one instant may lose each other's marks.  That makes a
 * datagram seem missing that is not: it is asked for, comes, and falls to the replay window.
 *
 * It sends nothing and tells nobody: see mp_repair_gaps.h.
 */
#ifndef MP_REPAIR_TRACK_H
#define MP_REPAIR_TRACK_H

#include "mp_layout.h"

/* What a stream is known by: never 0. */
static inline uint64_t mp_repair_track_name(uint32_t origin, uint32_t stream, uint8_t epoch)
{
    return (uint64_t)origin << 32 | (uint64_t)(stream & 0xffffu) << 16 | (uint64_t)epoch << 8 | 1u;
}

static inline uint32_t mp_repair_track_origin(uint64_t name) { return (uint32_t)(name >> 32); }
static inline uint32_t mp_repair_track_stream(uint64_t name) { return (uint32_t)(name >> 16) & 0xffffu; }

/* The stream's map; one is begun with `sequence` if there is none, or if the origin has begun anew. */
struct mp_repair_track *mp_repair_track_find(const struct mp_region *r, uint64_t name, uint32_t sequence);

/* Whether what was found is still the stream of that origin, group and epoch. */
static inline int mp_repair_track_is(const struct mp_repair_track *h, uint64_t name)
{
    return atomic_load_explicit(&h->name, memory_order_relaxed) == name;
}

/* The same, whatever the epoch. */
static inline int mp_repair_track_is_stream(const struct mp_repair_track *h, uint64_t name)
{
    return atomic_load_explicit(&h->name, memory_order_relaxed) >> 16 == name >> 16;
}

/* Marks a datagram that has come.  Returns 1 if that may change what is missing, 0 if it was simply the next one. */
int mp_repair_track_mark(struct mp_repair_track *h, uint32_t sequence, uint64_t now_ns);

/* A stream as control looks at it, whether it goes on. */
struct mp_repair_track_stream {
    uint32_t origin, stream, highest;
};

/* All streams (MP_REPAIR_TRACKS at the most), in no order; returns how many. */
uint32_t mp_repair_track_list(const struct mp_region *r, struct mp_repair_track_stream *out);

/* The newest `most` missing numbers up to `last`, in ascending order; how many there are. */
uint32_t mp_repair_track_missing(const struct mp_repair_track *h, uint32_t last, uint32_t *out, uint32_t most);

#endif
