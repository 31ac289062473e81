/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_track: the received datagrams of each stream.  A stream is the datagrams of one origin to one group.
 *
 * A track is a bit map of the last MP_REPAIR_TRACK_NUMBERS stream sequence numbers.  It lies in shared memory, as
 * packets that take stripes arrive from several peers and therefore in several lanes.  Bits are marked as in a replay
 * window (mp_seal.h): a word names its block, so one compare-and-swap is a whole update, and nothing is cleared as
 * the window moves.
 *
 *   begin      with the first datagram received: no number before it is missing
 *   restart    when the origin has restarted: it has another key, and numbers far from those before
 *   eviction   when a new stream's name falls into a full set of tracks: the track that was idle the longest
 *
 * Stages of several lanes that begin or evict a track at the same instant may lose marks of each other.  A datagram
 * then seems missing that is not: control requests it, and the replay window drops the copy.
 *
 * It reports nothing: see mp_repair_gaps.h.
 */
#ifndef MP_REPAIR_TRACK_H
#define MP_REPAIR_TRACK_H

#include "mp_layout.h"

/* Return the name of a stream, never 0: origin, stream and key epoch. */
static inline uint64_t mp_repair_track_name(uint32_t origin, uint32_t stream, uint8_t epoch)
{
    return (uint64_t)origin << 32 | (uint64_t)(stream & 0xffffu) << 16 | (uint64_t)epoch << 8 | 1u;
}

static inline uint32_t mp_repair_track_origin(uint64_t name) { return (uint32_t)(name >> 32); }
static inline uint32_t mp_repair_track_stream(uint64_t name) { return (uint32_t)(name >> 16) & 0xffffu; }

/* Return the track of a stream.  Begins one with `sequence` if there is none, or if the origin has restarted. */
struct mp_repair_track *mp_repair_track_find(const struct mp_region *r, uint64_t name, uint32_t sequence);

/* Return whether a track found before still has this name. */
static inline int mp_repair_track_is(const struct mp_repair_track *t, uint64_t name)
{
    return atomic_load_explicit(&t->name, memory_order_relaxed) == name;
}

/* Return whether it still belongs to this origin and stream, in any key epoch. */
static inline int mp_repair_track_is_stream(const struct mp_repair_track *t, uint64_t name)
{
    return atomic_load_explicit(&t->name, memory_order_relaxed) >> 16 == name >> 16;
}

/* Mark a received datagram.  Returns 1 if the missing numbers may have changed, 0 if it was the next number. */
int mp_repair_track_mark(struct mp_repair_track *t, uint32_t sequence, uint64_t now_ns);

/* A tracked stream, for control's check whether it continues. */
struct mp_tracked_stream {
    uint32_t origin, stream, highest;
};

/* List all tracked streams (MP_REPAIR_TRACKS at the most), in no order.  Returns how many. */
uint32_t mp_repair_track_list(const struct mp_region *r, struct mp_tracked_stream *out);

/* List the newest `most` missing numbers up to `last`, in ascending order.  Returns how many. */
uint32_t mp_repair_track_missing(const struct mp_repair_track *t, uint32_t last, uint32_t *out, uint32_t most);

#endif
