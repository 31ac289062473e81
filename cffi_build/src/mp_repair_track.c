/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_track: bit maps of streams.  See mp_repair_track.h.
 *
 * Numbers have 32 bits and wrap.  Blocks of 32 numbers therefore have 27 bits.  Both are compared by their difference.
 */
#include "mp_repair_track.h"

#define BLOCK_BITS 5u
#define BLOCK_MASK (UINT32_MAX >> BLOCK_BITS)

static uint32_t block_of(uint32_t sequence)
{
    return sequence >> BLOCK_BITS;
}

static _Atomic uint64_t *word_of(struct mp_repair_track *t, uint32_t block)
{
    return &t->word[block % MP_REPAIR_TRACK_WORDS];
}

/* Return how far number a lies after b. */
static int32_t distance(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b);
}

/* ---- find ---- */

static uint32_t set_of(uint64_t name)
{
    uint32_t hash = (uint32_t)((name >> 16) * UINT64_C(0x9e3779b97f4a7c15) >> 40);
    return hash % (MP_REPAIR_TRACKS / MP_REPAIR_TRACK_WAYS) * MP_REPAIR_TRACK_WAYS;
}

/* Begin a stream: all numbers up to `sequence` count as received. */
static void begin(struct mp_repair_track *t, uint64_t name, uint32_t sequence)
{
    atomic_store_explicit(&t->name, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < MP_REPAIR_TRACK_WORDS; i++) {
        uint32_t block = (block_of(sequence) - i) & BLOCK_MASK;
        uint32_t bits = i ? UINT32_MAX : UINT32_MAX >> (31 - sequence % 32);
        atomic_store_explicit(word_of(t, block), (uint64_t)block << 32 | bits, memory_order_relaxed);
    }
    atomic_store_explicit(&t->highest, sequence, memory_order_relaxed);
    atomic_store_explicit(&t->reported, 0, memory_order_relaxed);
    atomic_store_explicit(&t->reported_highest, sequence, memory_order_relaxed);
    atomic_store_explicit(&t->is_pending, 0, memory_order_relaxed);
    /* release REPAIR_TRACK: pairs with mp_repair_track_find; a stage that sees the name sees a whole map */
    atomic_store_explicit(&t->name, name, memory_order_release);
}

/* The same stream under another key epoch: a restarted origin if its numbers are far away, else a key rotation. */
static void change_epoch(struct mp_repair_track *t, uint64_t name, uint32_t sequence)
{
    int32_t ahead = distance(sequence, atomic_load_explicit(&t->highest, memory_order_relaxed));
    if (ahead > (int32_t)MP_REPAIR_TRACK_NUMBERS || ahead < -(int32_t)MP_REPAIR_TRACK_NUMBERS)
        begin(t, name, sequence);
    else
        atomic_store_explicit(&t->name, name, memory_order_relaxed);
}

struct mp_repair_track *mp_repair_track_find(const struct mp_region *r, uint64_t name, uint32_t sequence)
{
    struct mp_repair_track *set = mp_repair_tracks(r) + set_of(name), *oldest = set;
    for (struct mp_repair_track *t = set; t < set + MP_REPAIR_TRACK_WAYS; t++) {
        /* acquire REPAIR_TRACK: pairs with begin */
        uint64_t present = atomic_load_explicit(&t->name, memory_order_acquire);
        if (present >> 16 == name >> 16) {
            if (present != name)
                change_epoch(t, name, sequence);
            return t;
        }
        if (atomic_load_explicit(&t->arrived_ns, memory_order_relaxed) <
            atomic_load_explicit(&oldest->arrived_ns, memory_order_relaxed))
            oldest = t;
    }
    begin(oldest, name, sequence);
    return oldest;
}

uint32_t mp_repair_track_list(const struct mp_region *r, struct mp_tracked_stream *out)
{
    uint32_t found = 0;
    for (const struct mp_repair_track *t = mp_repair_tracks(r); t < mp_repair_tracks(r) + MP_REPAIR_TRACKS; t++) {
        uint64_t name = atomic_load_explicit(&t->name, memory_order_relaxed);
        if (name)
            out[found++] = (struct mp_tracked_stream){ mp_repair_track_origin(name), mp_repair_track_stream(name),
                                                       atomic_load_explicit(&t->highest, memory_order_relaxed) };
    }
    return found;
}

/* ---- mark ---- */

static void set_bit(struct mp_repair_track *t, uint32_t sequence)
{
    uint32_t block = block_of(sequence);
    uint64_t bit = UINT64_C(1) << sequence % 32, fresh;
    _Atomic uint64_t *word = word_of(t, block);
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
    do {
        uint32_t present = (uint32_t)(old >> 32);
        if (present != block && distance(block << BLOCK_BITS, present << BLOCK_BITS) < 0)
            return;
        fresh = (present == block ? old : (uint64_t)block << 32) | bit;
    } while (!atomic_compare_exchange_weak_explicit(word, &old, fresh, memory_order_relaxed, memory_order_relaxed));
}

int mp_repair_track_mark(struct mp_repair_track *t, uint32_t sequence, uint64_t now_ns)
{
    uint32_t highest = atomic_load_explicit(&t->highest, memory_order_relaxed);
    int32_t ahead = distance(sequence, highest);
    atomic_store_explicit(&t->arrived_ns, now_ns, memory_order_relaxed);
    if (ahead <= -(int32_t)MP_REPAIR_TRACK_NUMBERS)
        return 0;
    set_bit(t, sequence);
    while (distance(sequence, highest) > 0 &&
           !atomic_compare_exchange_weak_explicit(&t->highest, &highest, sequence, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
    return ahead != 1 && ahead != 0;
}

/* ---- missing ---- */

static int is_marked(const struct mp_repair_track *t, uint32_t sequence)
{
    uint64_t word = atomic_load_explicit(&t->word[block_of(sequence) % MP_REPAIR_TRACK_WORDS], memory_order_relaxed);
    uint32_t present = (uint32_t)(word >> 32), block = block_of(sequence);
    if (present != block)       /* a newer block: the number is older than the window */
        return distance(present << BLOCK_BITS, block << BLOCK_BITS) > 0;
    return (word >> sequence % 32 & 1) != 0;
}

uint32_t mp_repair_track_missing(const struct mp_repair_track *t, uint32_t last, uint32_t *out, uint32_t most)
{
    uint32_t highest = atomic_load_explicit(&t->highest, memory_order_relaxed), found = 0;
    uint32_t back = highest - last;
    for (uint32_t n = back; n < MP_REPAIR_TRACK_NUMBERS - 32 && found < most; n++)
        if (!is_marked(t, highest - n))
            out[found++] = highest - n;
    for (uint32_t i = 0; i < found / 2; i++) {
        uint32_t swap = out[i];
        out[i] = out[found - 1 - i];
        out[found - 1 - i] = swap;
    }
    return found;
}
