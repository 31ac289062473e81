/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_fib: the forwarding table.  One writer (control), any number of readers (classify, overlay_ingress), no lock.
 *
 * It is a hash table with chains: a bucket holds the index of an entry, an entry the index of the next.  A reachable
 * entry does not change, but for that index.  Each change is made at the head of a chain:
 *
 *   add       fill a free entry, link it as the head of the chain                              version + 1
 *   replace   fill a free entry with the new value, link it as the head, version + 1, unlink the old one
 *   delete    unlink                                                                           version + 1
 *
 * A reader therefore finds the new entry or the old one.  An unlinked entry keeps its contents and its link for
 * readers that stand on it, until it is filled again, as late as possible.  A reader that meets such an entry starts
 * over: its generation is odd (it is being filled) or has changed, or it now belongs to another bucket.  A reader
 * that reaches the end of a chain has proof that the key is absent only if the head of the chain is still the one
 * that it began with.
 *
 * A writer that dies at any point leaves the table readable.  Its successor finds the free entries by a walk along the
 * chains.
 *
 * A stream whose packets alternate between several trees has an entry for each stripe.  The entry of stripe 0 holds the
 * number of stripes; the keys of the others differ from it in the stripe only.
 *
 * It knows no groups, engines or packets: keys are bytes, values are link sets.  The order of look-ups, (S,G) before
 * (*,G), is in mp_lookup.h.
 */
#ifndef MP_FIB_H
#define MP_FIB_H

#include "mp_layout.h"

/* Restarts of one look-up: see mp_fib_lookup() in mp_fib.c. */
#define MP_FIB_RESTARTS 1024u

/* Freed entries rest until so many are resting, or until all entries have been used.  A reader is disturbed only if one
 * look-up takes as long as so many changes of control. */
#define MP_FIB_RESTING 1024u

struct mp_fib_value {
    uint32_t stream;
    uint8_t flags;
    uint8_t stripes;
    uint8_t words;
    uint64_t links[MP_LINK_WORDS];
};

/* Look up a key.  Returns the index of the entry and fills `value` (links[] up to words), or returns MP_NO_ENTRY. */
uint32_t mp_fib_lookup(const struct mp_region *r, const struct mp_fib_key *key, struct mp_fib_value *value);

/* Look up the entry of another stripe than 0 of `key`.  A stripe without an entry, which can occur while control
 * changes them, has no links. */
void mp_fib_stripe(const struct mp_region *r, const struct mp_fib_key *key, uint32_t stripe,
                   struct mp_fib_value *value);

/* Mark an entry as used.  If it was replaced after the look-up that returned `index`, the mark is lost. */
void mp_fib_touch(const struct mp_region *r, uint32_t index);

/* ---- writer ---- */

struct mp_fib_writer;           /* process-local: the set of linked entries, and the queue of free ones */

/* Attach as the only writer, and repair the table that a dead one left.  NULL: no memory. */
struct mp_fib_writer *mp_fib_writer_new(struct mp_region *r);
void mp_fib_writer_free(struct mp_fib_writer *w);

/* Add or replace an entry; words of links[] beyond the last link are left out.  Returns 0, -EINVAL (more words than
 * MP_LINK_WORDS) or -ENOSPC (full).  One entry always stays free, so that each entry can be replaced. */
int mp_fib_set(struct mp_fib_writer *w, const struct mp_fib_key *key, const struct mp_fib_value *value);

/* Delete an entry.  Returns 0 or -ENOENT. */
int mp_fib_delete(struct mp_fib_writer *w, const struct mp_fib_key *key);

/* Return how many entries must have memory behind them before the next `more` sets: the caller reserves the pages. */
uint32_t mp_fib_high_water(const struct mp_fib_writer *w, uint32_t more);

/* Walk along all entries: `cursor` starts at 0.  Returns 1 and fills key, value and used (cleared if `clear_used`),
 * or 0 at the end.  Entries may be deleted during the walk; an entry set during the walk is met once, twice or not at
 * all. */
int mp_fib_next(const struct mp_fib_writer *w, uint32_t *cursor, struct mp_fib_key *key, struct mp_fib_value *value,
                uint32_t *used, int clear_used);

/* Walk along the used entries only, and clear their marks. */
int mp_fib_next_used(const struct mp_fib_writer *w, uint32_t *cursor, struct mp_fib_key *key);

#endif
