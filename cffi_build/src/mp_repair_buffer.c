/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_buffer: finding datagrams in the slots that overlay_egress keeps.  See mp_repair_buffer.h.
 */
#include "mp_repair_buffer.h"

#include "mp_packet.h"

struct search {
    const struct mp_repair_request *order;
    uint32_t first;             /* the lowest number */
    uint64_t wanted[MP_REPAIR_BUFFER_SPAN / 64];
    struct iovec *out;
    uint32_t left, found;
};

static void search_begin(struct search *s, const struct mp_repair_request *order, struct iovec *out)
{
    uint32_t count = order->count < MP_REPAIR_REQUEST_NUMBERS ? order->count : MP_REPAIR_REQUEST_NUMBERS;
    *s = (struct search){ .order = order, .out = out, .first = count ? order->number[0] : 0 };
    for (uint32_t i = 1; i < count; i++)
        if ((int32_t)(order->number[i] - s->first) < 0)
            s->first = order->number[i];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t n = order->number[i] - s->first;
        if (n < MP_REPAIR_BUFFER_SPAN && !(s->wanted[n / 64] >> n % 64 & 1)) {
            s->wanted[n / 64] |= UINT64_C(1) << n % 64;
            s->left++;
        }
    }
}

/* A datagram of the order's stream: takes it if it is one of those wanted. */
static void look_at(struct search *s, uint8_t *datagram, uint32_t length)
{
    struct mp_header h;
    if (mp_header_read(datagram, length, &h) || h.type != MP_TYPE_DATA || h.origin != s->order->origin)
        return;
    uint32_t n = h.stream_sequence - s->first;
    if (n >= MP_REPAIR_BUFFER_SPAN || !(s->wanted[n / 64] >> n % 64 & 1))
        return;
    s->wanted[n / 64] &= ~(UINT64_C(1) << n % 64);
    s->out[s->found++] = (struct iovec){ datagram, length };
    s->left--;
}

/* The slots that the last stage has passed and not given back. */
struct kept {
    uint64_t at, freed;
};

static struct kept kept_by(struct mp_cursor *own)
{
    return (struct kept){ .at = atomic_load_explicit(&own->at, memory_order_relaxed),
                          .freed = atomic_load_explicit(&own->freed, memory_order_relaxed) };
}

static void search_host(struct search *s, const struct mp_region *r, uint32_t lane)
{
    struct kept kept = kept_by(&mp_lane(r, lane)->host[2]);
    while (kept.at != kept.freed && s->left) {
        struct mp_slot *slot = mp_host_slot(r, lane, --kept.at);
        if (slot->words && slot->stream == s->order->stream)
            look_at(s, mp_slot_packet(slot) - MP_HEADER_BYTES, slot->length);
    }
}

static void search_overlay(struct search *s, const struct mp_region *r, uint32_t lane)
{
    struct kept kept = kept_by(&mp_lane(r, lane)->overlay[1]);
    while (kept.at != kept.freed && s->left) {
        struct mp_super *super = mp_overlay_slot(r, lane, --kept.at);
        uint32_t offset = 0;
        for (uint32_t i = 0; super->kept && i < MP_RUNS_MAX && offset < super->length; i++, offset += super->segment) {
            uint32_t left = super->length - offset;
            if (super->stream[i] == s->order->stream)
                look_at(s, super->data + offset, left < super->segment ? left : super->segment);
        }
    }
}

uint32_t mp_repair_buffer_find(const struct mp_region *r, uint32_t lane, const struct mp_repair_request *order,
                         struct iovec out[MP_REPAIR_REQUEST_NUMBERS])
{
    struct search s;
    search_begin(&s, order, out);
    search_overlay(&s, r, lane);
    search_host(&s, r, lane);
    return s.found;
}
