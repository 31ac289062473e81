/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_requests: a small ring in shared memory of the datagrams that overlay_egress is to retransmit.
 *
 * Control is the only producer.  overlay_egress of each lane reads each request, as control does not know in the
 * rings of which lane a datagram lies.  A place is free when the slowest lane has carried out its request.  A full
 * ring refuses a request; the peer that sent it requests the datagrams again, from this node or another.
 */
#ifndef MP_REPAIR_REQUESTS_H
#define MP_REPAIR_REQUESTS_H

#include "mp_layout.h"

/* Add a request for all lanes.  Returns 0, -EINVAL (too many numbers, no such link or stream) or -ENOSPC.  Counts the
 * numbers that are requested and those that are refused. */
int mp_repair_request_add(struct mp_region *r, uint32_t link, uint32_t origin, uint32_t stream, const uint32_t *numbers,
                          uint32_t count);

/* Return how many requests a lane that has carried out `done` has before it. */
static inline uint64_t mp_repair_requests_ready(const struct mp_region *r, uint64_t done)
{
    /* acquire REPAIR_REQUEST_ADD: pairs with mp_repair_request_add; the request is written */
    return atomic_load_explicit(&mp_published(r)->requests, memory_order_acquire) - done;
}

#endif
