/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_forgery: reports about windows, and the check of them.  See mp_forgery.h.
 */
#include "mp_forgery.h"

#include "mp_ring.h"
#include "mp_seal.h"

#define FORM 1u

void mp_forgery_write(const struct mp_rx_peers *s, const struct mp_key *key, uint64_t sequence,
                      uint8_t out[MP_FORGERY_BYTES])
{
    struct mp_window *window = mp_rx_peers_window(s, key, sequence);
    uint32_t block = window ? mp_window_highest(window, sequence) : 0;
    out[0] = window ? FORM : 0;
    out[1] = key->epoch;
    out[2] = (uint8_t)(sequence >> 56);
    out[3] = 0;
    mp_put16(out + 4, block >> 16);
    mp_put16(out + 6, block);
}

int mp_forgery_is_proven(const struct mp_rx_peers *s, const uint8_t report[MP_FORGERY_BYTES])
{
    uint32_t space = report[2], probes = space >= MP_LANES_MAX, lane = space - (probes ? MP_LANES_MAX : 0);
    uint32_t block = (uint32_t)mp_get16(report + 4) << 16 | mp_get16(report + 6);
    const struct mp_sender *sender = &s->sender;
    if (report[0] != FORM || report[1] != sender->epoch[sender->active & 1] || lane >= s->w->region->geometry.lanes)
        return 0;
    struct mp_lane *l = mp_lane(s->w->region, lane);
    /* A number is counted before it is used: each block that has one is at most this one. */
    uint32_t own = (uint32_t)(mp_position(probes ? &l->probe_sequence : &l->data_sequence) >> 5), ahead = block - own;
    return ahead && ahead < UINT32_C(1) << 31;
}
