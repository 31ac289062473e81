/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_unresolved: the first packets of a flow that has no route yet: a small ring in shared memory.
 *
 * An engine may learn of a source by its first packet and make the route then, which takes some round trips.  A program
 * that sends one packet and waits for the answer must not lose it.
 *
 *   classify      finds no route, punts the source to control ─▶ adds the packet, and wakes tun_ingress
 *   tun_ingress   finds another version of the forwarding table, or the packets' time over ─▶ lets classify empty the
 *                 host ring, then puts all packets into it again, before any from the TUN: this is a round
 *   classify      forwards them; or, still without a route, adds them again, or counts them when their time is over
 *
 * A flow stays in order.  Once one of its packets waits, all of them do; its look-up changes only at the beginning of a
 * round; and no other worker runs classify inline while packets wait.
 *
 * One producer, classify's own process; one consumer, tun_ingress.  A full ring refuses a packet, which is dropped as
 * it would be without the ring.
 */
#ifndef MP_UNRESOLVED_H
#define MP_UNRESOLVED_H

#include "mp_ring.h"

#define MP_UNRESOLVED_NS UINT64_C(500000000)   /* some round trips around the world */
#define MP_UNRESOLVED_PER_FLOW 16u  /* so that a stream without members does not take all places */

/* Add a packet.  Returns 0 if there is no place. */
int mp_unresolved_add(struct mp_region *r, uint32_t lane, const uint8_t *bytes, uint32_t length, uint64_t since_ns);

/* Move the oldest packet into a slot.  The ring must not be empty. */
void mp_unresolved_take(struct mp_region *r, uint32_t lane, struct mp_slot *slot, uint16_t round);

static inline uint64_t mp_unresolved_ready(struct mp_lane *l)
{
    return mp_ready(&l->unresolved[0], &l->unresolved[1]);
}

/* Return since when the oldest packet waits.  The ring must not be empty. */
static inline uint64_t mp_unresolved_since_ns(struct mp_region *r, uint32_t lane)
{
    return mp_unresolved(r, lane, mp_position(&mp_lane(r, lane)->unresolved[1]))->since_ns;
}

#endif
