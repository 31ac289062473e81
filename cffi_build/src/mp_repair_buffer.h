/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_buffer: the datagrams that a lane's overlay_egress has sent, or kept for who may lack them, and not given back.
 *
 * While some forwarding entry asks for repair, overlay_egress gives slots back late (mp_release): three quarters of a
 * ring stay its own.  So what it sends once more lies where it was sealed or received, nothing is copied, and no
 * producer can write there meanwhile: the slots are not its to fill.  The host ring has what this node sealed, the
 * overlay ring what others did.
 */
#ifndef MP_REPAIR_BUFFER_H
#define MP_REPAIR_BUFFER_H

#include <sys/uio.h>

#include "mp_layout.h"

#define MP_REPAIR_BUFFER_SPAN 1024u   /* numbers of one order lie this close together, or the later ones are left out */

/* How many slots that it has passed overlay_egress keeps of a ring of so many. */
static inline uint64_t mp_repair_buffer_slots(const struct mp_region *r, uint32_t slots)
{
    return atomic_load_explicit(&mp_published(r)->repairing, memory_order_relaxed) ? slots - slots / 4u : 0;
}

/* The datagrams of an order that this lane has: whole, as they left or came, the newest first.  Only for the lane's
 * overlay_egress, and good until it releases slots. */
uint32_t mp_repair_buffer_find(const struct mp_region *r, uint32_t lane, const struct mp_repair_request *order,
                         struct iovec out[MP_REPAIR_REQUEST_NUMBERS]);

#endif
