/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_unresolved: the first packets of a flow that no route leads anywhere for yet: a small ring in shared memory.
 *
 * An engine may learn of a source by its first packet and make the route then, which takes some round trips; a program
 * that says one thing and waits for the answer must not lose it.
 *
 *   classify      has no route, and asks control ──▶ puts the packet in, and wakes tun_ingress
 *   tun_ingress   sees another forwarding table, or that the time is over ──▶ lets classify empty the host ring, then
 *                 puts all into it again, before anything that the TUN has: a round
 *   classify      forwards them; or has no route still: puts them in again, or when their time is over counts them
 *
 * A flow stays in order, as all of its packets wait once one does: it gets a route at the beginning of a round alone,
 * and no borrower runs classify while something waits.
 *
 * One producer, classify's own process; one consumer, tun_ingress.  A full ring refuses, which is a drop as without it.
 */
#ifndef MP_UNRESOLVED_H
#define MP_UNRESOLVED_H

#include "mp_ring.h"

#define MP_UNRESOLVED_NS UINT64_C(500000000)   /* some round trips around the world */
#define MP_UNRESOLVED_PER_FLOW 16u                 /* of one flow: a stream that nobody wants does not take all places */

/* Keeps a packet; returns 0 if there is no place. */
int mp_unresolved_add(struct mp_region *r, uint32_t lane, const uint8_t *bytes, uint32_t length, uint64_t since_ns);

/* Takes the oldest out into a slot, if that is ready. */
void mp_unresolved_take(struct mp_region *r, uint32_t lane, struct mp_slot *slot, uint16_t round);

static inline uint64_t mp_unresolved_ready(struct mp_lane *l)
{
    return mp_ready(&l->waiting[0], &l->waiting[1]);
}

/* Since when the oldest waits; only while one does. */
static inline uint64_t mp_unresolved_since_ns(struct mp_region *r, uint32_t lane)
{
    return mp_unresolved(r, lane, mp_position(&mp_lane(r, lane)->waiting[1]))->since_ns;
}

#endif
