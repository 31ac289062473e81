/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_seal: AES-256-GCM over overlay datagrams, and the replay window.
 *
 * A datagram is header ‖ sealed inner packets ‖ tag.  Nonce = origin ‖ sequence, taken from the header; the header with
 * its hop limit zeroed is authenticated along.  A sender never uses a sequence number twice under one key: classify
 * takes numbers from shared memory before it uses them (mp_lane.data_sequence), and every start makes a new key.
 */
#ifndef MP_SEAL_H
#define MP_SEAL_H

#include "mp_gcm.h"
#include "mp_packet.h"

_Static_assert(MP_KEY_BYTES == MP_GCM_KEY_BYTES && MP_TAG_BYTES == MP_GCM_TAG_BYTES, "one cipher");

/* Encrypts `length` bytes behind the header in place and writes the tag behind them.  Returns 0 or -EIO. */
int mp_seal(struct mp_cipher *c, uint8_t *header, uint32_t length);

/* Decrypts what lies between header and tag (`length` bytes) into `out`.  Returns 0 or MP_DROP_authentication. */
int mp_open(struct mp_cipher *c, const uint8_t *header, uint32_t length, uint8_t *out);

/* ---- replay window: the last 65,536 sequence numbers of one (origin, epoch, space) ----
 *
 * Word i holds numbers of one block b of 32 with b % MP_WINDOW_WORDS == i: the block's low 32 bits and a bit for each
 * number (after the idea of RFC 6479, but the block is named in the word, so one compare-and-swap is a whole
 * update and nothing has to be cleared as the window moves).  Wraps after 2^37 datagrams of one key.
 */

/* 1 if the number has not been seen; changes nothing. */
int mp_window_is_fresh(struct mp_window *w, uint64_t sequence);

/* Marks the number; 1 if it was fresh, 0 if it was seen, or older than the window. */
int mp_window_take(struct mp_window *w, uint64_t sequence);

#endif
