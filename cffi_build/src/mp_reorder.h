/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_reorder: puts the datagrams of a stream back into their order before they are delivered.  Private to overlay_ingress.
 *
 * Packets that take stripes come by trees of different depth, so those sent in one breath overtake each other, and a
 * player without a buffer of its own would see errors.  What comes too early is held, for `hold_ns` at the most: as long
 * as trees differ, or with repair as long as a lost datagram takes to come.  What comes after that is delivered late.
 *
 *   the next one         is emitted, and what was held behind it
 *   a later one          is held, unless no place is free
 *   an earlier one       is emitted at once: it was given up
 *   one from elsewhere   the stream begins anew; what was held is emitted first.  It may have overtaken some itself: it is
 *                        held for those, unless it is number 0, with which every stream begins at its origin
 *
 * It orders what one lane gets.  With several lanes, peers' datagrams come by different ones, and nothing is held.
 */
#ifndef MP_REORDER_H
#define MP_REORDER_H

#include "mp_layout.h"

#define MP_REORDER_WINDOW 256u /* numbers ahead of the next one: a fifth of a second of 11 Mbit/s */
#define MP_REORDER_BEHIND 32u  /* numbers before the first that comes: of a burst, as a player's buffer is filled with */
#define MP_REORDER_BEGIN_NS UINT64_C(20000000) /* trees of one network differ by less; whoever joins waits so long */
#define MP_REORDER_HELD 1024u  /* datagrams held at one instant, of all streams, and of 2 MiB in all */
#define MP_REORDER_BYTES (2u << 20)
#define MP_REORDER_STREAMS 64u /* streams in which something is missing at one instant; others are not held up */

struct mp_reorder;

/* Delivers a datagram; `bytes` stay where they are until mp_reorder_recycle(). */
typedef void mp_reorder_emit(void *context, const uint8_t *bytes, uint32_t length);

/* For datagrams of up to `bytes_max`; NULL if there is no memory. */
struct mp_reorder *mp_reorder_new(uint32_t bytes_max, mp_reorder_emit *emit, void *context);
void mp_reorder_free(struct mp_reorder *s);

/* Takes datagram `number` of the stream that has the place `which` (of MP_REPAIR_TRACKS) and that name there. */
void mp_reorder_add(struct mp_reorder *s, uint32_t which, uint64_t name, uint32_t number, const uint8_t *bytes,
                      uint32_t length, uint64_t now_ns, uint64_t hold_ns);

/* Emits what has been held for long enough. */
void mp_reorder_expire(struct mp_reorder *s, uint64_t now_ns);

/* When something will have been; UINT64_MAX: nothing is held. */
uint64_t mp_reorder_due_ns(const struct mp_reorder *s);

/* What has been emitted is delivered: its places are free again. */
void mp_reorder_recycle(struct mp_reorder *s);

#endif
