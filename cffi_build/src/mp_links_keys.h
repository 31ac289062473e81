/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_links_keys: the tables of links and sender keys, and the sender keys of this node, which control publishes.
 *
 *   control   mp_*_set, mp_*_clear: one seqlock write of the record, then the version of its table is incremented
 *   stage     before a burst, compares the version of the table (mp_published) with that of its own copy; if they
 *             differ, copies the records with mp_*_read and keeps the version that it had read *before* it copied
 *
 * A read that fails (0) leaves `out` as it was.  The stage goes on with the copy that it has and tries again at its
 * next burst.  That happens only while control is writing this record, or if control died in the middle of it.  The
 * successor then frees such records by mp_links_keys_repair() and sets all of them anew.
 *
 * It knows no cryptography and no socket.  Control allocates link indices and windows.
 */
#ifndef MP_LINKS_KEYS_H
#define MP_LINKS_KEYS_H

#include "mp_layout.h"

/* Attempts of one mp_*_read().  A write takes some 50 ns, so each further attempt needs a further write meanwhile. */
#define MP_READ_TRIES 16

/* ---- readers: return 1, or 0 without a consistent copy ---- */

int mp_link_read(const struct mp_region *r, uint32_t index, struct mp_link *out);
int mp_key_read(const struct mp_region *r, uint32_t index, struct mp_key *out);
int mp_sender_read(const struct mp_region *r, struct mp_sender *out);

/* ---- writers: control only.  Return 0, or -EINVAL for an index or value out of bounds ---- */

/* Set all of a link but its generation.  An endpoint of family 0: there is none. */
int mp_link_set(struct mp_region *r, uint32_t index, const struct mp_link *link);
int mp_link_clear(struct mp_region *r, uint32_t index);

/* Set the sender key of a peer's epoch.  Its 2 * lanes windows begin at `window` and must have memory behind them; they
 * are cleared here. */
int mp_key_set(struct mp_region *r, uint32_t index, uint32_t origin, uint8_t epoch, uint8_t sealed, uint16_t lanes,
               uint32_t window, const uint8_t key[MP_KEY_BYTES]);
int mp_key_clear(struct mp_region *r, uint32_t index);

/* Set the sender keys of this node: the key of an even epoch and of an odd one.  NULL: no key, the epoch is ignored.
 * New datagrams are sealed with the key of `active_epoch`. */
int mp_sender_set(struct mp_region *r, uint32_t origin, uint32_t sealed, uint8_t active_epoch, uint8_t even_epoch,
                  const uint8_t *even_key, uint8_t odd_epoch, const uint8_t *odd_key);

/* Keep the pages with keys out of swap as long as the calling process lives.  Returns 0 or -errno. */
int mp_keys_lock(struct mp_region *r);

/* Overwrite all keys.  Called by the supervisor when all processes have ended. */
void mp_keys_wipe(struct mp_region *r);

/* Free the records that a dead predecessor left half written.  Returns how many. */
uint32_t mp_links_keys_repair(struct mp_region *r);

#endif
