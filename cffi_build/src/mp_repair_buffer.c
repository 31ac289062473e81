/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_buffer: the search in the slots that overlay_egress keeps.  See mp_repair_buffer.h.
 */
#include "mp_repair_buffer.h"

#include "mp_packet.h"

struct search {
    const struct mp_repair_request *request;
    uint32_t first;             /* lowest number of the request */
    uint64_t requested[MP_REPAIR_BUFFER_SPAN / 64];
    struct iovec *out;
    uint32_t left, found;
};

static void search_begin(struct search *s, const struct mp_repair_request *request, struct iovec *out)
{
    uint32_t count = request->count < MP_REPAIR_REQUEST_NUMBERS ? request->count : MP_REPAIR_REQUEST_NUMBERS;
    *s = (struct search){ .request = request, .out = out, .first = count ? request->number[0] : 0 };
    for (uint32_t i = 1; i < count; i++)
        if ((int32_t)(request->number[i] - s->first) < 0)
            s->first = request->number[i];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t n = request->number[i] - s->first;
        if (n < MP_REPAIR_BUFFER_SPAN && !(s->requested[n / 64] >> n % 64 & 1)) {
            s->requested[n / 64] |= UINT64_C(1) << n % 64;
            s->left++;
        }
    }
}

/* Take the datagram if its number is requested and was not found yet. */
static void take_if_requested(struct search *s, uint8_t *datagram, uint32_t length)
{
    struct mp_header h;
    if (mp_header_read(datagram, length, &h) || h.type != MP_TYPE_DATA || h.origin != s->request->origin)
        return;
    uint32_t n = h.stream_sequence - s->first;
    if (n >= MP_REPAIR_BUFFER_SPAN || !(s->requested[n / 64] >> n % 64 & 1))
        return;
    s->requested[n / 64] &= ~(UINT64_C(1) << n % 64);
    s->out[s->found++] = (struct iovec){ datagram, length };
    s->left--;
}

/* The slots that the last stage has passed and not freed. */
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
        if (slot->words && slot->stream == s->request->stream)
            take_if_requested(s, mp_slot_packet(slot) - MP_HEADER_BYTES, slot->length);
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
            if (super->stream[i] == s->request->stream)
                take_if_requested(s, super->data + offset, left < super->segment ? left : super->segment);
        }
    }
}

uint32_t mp_repair_buffer_find(const struct mp_region *r, uint32_t lane, const struct mp_repair_request *request,
                         struct iovec out[MP_REPAIR_REQUEST_NUMBERS])
{
    struct search s;
    search_begin(&s, request, out);
    search_overlay(&s, r, lane);
    search_host(&s, r, lane);
    return s.found;
}
