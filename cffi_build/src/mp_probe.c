/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_probe: probes, echoes, round-trip time and loss.  See mp_probe.h.
 */
#include "mp_probe.h"

#include <stdlib.h>

#include "mp_clock.h"
#include "mp_forgery.h"
#include "mp_packet.h"
#include "mp_punt.h"
#include "mp_ring.h"
#include "mp_seal.h"

#define PERIOD_NS UINT64_C(1000000000)
#define BODY 16u                /* u64 time of sending, a report or zeros */
#define REPORT_AT 8u
_Static_assert(REPORT_AT + MP_FORGERY_BYTES == BODY, "");

struct probed_link {
    uint8_t is_up;              /* when its record was last copied */
    uint8_t is_unanswered;      /* the last probe has no echo yet */
};

struct mp_probe {
    struct mp_worker *w;
    struct mp_rx_peers *peers;
    uint64_t due_ns;
    uint64_t report_due_ns;     /* earliest time of the next reports to origins */
    uint64_t proof_due_ns;      /* earliest time of the next proof for control */
    struct probed_link links[MP_LINKS_MAX];
};

struct mp_probe *mp_probe_new(struct mp_rx_peers *peers)
{
    struct mp_probe *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->w = peers->w;
    s->peers = peers;
    s->due_ns = s->w->config.lane ? UINT64_MAX : 0;
    return s;
}

void mp_probe_free(struct mp_probe *s)
{
    free(s);
}

static struct mp_link_rx *figures_of(const struct mp_probe *s, uint32_t link)
{
    return mp_link_rx(s->w->region, s->w->config.lane) + link;
}

/* ---- send ---- */

static void send_to(struct mp_probe *s, uint32_t type, const uint8_t *body, const struct mp_target *to, uint32_t link)
{
    uint8_t datagram[MP_HEADER_BYTES + BODY + MP_TAG_BYTES];
    const struct mp_sender *sender = &s->peers->sender;
    struct mp_cursor *sequence = &s->w->lane->probe_sequence;
    uint64_t number = mp_position(sequence);
    uint32_t length = MP_HEADER_BYTES + BODY;
    if (!sender->origin || (sender->sealed && !s->peers->seal))
        return;
    atomic_store_explicit(&sequence->at, number + 1, memory_order_relaxed); /* first: a nonce is never used twice */
    struct mp_header h = { .type = (uint8_t)type, .flags = sender->sealed ? MP_FLAG_SEALED : 0, .hop_limit = 1,
                           .epoch = sender->epoch[sender->active & 1], .origin = sender->origin,
                           .sequence = mp_space(s->w->config.lane, 1) | number };
    mp_header_write(datagram, &h);
    memcpy(datagram + MP_HEADER_BYTES, body, BODY);
    if (sender->sealed) {
        if (mp_seal(s->peers->seal, datagram, BODY))
            return;
        length += MP_TAG_BYTES;
    }
    if (sendto(s->w->config.udp, datagram, length, MSG_DONTWAIT, &to->address.any, to->length) < 0)
        mp_count(s->w->count[MP_OVERLAY_INGRESS], MP_DROP_send_failed, 1);
    else if (link != MP_NO_LINK)
        mp_count_in(&figures_of(s, link)->probe_bytes, length);
}

void mp_probe_links_changed(struct mp_probe *s)
{
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++) {
        const struct mp_link *l = &s->peers->links[i];
        uint8_t is_up = l->node && l->up;
        if (is_up && !s->links[i].is_up) {
            s->links[i].is_unanswered = 0;
            if (!s->w->config.lane)
                s->due_ns = 0;          /* measure a new link at once */
        }
        s->links[i].is_up = is_up;
    }
}

static void send_probe(struct mp_probe *s, uint32_t link, const uint8_t report[MP_FORGERY_BYTES])
{
    uint8_t body[BODY];
    struct mp_target to;
    memcpy(body, &s->w->now_ns, REPORT_AT);
    memcpy(body + REPORT_AT, report, MP_FORGERY_BYTES);
    mp_target_set(&to, &s->peers->links[link].endpoint);
    mp_count_in(&figures_of(s, link)->probes, 1);
    send_to(s, MP_TYPE_PROBE, body, &to, link);
}

static void probe_link(struct mp_probe *s, uint32_t link)
{
    static const uint8_t no_report[MP_FORGERY_BYTES];
    struct mp_link_rx *rx = figures_of(s, link);
    if (atomic_load_explicit(&rx->echoes, memory_order_relaxed)) {      /* before the first the peer may lack our key */
        uint64_t loss = atomic_load_explicit(&rx->loss_ppm, memory_order_relaxed);
        loss = (loss * 15 + (s->links[link].is_unanswered ? 1000000 : 0)) / 16;
        atomic_store_explicit(&rx->loss_ppm, loss, memory_order_relaxed);
    }
    s->links[link].is_unanswered = 1;
    send_probe(s, link, no_report);
}

static int is_probed(const struct mp_probe *s, uint32_t link)
{
    return s->links[link].is_up && s->peers->links[link].endpoint.family;
}

static void send_reports(struct mp_probe *s)
{
    uint8_t report[MP_FORGERY_BYTES];
    s->report_due_ns = s->w->now_ns + PERIOD_NS;
    s->peers->has_refusals = 0;
    for (uint32_t i = 0; i < MP_KEYS_MAX; i++) {
        struct mp_rx_key *k = &s->peers->keys[i];
        if (!k->is_refused)
            continue;
        k->is_refused = 0;
        if (k->link == MP_NO_LINK || !is_probed(s, k->link))
            continue;
        mp_forgery_write(s->peers, &k->record, k->refused, report);
        send_probe(s, k->link, report);
    }
}

void mp_probe_send(struct mp_probe *s)
{
    if (s->peers->has_refusals && s->w->now_ns >= s->report_due_ns)
        send_reports(s);
    if (s->w->now_ns < s->due_ns)
        return;
    s->due_ns = s->w->now_ns + PERIOD_NS;
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++)
        if (is_probed(s, i))
            probe_link(s, i);
}

uint64_t mp_probe_due_ns(const struct mp_probe *s)
{
    return s->peers->has_refusals && s->report_due_ns < s->due_ns ? s->report_due_ns : s->due_ns;
}

/* ---- receive ---- */

static void send_echo(struct mp_probe *s, const struct mp_opened *o, const union mp_address *from)
{
    struct mp_target to = { .address = *from };
    to.length = from->any.sa_family == AF_INET ? sizeof from->v4 : sizeof from->v6;
    if (o->link != MP_NO_LINK)
        mp_count_in(&figures_of(s, o->link)->answered, 1);
    send_to(s, MP_TYPE_ECHO, o->body, &to, o->link);
}

static uint64_t smoothed(uint64_t old, uint64_t sample)
{
    return old ? (old * 7 + sample) / 8 : sample;
}

static void receive_echo(struct mp_probe *s, const struct mp_opened *o)
{
    uint64_t sent_ns;
    memcpy(&sent_ns, o->body, sizeof sent_ns);
    if (o->link == MP_NO_LINK || sent_ns > s->w->now_ns)
        return;
    struct mp_link_rx *rx = figures_of(s, o->link);
    uint64_t rtt = atomic_load_explicit(&rx->rtt_ns, memory_order_relaxed);
    atomic_store_explicit(&rx->rtt_ns, smoothed(rtt, mp_now_ns() - sent_ns), memory_order_relaxed);
    mp_count_in(&rx->echoes, 1);
    s->links[o->link].is_unanswered = 0;
}

static void check_endpoint(struct mp_probe *s, const union mp_address *from, uint32_t link)
{
    struct { uint32_t link; struct mp_endpoint endpoint; } moved = { .link = link };
    const struct mp_endpoint *known = &s->peers->links[link].endpoint;
    mp_endpoint_from(&moved.endpoint, from);
    if (known->port != moved.endpoint.port || memcmp(known->address, moved.endpoint.address, 16))
        mp_punt_add(s->w, MP_OVERLAY_INGRESS, MP_PUNT_ENDPOINT, &moved, sizeof moved);
}

static void check_report(struct mp_probe *s, const struct mp_opened *o)
{
    if (s->w->now_ns < s->proof_due_ns || o->link == MP_NO_LINK || !mp_forgery_is_proven(s->peers, o->body + REPORT_AT))
        return;
    s->proof_due_ns = s->w->now_ns + PERIOD_NS;
    mp_punt_add(s->w, MP_OVERLAY_INGRESS, MP_PUNT_FORGERY, &o->link, sizeof o->link);
}

void mp_probe_receive(struct mp_probe *s, int type, const struct mp_opened *o, const union mp_address *from)
{
    if (o->length != BODY) {
        mp_count(s->w->count[MP_OVERLAY_INGRESS], MP_DROP_wire_header, 1);
        return;
    }
    if (type != MP_TYPE_ECHO)
        check_report(s, o);
    if (type == MP_TYPE_REPLAYED_PROBE)
        return;
    if (type == MP_TYPE_PROBE)
        send_echo(s, o, from);
    else
        receive_echo(s, o);
    if (o->link != MP_NO_LINK && s->peers->sender.sealed)
        check_endpoint(s, from, o->link);
}
