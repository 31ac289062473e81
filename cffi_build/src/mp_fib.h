/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_fib: the forwarding table.  One writer (control), any number of readers (classify, overlay_ingress), no lock.
 *
 * A hash of chains: buckets hold the index of an entry, entries the index of the next.  A reachable entry never
 * changes; an update links a new entry in its place and frees the old one, so a reader sees either.  A reader may
 * still stand on an entry that has been freed and is being filled anew: the entry's generation tells (odd while
 * filled, different afterwards), an entry that now lives in another bucket tells too, and the reader starts over.  A writer that dies
 * at any point leaves the table readable; its successor finds the free entries by walking the chains.
 *
 * It knows nothing of groups, engines or packets: keys are bytes, values are link sets.
 */
#ifndef MP_FIB_H
#define MP_FIB_H

#include "mp_layout.h"

struct mp_fib_value {
    uint32_t stream;
    uint8_t flags;
    uint8_t epoch;
    uint16_t words;
    uint64_t links[MP_LINK_WORDS];
};

/* Looks a key up.  Returns the entry's index and fills `value` (links[] up to words), or MP_NO_ENTRY. */
uint32_t mp_fib_lookup(const struct mp_region *r, const struct mp_fib_key *key, struct mp_fib_value *value);

/* Marks an entry as used; `index` is what a look-up returned. */
void mp_fib_touch(const struct mp_region *r, uint32_t index);

/* ---- writer ---- */

struct mp_fib_writer;           /* process-local: the list of free entries */

/* Attaches as the only writer and repairs what a dead one left.  NULL if there is no memory. */
struct mp_fib_writer *mp_fib_writer_new(struct mp_region *r);
void mp_fib_writer_free(struct mp_fib_writer *w);

/* Adds or replaces.  Returns 0 or -ENOSPC when the table is full. */
int mp_fib_set(struct mp_fib_writer *w, const struct mp_fib_key *key, const struct mp_fib_value *value);

/* Removes.  Returns 0 or -ENOENT. */
int mp_fib_delete(struct mp_fib_writer *w, const struct mp_fib_key *key);

/* Entries that must have memory behind them before the next `more` sets: the caller reserves pages up to there. */
uint32_t mp_fib_high_water(const struct mp_fib_writer *w, uint32_t more);

/* Walks all entries: `cursor` starts at 0.  Returns 1 and fills key, value and used (cleared if `clear_used`), 0 at the end. */
int mp_fib_next(const struct mp_fib_writer *w, uint32_t *cursor, struct mp_fib_key *key, struct mp_fib_value *value,
                uint32_t *used, int clear_used);

#endif
