/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_reorder: puts the datagrams of a stream into order before they are delivered.  Private to overlay_ingress.
 *
 * Packets that take stripes arrive through trees of different depth, so those sent in one burst overtake each other,
 * and a player without a buffer of its own would show errors.  A datagram that is early is held for `hold_ns` at the
 * most: as long as the trees of a network differ, or with repair as long as a lost datagram takes to be repaired.  A
 * datagram that comes later is delivered late.
 *
 *   the next number      is emitted, and those that were held behind it
 *   a later number       is held, unless no place is free
 *   an earlier number    is emitted at once: the wait for it was over
 *   a number far away    the stream begins anew: held datagrams are emitted first.  The datagram may have overtaken
 *                        some itself.  It is held for those, unless it is number 0, with which each stream begins
 *
 * It orders what one lane receives.  With several lanes the datagrams of peers arrive in different ones, and none is
 * held.
 */
#ifndef MP_REORDER_H
#define MP_REORDER_H

#include "mp_layout.h"

#define MP_REORDER_WINDOW 256u  /* numbers ahead of the next one: a fifth of a second of 11 Mbit/s */
#define MP_REORDER_BEHIND 32u   /* numbers expected before the first to arrive: a burst that fills a player's buffer */
#define MP_REORDER_BEGIN_NS UINT64_C(20000000) /* trees of one network differ by less; a new member waits so long */
#define MP_REORDER_HELD 1024u   /* datagrams held at one instant, of all streams, and of 2 MiB in all */
#define MP_REORDER_BYTES (2u << 20)
#define MP_REORDER_STREAMS 64u  /* streams with held datagrams at one instant; further ones are not ordered */

struct mp_reorder;

/* Deliver a datagram.  `bytes` stay valid until mp_reorder_recycle(). */
typedef void mp_reorder_emit(void *context, const uint8_t *bytes, uint32_t length);

/* Make one for datagrams of up to `bytes_max`.  NULL: no memory. */
struct mp_reorder *mp_reorder_new(uint32_t bytes_max, mp_reorder_emit *emit, void *context);
void mp_reorder_free(struct mp_reorder *s);

/* Add datagram `number` of the stream that has the track with index `which` and the name `name`. */
void mp_reorder_add(struct mp_reorder *s, uint32_t which, uint64_t name, uint32_t number, const uint8_t *bytes,
                      uint32_t length, uint64_t now_ns, uint64_t hold_ns);

/* Emit the datagrams whose time is over. */
void mp_reorder_expire(struct mp_reorder *s, uint64_t now_ns);

/* Return when mp_reorder_expire() is due; UINT64_MAX: nothing is held. */
uint64_t mp_reorder_due_ns(const struct mp_reorder *s);

/* Free the places of the emitted datagrams: they are delivered. */
void mp_reorder_recycle(struct mp_reorder *s);

#endif
