/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_punt: a worker's queue of packets and events for control.  Process-local.
 *
 *   stage     mp_punt_add: limited by a token bucket for each kind, and by the places of the queue
 *   worker    mp_worker_run() returns when something is queued; mp_punt_take until the queue is empty, and sends each
 *             to control; mp_punt_lost where that failed
 *
 * It does not know what the bytes mean.  A punt that is refused or lost is counted as a drop.
 */
#ifndef MP_PUNT_H
#define MP_PUNT_H

#include <stdint.h>

#define MP_PUNT_BYTES 9216u     /* a membership report fills one packet at the most, of the largest MTU */

enum mp_punt_kind {
    MP_PUNT_MEMBERSHIP = 1,     /* an IGMP or MLD packet */
    MP_PUNT_SOURCE,             /* the first packet of a flow without a forwarding entry: at most 64 bytes */
    MP_PUNT_ENDPOINT,           /* an endpoint of a peer has answered a probe: u32 link, struct mp_endpoint */
    MP_PUNT_GAP,                /* missing datagrams of a stream: struct mp_repair_gap */
    MP_PUNT_FORGERY,            /* a peer proved that others use this node's key, see mp_forgery.h: u32 its link */
    MP_PUNT_CANDIDATE,          /* a probe or echo of a peer came from another endpoint: as MP_PUNT_ENDPOINT */
};

struct mp_punts;
struct mp_worker;

int mp_punts_init(struct mp_worker *w);
void mp_punts_exit(struct mp_worker *w);

/* Queue bytes for control.  Returns 0 if a limit refuses them, which is counted. */
int mp_punt_add(struct mp_worker *w, uint32_t stage, uint32_t kind, const void *bytes, uint32_t length);

/* Return the number of queued punts. */
uint32_t mp_punts_ready(const struct mp_worker *w);

/* Take the oldest punt: sets `kind`, copies up to `size` bytes.  Returns their number, 0 if the queue is empty. */
uint32_t mp_punt_take(struct mp_worker *w, uint32_t *kind, uint8_t *out, uint32_t size);

/* Count the punt just taken as dropped: control is away, or its queue is full. */
void mp_punt_lost(struct mp_worker *w, uint32_t kind);

#endif
