/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_requests: control's side of the ring.  See mp_repair_requests.h.
 */
#include "mp_repair_requests.h"

#include <errno.h>
#include <string.h>

#include "mp_counter.h"

static uint64_t least_done(const struct mp_region *r)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t lane = 0; lane < r->geometry.lanes; lane++) {
        /* acquire REPAIR_REQUEST_DONE: pairs with requests_burst of overlay_egress, which reads the request no more */
        uint64_t done = atomic_load_explicit(&mp_lane(r, lane)->requests.at, memory_order_acquire);
        least = done < least ? done : least;
    }
    return least;
}

int mp_repair_request_add(struct mp_region *r, uint32_t link, uint32_t origin, uint32_t stream, const uint32_t *numbers,
                          uint32_t count)
{
    struct mp_counters *c = mp_control_counters(r);
    _Atomic uint64_t *requests = &mp_published(r)->requests;
    uint64_t at = atomic_load_explicit(requests, memory_order_relaxed);
    if (count > MP_REPAIR_REQUEST_NUMBERS || link >= MP_LINKS_MAX || !stream || stream >= MP_STREAMS)
        return -EINVAL;
    mp_count(c, MP_COUNT_resend_asked, count);
    if (at - least_done(r) >= MP_REPAIR_REQUESTS) {
        mp_count(c, MP_COUNT_resend_refused, count);
        return -ENOSPC;
    }
    struct mp_repair_request *request = &mp_repair_requests(r)[at % MP_REPAIR_REQUESTS];
    request->link = link;
    request->origin = origin;
    request->stream = stream;
    request->count = count;
    memcpy(request->number, numbers, count * sizeof *numbers);
    /* release REPAIR_REQUEST_ADD: pairs with mp_repair_requests_ready */
    atomic_store_explicit(requests, at + 1, memory_order_release);
    return 0;
}
