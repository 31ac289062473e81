/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_seal: AES-256-GCM over overlay datagrams, and the replay window.
 *
 * A datagram is header ‖ sealed inner packets ‖ tag.  Nonce = origin ‖ sequence, both from the header.  The header
 * with its hop limit zeroed is the associated data.  A sender never uses a sequence number twice under one key:
 * classify increments the number in shared memory before it uses it (mp_lane.data_sequence), and each start makes a
 * new key.
 */
#ifndef MP_SEAL_H
#define MP_SEAL_H

#include "mp_gcm.h"
#include "mp_packet.h"

_Static_assert(MP_KEY_BYTES == MP_GCM_KEY_BYTES && MP_TAG_BYTES == MP_GCM_TAG_BYTES, "one cipher");

/* Encrypt `length` bytes behind the header in place, and write the tag behind them.  Returns 0 or -EIO. */
int mp_seal(struct mp_cipher *c, uint8_t *header, uint32_t length);

/* Decrypt the `length` bytes between header and tag into `out`.  Returns 0 or MP_DROP_authentication. */
int mp_open(struct mp_cipher *c, const uint8_t *header, uint32_t length, uint8_t *out);

/* ---- replay window: the last 65,536 sequence numbers of one (origin, epoch, space) ----
 *
 * Word i holds the numbers of one block b of 32 with b % MP_WINDOW_WORDS == i: the low 32 bits of b, and a bit for each
 * number.  This follows RFC 6479, but the word names its block: one compare-and-swap is a whole update, and nothing is
 * cleared as the window moves.  It wraps after 2^37 datagrams of one key.
 */

/* Return 1 if the number is fresh.  Changes nothing. */
int mp_window_is_fresh(struct mp_window *w, uint64_t sequence);

/* Mark the number.  Returns 1 if it was fresh, 0 if it was marked before or is older than the window. */
int mp_window_take(struct mp_window *w, uint64_t sequence);

/* Return the low 32 bits of the block that is farthest ahead of the number's own block; that one if none is ahead. */
uint32_t mp_window_highest(struct mp_window *w, uint64_t sequence);

#endif
