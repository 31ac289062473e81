/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_buffer: the datagrams that overlay_egress of a lane can retransmit, which are those in its last slots.
 *
 * While some forwarding entry has MP_ENTRY_REPAIR, overlay_egress frees slots late (mp_release): it keeps three
 * quarters of each ring.  A datagram is sent again from where it was sealed or received.  Nothing is copied, and no
 * producer can write there, as the slots are not free.  The host ring has the datagrams that this node sealed, the
 * overlay ring those of other nodes.
 */
#ifndef MP_REPAIR_BUFFER_H
#define MP_REPAIR_BUFFER_H

#include <sys/uio.h>

#include "mp_layout.h"

#define MP_REPAIR_BUFFER_SPAN 1024u /* numbers of one request farther than this from the lowest are left out */

/* Return how many passed slots overlay_egress keeps of a ring of `slots`. */
static inline uint64_t mp_repair_buffer_slots(const struct mp_region *r, uint32_t slots)
{
    return atomic_load_explicit(&mp_published(r)->repairing, memory_order_relaxed) ? slots - slots / 4u : 0;
}

/* Find the datagrams of a request that this lane has: whole, as they were sent or received, the newest first.  Returns
 * how many.  Only for overlay_egress of the lane; `out` is valid until it releases slots. */
uint32_t mp_repair_buffer_find(const struct mp_region *r, uint32_t lane, const struct mp_repair_request *request,
                               struct iovec out[MP_REPAIR_REQUEST_NUMBERS]);

#endif
