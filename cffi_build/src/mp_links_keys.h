/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_links_keys: what control publishes to the stages beside the forwarding table: links, sender keys of peers, and
 * this node's own keys.
 *
 *   control   mp_*_set / mp_*_clear: the record as one seqlock write, then the table's version is incremented
 *   stage     compares the table's version (mp_published) with that of its own copy, before a burst; if it differs, copies
 *             the records with mp_*_read and keeps the version that it had read *before* copying
 *
 * A read that fails (0) leaves `out` as it was: the stage goes on with the copy it has and tries again at its next
 * burst.  That happens only while control is writing this very record, or if control died in the middle; its
 * successor's mp_links_keys_repair() frees such records and sets everything anew.
 *
 * It knows no cryptography, no socket, and allocates neither link indices nor windows: control does.
 */
#ifndef MP_LINKS_KEYS_H
#define MP_LINKS_KEYS_H

#include "mp_layout.h"

/* Tries of one mp_*_read(): a write lasts some 50 ns, so each further try needs a further write meanwhile. */
#define MP_READ_TRIES 16

/* ---- readers: return 1, or 0 if no consistent copy could be had ---- */

int mp_link_read(const struct mp_region *r, uint32_t index, struct mp_link *out);
int mp_key_read(const struct mp_region *r, uint32_t index, struct mp_key *out);
int mp_sender_read(const struct mp_region *r, struct mp_sender *out);

/* ---- writers: control only.  Return 0, or -EINVAL for an index or value out of bounds ---- */

/* `address` is 4 bytes for AF_INET, 16 for AF_INET6 and ignored for family 0 (no endpoint yet); `port` in host order;
 * `scope` is the interface of an IPv6 link-local address. */
int mp_link_set(struct mp_region *r, uint32_t index, uint32_t node, uint32_t up, uint16_t family,
                const uint8_t *address, uint16_t port, uint32_t scope);
int mp_link_clear(struct mp_region *r, uint32_t index);

/* The key of a peer's epoch.  Its 2 * lanes windows begin at `window`, have memory behind them and are cleared here. */
int mp_key_set(struct mp_region *r, uint32_t index, uint32_t origin, uint8_t epoch, uint8_t sealed, uint16_t lanes,
               uint32_t window, const uint8_t key[MP_KEY_BYTES]);
int mp_key_clear(struct mp_region *r, uint32_t index);

/* This node's keys, that of an epoch in slot epoch & 1.  NULL: no key in that slot, its epoch is ignored.
 * `active_epoch` is that of new datagrams. */
int mp_sender_set(struct mp_region *r, uint32_t origin, uint32_t sealed, uint8_t active_epoch, uint8_t even_epoch,
                  const uint8_t *even_key, uint8_t odd_epoch, const uint8_t *odd_key);

/* Keeps the pages with keys out of swap as long as the calling process lives.  Returns 0 or -errno. */
int mp_keys_lock(struct mp_region *r);

/* Overwrites all keys: the supervisor, when all processes have ended. */
void mp_keys_wipe(struct mp_region *r);

/* Frees what a predecessor left half written.  Returns how many records that were. */
uint32_t mp_links_keys_repair(struct mp_region *r);

#endif
