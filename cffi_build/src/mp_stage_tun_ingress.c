/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * tun_ingress: moves packets from the TUN queue into the host ring.  It looks at nothing.
 *
 * When the ring is full it stops reading; the TUN queue then pushes back on the programs, and what the kernel drops
 * there is counted at the interface.
 */
#include "mp_tun.h"
#include "mp_worker.h"

#define BURST 64u               /* reads before the slots are handed on: a full run for overlay_egress */

uint32_t mp_tun_ingress_burst(struct mp_worker *w)
{
    struct mp_cursor *own = &w->lane->host[0];
    struct mp_counters *c = w->count[MP_TUN_INGRESS];
    const struct mp_geometry *g = &w->region->geometry;
    uint64_t room = mp_room(own, &w->lane->host[2], g->host_slots), at = mp_position(own), bytes = 0;
    uint32_t size = g->host_slot_bytes - (uint32_t)sizeof(struct mp_slot), count = 0;
    while (count < BURST && count < room) {
        struct mp_slot *slot = mp_host_slot(w->region, w->config.lane, at + count);
        int n = mp_tun_read(w->config.tun, mp_slot_packet(slot), size);
        if (n <= 0)
            break;
        slot->length = (uint32_t)n;
        slot->words = 0;
        bytes += (uint32_t)n;
        count++;
    }
    if (!count)
        return 0;
    mp_publish(own, count);
    mp_wake(w, MP_CLASSIFY);
    mp_count(c, MP_COUNT_tun_rx_packets, count);
    mp_count(c, MP_COUNT_tun_rx_bytes, bytes);
    mp_count(c, MP_COUNT_tun_rx_wakeups, 1);
    w->window_packets += count;
    w->read_since_sleep += count;
    return count;
}
