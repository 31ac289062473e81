/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * overlay_egress: sends datagrams to their next hops.  All work that is done once for a next hop.
 *
 * Datagrams of a burst that go to the same set of links form runs of one length; only the last datagram of a run may
 * be shorter.  One call sends a run to a link, straight from the slots.  A run takes datagrams of several flows, and
 * several runs are open at once.  Runs leave in the order in which they were opened, and no datagram joins a run that
 * is older than the run with the last datagram of its flow, so no flow is reordered.  Datagrams to relay are runs
 * already.
 *
 * Runs to different sets of links that have a link in common go to that link together: the packets of stripes would
 * else leave one by one.
 *
 * A repair request of control is carried out from the slots that the stage has kept: see mp_repair_buffer.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "mp_bucket.h"
#include "mp_hand_off.h"
#include "mp_links_keys.h"
#include "mp_repair_buffer.h"
#include "mp_repair_requests.h"
#include "mp_ring.h"
#include "mp_udp.h"

#define BURST 128u              /* slots at a time: two full runs to one set */
#define RELAY_BURST 8u          /* super-buffers at a time */
#define RUNS 32u                /* different sets and lengths in a burst; a further one sends all early */
#define FLOWS 128u              /* as many as classify distinguishes */
#define REQUESTS_BURST 8u       /* repair requests at a time, of some 100 us each at the worst */
#define RESENDS_PER_S 2000u     /* 24 Mbit/s: far above the losses of all streams that one lane relays */
#define RESENDS_BURST 512u

struct run {
    const uint64_t *links;      /* in a slot that belongs to this stage until the burst ends */
    uint32_t words;
    uint32_t except;            /* incoming link, which gets no copy, or MP_NO_LINK */
    uint32_t segment, total, count;
    uint32_t closed;            /* the last datagram is shorter: none may follow */
    uint32_t pieces;            /* of iov[]: one for each datagram, or one for all */
    struct iovec iov[MP_SEGMENTS_MAX];
};

/* Datagrams to one link in one call: one run, or several that are put together in `gathered` of the stage. */
struct batch {
    struct run *only;           /* NULL: gathered */
    uint32_t segment, total, count, closed;
};

struct mp_egress {
    uint32_t links_version;
    uint64_t requests_done;
    struct mp_bucket resends;
    uint32_t runs;
    struct run run[RUNS];
    struct iovec gathered[MP_SEGMENTS_MAX];
    uint8_t last[FLOWS];        /* 1 + the run with the flow's last datagram: the next joins that run or a later one */
    struct mp_target target[MP_LINKS_MAX];
};

int mp_egress_init(struct mp_worker *w)
{
    w->egress = calloc(1, sizeof *w->egress);
    if (!w->egress)
        return -ENOMEM;
    w->egress->links_version = atomic_load(&mp_published(w->region)->links_version) - 1;
    w->egress->requests_done = atomic_load(&w->lane->requests.at);
    mp_bucket_init(&w->egress->resends, RESENDS_PER_S, RESENDS_BURST, w->now_ns);
    return 0;
}

void mp_egress_exit(struct mp_worker *w)
{
    free(w->egress);
}

/* Copy the endpoints of links when control has changed some. */
static void refresh_targets(struct mp_worker *w)
{
    struct mp_egress *s = w->egress;
    /* acquire PUBLISHED_VERSION: pairs with write_record of mp_links_keys.c */
    uint32_t version = atomic_load_explicit(&mp_published(w->region)->links_version, memory_order_acquire);
    if (version == s->links_version)
        return;
    s->links_version = version;
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++) {
        struct mp_link link;
        if (!mp_link_read(w->region, i, &link))
            s->links_version = version - 1;     /* control is writing it: copied again at the next burst */
        else if (link.node)
            mp_target_set(&s->target[i], &link.endpoint);
        else
            s->target[i].length = 0;
    }
}

/* ---- runs to their links ---- */

static void send_to_link(struct mp_worker *w, struct iovec *iov, uint32_t count, uint32_t total, uint32_t segment,
                         uint32_t link)
{
    struct mp_counters *c = w->count[MP_OVERLAY_EGRESS];
    struct mp_link_tx *tx = mp_link_tx(w->region, w->config.lane) + link;
    uint32_t datagrams = (total + segment - 1) / segment, sent = 0;
    uint64_t calls = 0;
    int error = EDESTADDRREQ;
    if (w->egress->target[link].length)
        sent = mp_udp_send(w->config.udp, &w->egress->target[link], iov, count, total, segment, &calls, &error);
    uint64_t bytes = sent == datagrams ? total : (uint64_t)sent * segment;
    mp_count(c, MP_COUNT_overlay_tx_calls, calls);
    mp_count(c, MP_COUNT_overlay_tx_datagrams, sent);
    mp_count(c, MP_COUNT_overlay_tx_bytes, bytes);
    mp_count_in(&tx->datagrams, sent);
    mp_count_in(&tx->bytes, bytes);
    if (sent < datagrams) {
        mp_count(c, error == EAGAIN ? MP_DROP_send_blocked : MP_DROP_send_failed, datagrams - sent);
        mp_count_in(&tx->errors, datagrams - sent);
    }
}

static void send_batch(struct mp_worker *w, struct batch *b, uint32_t link)
{
    if (b->only)
        send_to_link(w, b->only->iov, b->only->pieces, b->total, b->segment, link);
    else if (b->count)
        send_to_link(w, w->egress->gathered, b->count, b->total, b->segment, link);
    *b = (struct batch){ 0 };
}

/* Append the datagrams of a run to `count` others, each as a piece of its own. */
static void gather(struct mp_egress *s, uint32_t count, const struct run *r)
{
    if (r->pieces == r->count) {
        memcpy(s->gathered + count, r->iov, r->pieces * sizeof r->iov[0]);
        return;
    }
    for (uint32_t at = 0; at < r->total; at += r->segment) {
        uint32_t left = r->total - at;
        s->gathered[count++] = (struct iovec){ (char *)r->iov[0].iov_base + at, left < r->segment ? left : r->segment };
    }
}

static void add_to_batch(struct mp_worker *w, struct batch *b, struct run *r, uint32_t link)
{
    if (b->count && (b->closed || b->segment != r->segment || b->count + r->count > MP_SEGMENTS_MAX ||
                     b->total + r->total > MP_RUN_BYTES_MAX))
        send_batch(w, b, link);
    if (!b->count) {
        *b = (struct batch){ .only = r, .segment = r->segment };
    } else {
        if (b->only)
            gather(w->egress, 0, b->only);
        b->only = NULL;
        gather(w->egress, b->count, r);
    }
    b->total += r->total;
    b->count += r->count;
    b->closed = r->closed;
}

static uint64_t links_in(const struct run *r, uint32_t word)
{
    uint64_t except = r->except / 64 == word ? UINT64_C(1) << r->except % 64 : 0;
    return word < r->words ? r->links[word] & ~except : 0;
}

static void flush_runs(struct mp_worker *w)
{
    struct mp_egress *s = w->egress;
    uint32_t words = 0;
    for (uint32_t i = 0; i < s->runs; i++)
        words = s->run[i].words > words ? s->run[i].words : words;
    for (uint32_t word = 0; word < words; word++) {
        uint64_t any = 0;
        for (uint32_t i = 0; i < s->runs; i++)
            any |= links_in(&s->run[i], word);
        for (; any; any &= any - 1) {
            uint32_t bit = (uint32_t)__builtin_ctzll(any), link = word * 64 + bit;
            struct batch b = { 0 };
            for (uint32_t i = 0; i < s->runs; i++)
                if (links_in(&s->run[i], word) >> bit & 1)
                    add_to_batch(w, &b, &s->run[i], link);
            send_batch(w, &b, link);
        }
    }
    s->runs = 0;
    memset(s->last, 0, sizeof s->last);
}

static struct run *new_run(struct mp_worker *w, const uint64_t *links, uint32_t words, uint32_t segment)
{
    struct mp_egress *s = w->egress;
    if (s->runs == RUNS)
        flush_runs(w);
    struct run *r = &s->run[s->runs++];
    r->links = links;
    r->words = words;
    r->except = MP_NO_LINK;
    r->segment = segment;
    r->pieces = r->count = r->total = r->closed = 0;
    return r;
}

/* ---- host ring ---- */

static int has_place(const struct run *r, const struct mp_slot *slot)
{
    return !r->closed && slot->length <= r->segment && r->count < MP_SEGMENTS_MAX &&
           r->total + slot->length <= MP_RUN_BYTES_MAX && r->words == slot->words &&
           !memcmp(r->links, slot->links, slot->words * sizeof slot->links[0]);
}

/* Return a run for the datagram: one of its length; else the run of its flow, which a shorter datagram closes; else a
 * new run. */
static struct run *find_run(struct mp_worker *w, const struct mp_slot *slot)
{
    struct mp_egress *s = w->egress;
    uint32_t last = s->last[slot->flow % FLOWS];
    for (uint32_t i = last ? last - 1 : 0; i < s->runs; i++)
        if (s->run[i].segment == slot->length && has_place(&s->run[i], slot))
            return &s->run[i];
    if (last && has_place(&s->run[last - 1], slot))
        return &s->run[last - 1];
    return new_run(w, slot->links, slot->words, slot->length);
}

static void add_to_run(struct mp_worker *w, struct mp_slot *slot)
{
    struct run *r = find_run(w, slot);
    w->egress->last[slot->flow % FLOWS] = (uint8_t)(r - w->egress->run + 1);
    r->iov[r->pieces++] = (struct iovec){ mp_slot_packet(slot) - MP_HEADER_BYTES, slot->length };
    r->count++;
    r->total += slot->length;
    r->closed = slot->length < r->segment;
}

static uint32_t host_burst(struct mp_worker *w)
{
    struct mp_cursor *own = &w->lane->host[2];
    uint64_t ready = mp_ready(&w->lane->host[1], own), at = mp_position(own);
    uint32_t count = ready < BURST ? (uint32_t)ready : BURST;
    if (!count)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_slot *slot = mp_host_slot(w->region, w->config.lane, at + i);
        if (slot->words)
            add_to_run(w, slot);
    }
    flush_runs(w);
    mp_release(own, count, mp_repair_buffer_slots(w->region, w->region->geometry.host_slots));
    mp_hand_off(w, MP_TUN_INGRESS, 1);
    return count;
}

/* ---- overlay ring ---- */

static void add_relayed(struct mp_worker *w, struct mp_super *super, const struct mp_run *relayed)
{
    struct run *r = new_run(w, relayed->links, relayed->words, super->segment);
    r->except = relayed->came_from;
    r->total = relayed->length;
    r->count = (relayed->length + super->segment - 1) / super->segment;
    r->closed = relayed->length % super->segment != 0;
    r->pieces = 1;
    r->iov[0] = (struct iovec){ super->data + relayed->offset, relayed->length };
    mp_count(w->count[MP_OVERLAY_EGRESS], MP_COUNT_relayed, r->count);
}

static uint32_t overlay_burst(struct mp_worker *w)
{
    struct mp_cursor *own = &w->lane->overlay[1];
    uint64_t ready = mp_ready(&w->lane->overlay[0], own), at = mp_position(own);
    uint32_t count = ready < RELAY_BURST ? (uint32_t)ready : RELAY_BURST;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_super *super = mp_overlay_slot(w->region, w->config.lane, at + i);
        for (uint32_t k = 0; k < super->runs; k++)
            add_relayed(w, super, &super->run[k]);
    }
    flush_runs(w);
    if (count)
        mp_release(own, count, mp_repair_buffer_slots(w->region, w->region->geometry.overlay_slots));
    return count;
}

/* ---- retransmission ---- */

/* Send the first datagrams, as long as they have one length, and a shorter one behind them.  Returns how many. */
static uint32_t resend_run(struct mp_worker *w, struct iovec *iov, uint32_t count, uint32_t link)
{
    uint32_t segment = (uint32_t)iov[0].iov_len, total = segment, n = 1;
    while (n < count && iov[n - 1].iov_len == segment && iov[n].iov_len <= segment &&
           total + iov[n].iov_len <= MP_RUN_BYTES_MAX)
        total += (uint32_t)iov[n++].iov_len;
    send_to_link(w, iov, n, total, segment, link);
    mp_count(w->count[MP_OVERLAY_EGRESS], MP_COUNT_resent, n);
    mp_count(w->count[MP_OVERLAY_EGRESS], MP_COUNT_resent_bytes, total);
    return n;
}

static void carry_out(struct mp_worker *w, const struct mp_repair_request *request)
{
    struct iovec found[MP_REPAIR_REQUEST_NUMBERS], iov[MP_REPAIR_REQUEST_NUMBERS];
    uint32_t count = mp_repair_buffer_find(w->region, w->config.lane, request, found), allowed = 0;
    while (allowed < count && mp_bucket_take(&w->egress->resends, w->now_ns))
        allowed++;
    mp_count(w->count[MP_OVERLAY_EGRESS], MP_COUNT_resend_refused, count - allowed);
    for (uint32_t i = 0; i < allowed; i++)      /* found newest first, sent in the order of the stream */
        iov[i] = found[allowed - 1 - i];
    for (uint32_t i = 0; i < allowed;)
        i += resend_run(w, iov + i, allowed - i, request->link);
}

/* Only the stage's own process carries out requests: it counts them and keeps to the limit. */
static int has_requests(const struct mp_worker *w)
{
    return mp_has_stage(w, MP_OVERLAY_EGRESS) && mp_repair_requests_ready(w->region, w->egress->requests_done);
}

static uint32_t requests_burst(struct mp_worker *w)
{
    struct mp_egress *s = w->egress;
    uint64_t ready = has_requests(w) ? mp_repair_requests_ready(w->region, s->requests_done) : 0;
    uint32_t count = ready < REQUESTS_BURST ? (uint32_t)ready : REQUESTS_BURST;
    for (uint32_t i = 0; i < count; i++)
        carry_out(w, &mp_repair_requests(w->region)[(s->requests_done + i) % MP_REPAIR_REQUESTS]);
    if (count) {
        s->requests_done += count;
        /* release REPAIR_REQUEST_DONE: pairs with least_done of mp_repair_requests.c; these are read no more */
        atomic_store_explicit(&w->lane->requests.at, s->requests_done, memory_order_release);
    }
    return count;
}

uint32_t mp_egress_burst(struct mp_worker *w)
{
    if (!mp_ready(&w->lane->host[1], &w->lane->host[2]) && !mp_ready(&w->lane->overlay[0], &w->lane->overlay[1]) &&
        !has_requests(w))
        return 0;
    refresh_targets(w);
    return host_burst(w) + overlay_burst(w) + requests_burst(w);
}
