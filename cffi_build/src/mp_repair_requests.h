/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_requests: what control wants overlay_egress to send once more: a small ring in shared memory.
 *
 * One producer, control; every lane's overlay_egress reads every order, as it cannot be known in whose rings a datagram
 * is.  Room is what the slowest lane has carried out.  A full ring refuses; the peer that asked will ask again, or another.
 */
#ifndef MP_REPAIR_REQUESTS_H
#define MP_REPAIR_REQUESTS_H

#include "mp_layout.h"

/* Gives an order to all lanes.  Returns 0, -EINVAL (too many numbers, no such link or stream) or -ENOSPC; counts what was
 * asked for and what is refused. */
int mp_repair_request_add(struct mp_region *r, uint32_t link, uint32_t origin, uint32_t stream, const uint32_t *numbers,
                 uint32_t count);

/* Orders that a lane which has carried out `done` has not. */
static inline uint64_t mp_repair_requests_ready(const struct mp_region *r, uint64_t done)
{
    /* acquire pairs with the release in mp_repair_request_add: the order is written */
    return atomic_load_explicit(&mp_published(r)->orders, memory_order_acquire) - done;
}

#endif
