/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_fib: the forwarding table.  One writer (control), any number of readers (classify, overlay_ingress), no lock.
 *
 * A hash of chains: buckets hold the index of an entry, entries the index of the next.  A reachable entry never
 * changes but for that index; a change is always made at the head of a chain:
 *
 *   add       fill a free entry, link it as the chain's head                                    version + 1
 *   replace   fill a free entry with the new value, link it as the head, version + 1, unlink the old one
 *   delete    unlink                                                                           version + 1
 *
 * so a reader finds the new entry or the old one.  An unlinked entry keeps its contents and its link, for readers that
 * stand on it, until it is filled again, as late as possible.  A reader that still meets it then starts over:
 * its generation is odd (being filled) or has changed, or it now belongs to another bucket.  A reader that reaches the
 * end of a chain has found nothing only if the chain's head is still the one it began with.
 *
 * A writer that dies at any point leaves the table readable; its successor finds the free entries by walking the
 * chains.
 *
 * A stream whose packets take several trees in turn has an entry for each: that of stripe 0, which says how many there
 * are, and others under keys that differ in the stripe.  Who meets an entry of one stripe looks no further.
 *
 * It knows nothing of groups, engines or packets: keys are bytes, values are link sets.  The order of
 * look-ups, (S,G) before (*,G), is that of mp_lookup.h.
 */
#ifndef MP_FIB_H
#define MP_FIB_H

#include "mp_layout.h"

/* Restarts of one look-up, see the bound in mp_fib.c. */
#define MP_FIB_RESTARTS 1024u

/* Freed entries rest until this many are resting (or all entries have been used): a reader is disturbed only if it
 * takes as long for one look-up as control for this many changes. */
#define MP_FIB_RESTING 1024u

struct mp_fib_value {
    uint32_t stream;
    uint8_t flags;
    uint8_t stripes;
    uint8_t words;
    uint64_t links[MP_LINK_WORDS];
};

/* Looks a key up.  Returns the entry's index and fills `value` (links[] up to words), or MP_NO_ENTRY. */
uint32_t mp_fib_lookup(const struct mp_region *r, const struct mp_fib_key *key, struct mp_fib_value *value);

/* An entry of several stripes was found by `key`: fills `value` with that of the stripe of a stream sequence number.  A stripe
 * without entry, as there may be one while control changes them, goes nowhere. */
void mp_fib_stripe(const struct mp_region *r, const struct mp_fib_key *key, uint32_t stripe, struct mp_fib_value *value);

/* Marks an entry as used; `index` is what a look-up returned.  If it has been replaced since, the mark is lost. */
void mp_fib_touch(const struct mp_region *r, uint32_t index);

/* ---- writer ---- */

struct mp_fib_writer;           /* process-local: which entries are linked, and the queue of free ones */

/* Attaches as the only writer and repairs what a dead one left.  NULL if there is no memory. */
struct mp_fib_writer *mp_fib_writer_new(struct mp_region *r);
void mp_fib_writer_free(struct mp_fib_writer *w);

/* Adds or replaces; links[] beyond the last one set are left out.  Returns 0, -EINVAL (more words than MP_LINK_WORDS)
 * or -ENOSPC when the table is full; it is with one entry free, so that what stands in it can always be replaced. */
int mp_fib_set(struct mp_fib_writer *w, const struct mp_fib_key *key, const struct mp_fib_value *value);

/* Removes.  Returns 0 or -ENOENT. */
int mp_fib_delete(struct mp_fib_writer *w, const struct mp_fib_key *key);

/* Entries that must have memory behind them before the next `more` sets: the caller reserves pages up to there. */
uint32_t mp_fib_high_water(const struct mp_fib_writer *w, uint32_t more);

/* Walks all entries: `cursor` starts at 0.  Returns 1 and fills key, value and used (cleared if `clear_used`), 0 at the
 * end.  Deleting while walking is fine; what is set while walking is met once, twice or not at all. */
int mp_fib_next(const struct mp_fib_writer *w, uint32_t *cursor, struct mp_fib_key *key, struct mp_fib_value *value,
                uint32_t *used, int clear_used);

/* The same of the used entries only, which are used no more afterwards. */
int mp_fib_next_used(const struct mp_fib_writer *w, uint32_t *cursor, struct mp_fib_key *key);

#endif
