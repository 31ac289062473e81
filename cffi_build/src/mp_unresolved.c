/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_unresolved: both sides of the ring.  See mp_unresolved.h.
 */
#include "mp_unresolved.h"

#include <string.h>

int mp_unresolved_add(struct mp_region *r, uint32_t lane, const uint8_t *bytes, uint32_t length, uint64_t since_ns)
{
    struct mp_lane *l = mp_lane(r, lane);
    uint64_t at = mp_position(&l->unresolved[0]);
    /* acquire RING_PUBLISH: pairs with mp_publish in mp_unresolved_take; the place is read no more */
    if (at - atomic_load_explicit(&l->unresolved[1].at, memory_order_acquire) >= MP_UNRESOLVED)
        return 0;
    struct mp_unresolved *place = mp_unresolved(r, lane, at);
    place->since_ns = since_ns;
    place->length = length;
    memcpy(place + 1, bytes, length);
    mp_publish(&l->unresolved[0], 1);
    return 1;
}

void mp_unresolved_take(struct mp_region *r, uint32_t lane, struct mp_slot *slot, uint16_t round)
{
    struct mp_cursor *own = &mp_lane(r, lane)->unresolved[1];
    const struct mp_unresolved *place = mp_unresolved(r, lane, mp_position(own));
    slot->length = place->length;
    slot->words = 0;
    slot->round = round;
    slot->unresolved_ns = place->since_ns;
    memcpy(mp_slot_packet(slot), place + 1, place->length);
    mp_publish(own, 1);
}
