/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_track: bit maps of streams.  See mp_repair_track.h.
 *
 * Numbers are 32 bits and wrap; blocks of 32 numbers therefore have 27, and both are compared by their difference.
 */
#include "mp_repair_track.h"

#define BLOCK_BITS 5u
#define BLOCK_MASK (UINT32_MAX >> BLOCK_BITS)

static uint32_t block_of(uint32_t sequence)
{
    return sequence >> BLOCK_BITS;
}

static _Atomic uint64_t *word_of(struct mp_repair_track *h, uint32_t block)
{
    return &h->word[block % MP_REPAIR_TRACK_WORDS];
}

/* How far number a lies after b. */
static int32_t distance(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b);
}

/* ---- find ---- */

static uint32_t set_of(uint64_t name)
{
    return (uint32_t)((name >> 16) * UINT64_C(0x9e3779b97f4a7c15) >> 40) % (MP_REPAIR_TRACKS / MP_REPAIR_TRACK_WAYS) * MP_REPAIR_TRACK_WAYS;
}

/* Everything up to `sequence` counts as having come. */
static void begin(struct mp_repair_track *h, uint64_t name, uint32_t sequence)
{
    atomic_store_explicit(&h->name, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < MP_REPAIR_TRACK_WORDS; i++) {
        uint32_t block = (block_of(sequence) - i) & BLOCK_MASK;
        uint32_t bits = i ? UINT32_MAX : UINT32_MAX >> (31 - sequence % 32);
        atomic_store_explicit(word_of(h, block), (uint64_t)block << 32 | bits, memory_order_relaxed);
    }
    atomic_store_explicit(&h->highest, sequence, memory_order_relaxed);
    atomic_store_explicit(&h->reported, 0, memory_order_relaxed);
    atomic_store_explicit(&h->reported_highest, sequence, memory_order_relaxed);
    atomic_store_explicit(&h->waits, 0, memory_order_relaxed);
    /* release pairs with the acquire in mp_repair_track_find: who sees the name sees a whole map */
    atomic_store_explicit(&h->name, name, memory_order_release);
}

/* The same stream under another key: a new life of the origin if its numbers are from elsewhere, else a rotation. */
static void take_epoch(struct mp_repair_track *h, uint64_t name, uint32_t sequence)
{
    int32_t ahead = distance(sequence, atomic_load_explicit(&h->highest, memory_order_relaxed));
    if (ahead > (int32_t)MP_REPAIR_TRACK_NUMBERS || ahead < -(int32_t)MP_REPAIR_TRACK_NUMBERS)
        begin(h, name, sequence);
    else
        atomic_store_explicit(&h->name, name, memory_order_relaxed);
}

struct mp_repair_track *mp_repair_track_find(const struct mp_region *r, uint64_t name, uint32_t sequence)
{
    struct mp_repair_track *set = mp_repair_tracks(r) + set_of(name), *oldest = set;
    for (struct mp_repair_track *h = set; h < set + MP_REPAIR_TRACK_WAYS; h++) {
        uint64_t is = atomic_load_explicit(&h->name, memory_order_acquire);
        if (is >> 16 == name >> 16) {
            if (is != name)
                take_epoch(h, name, sequence);
            return h;
        }
        if (atomic_load_explicit(&h->arrived_ns, memory_order_relaxed) <
            atomic_load_explicit(&oldest->arrived_ns, memory_order_relaxed))
            oldest = h;
    }
    begin(oldest, name, sequence);
    return oldest;
}

uint32_t mp_repair_track_list(const struct mp_region *r, struct mp_repair_track_stream *out)
{
    uint32_t found = 0;
    for (const struct mp_repair_track *h = mp_repair_tracks(r); h < mp_repair_tracks(r) + MP_REPAIR_TRACKS; h++) {
        uint64_t name = atomic_load_explicit(&h->name, memory_order_relaxed);
        if (name)
            out[found++] = (struct mp_repair_track_stream){ mp_repair_track_origin(name), mp_repair_track_stream(name),
                                                     atomic_load_explicit(&h->highest, memory_order_relaxed) };
    }
    return found;
}

/* ---- note ---- */

static void mark(struct mp_repair_track *h, uint32_t sequence)
{
    uint32_t block = block_of(sequence);
    uint64_t bit = UINT64_C(1) << sequence % 32, fresh;
    _Atomic uint64_t *word = word_of(h, block);
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
    do {
        uint32_t there = (uint32_t)(old >> 32);
        if (there != block && distance(block << BLOCK_BITS, there << BLOCK_BITS) < 0)
            return;
        fresh = (there == block ? old : (uint64_t)block << 32) | bit;
    } while (!atomic_compare_exchange_weak_explicit(word, &old, fresh, memory_order_relaxed, memory_order_relaxed));
}

int mp_repair_track_mark(struct mp_repair_track *h, uint32_t sequence, uint64_t now_ns)
{
    uint32_t highest = atomic_load_explicit(&h->highest, memory_order_relaxed);
    int32_t ahead = distance(sequence, highest);
    atomic_store_explicit(&h->arrived_ns, now_ns, memory_order_relaxed);
    if (ahead <= -(int32_t)MP_REPAIR_TRACK_NUMBERS)
        return 0;
    mark(h, sequence);
    while (distance(sequence, highest) > 0 &&
           !atomic_compare_exchange_weak_explicit(&h->highest, &highest, sequence, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
    return ahead != 1 && ahead != 0;
}

/* ---- missing ---- */

static int has_come(const struct mp_repair_track *h, uint32_t sequence)
{
    uint64_t word = atomic_load_explicit(&h->word[block_of(sequence) % MP_REPAIR_TRACK_WORDS], memory_order_relaxed);
    uint32_t there = (uint32_t)(word >> 32), block = block_of(sequence);
    if (there != block)         /* a newer block: the number is older than the window */
        return distance(there << BLOCK_BITS, block << BLOCK_BITS) > 0;
    return (word >> sequence % 32 & 1) != 0;
}

uint32_t mp_repair_track_missing(const struct mp_repair_track *h, uint32_t last, uint32_t *out, uint32_t most)
{
    uint32_t highest = atomic_load_explicit(&h->highest, memory_order_relaxed), found = 0;
    uint32_t back = highest - last;
    for (uint32_t n = back; n < MP_REPAIR_TRACK_NUMBERS - 32 && found < most; n++)
        if (!has_come(h, highest - n))
            out[found++] = highest - n;
    for (uint32_t i = 0; i < found / 2; i++) {
        uint32_t swap = out[i];
        out[i] = out[found - 1 - i];
        out[found - 1 - i] = swap;
    }
    return found;
}
