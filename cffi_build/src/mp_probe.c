/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_probe: probes, echoes, round-trip time and loss.  See mp_probe.h.
 */
#include "mp_probe.h"

#include <stdlib.h>
#include <string.h>

#include "mp_clock.h"
#include "mp_forgery.h"
#include "mp_packet.h"
#include "mp_punt.h"
#include "mp_ring.h"
#include "mp_seal.h"
#include "mp_siphash.h"

#define PERIOD_NS UINT64_C(1000000000)
#define SPACING_NS UINT64_C(250000000)  /* least time between two probes to a candidate */
#define BODY 16u                /* u64 time of sending, a report or a number that is none */
#define SECOND 8u
_Static_assert(SECOND + MP_FORGERY_BYTES == BODY, "");

struct probed_link {
    uint8_t is_up;              /* when its record was last copied */
    uint8_t is_unanswered;      /* the last probe to the endpoint has no echo yet */
    uint8_t is_host_known;      /* of the candidate */
    uint8_t attempts;           /* probes to the candidate since its last answer */
    uint64_t sent_ns, due_ns;   /* last and next probe to the candidate */
    struct mp_endpoint candidate;   /* to which these fields belong */
};

struct mp_probe {
    struct mp_worker *w;
    struct mp_rx_peers *peers;
    uint64_t due_ns;            /* probes to endpoints */
    uint64_t candidates_due_ns; /* the next probe to a candidate */
    uint64_t spent_until_ns;    /* the probes to candidates that were sent are paid for by this time */
    uint64_t report_due_ns;     /* earliest time of the next reports to origins */
    uint64_t proof_due_ns;      /* earliest time of the next proof for control */
    uint64_t unknown_due_ns;    /* earliest time of the next probe because of an unknown endpoint */
    struct probed_link links[MP_LINKS_MAX];
};

struct mp_probe *mp_probe_new(struct mp_rx_peers *peers)
{
    struct mp_probe *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->w = peers->w;
    s->peers = peers;
    s->due_ns = s->candidates_due_ns = s->w->config.lane ? UINT64_MAX : 0;
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
    int has_keys = link != MP_NO_LINK && s->peers->links[link].has_probe_keys;
    int is_sealed = has_keys || sender->sealed;
    struct mp_cipher *cipher = has_keys ? s->peers->probe[link].seal : s->peers->seal;
    struct mp_cursor *sequence = &s->w->lane->probe_sequence;
    uint64_t number = mp_position(sequence);
    uint32_t length = MP_HEADER_BYTES + BODY;
    if (!sender->origin || (is_sealed && !cipher))
        return;
    atomic_store_explicit(&sequence->at, number + 1, memory_order_relaxed); /* first: a nonce is never used twice */
    struct mp_header h = { .type = (uint8_t)type, .flags = is_sealed ? MP_FLAG_SEALED : 0, .hop_limit = 1,
                           .epoch = sender->epoch[sender->active & 1], .origin = sender->origin,
                           .sequence = mp_space(s->w->config.lane, 1) | number };
    mp_header_write(datagram, &h);
    memcpy(datagram + MP_HEADER_BYTES, body, BODY);
    if (is_sealed) {
        if (mp_seal(cipher, datagram, BODY))
            return;
        length += MP_TAG_BYTES;
    }
    if (sendto(s->w->config.udp, datagram, length, MSG_DONTWAIT, &to->address.any, to->length) < 0)
        mp_count(s->w->count[MP_OVERLAY_INGRESS], MP_DROP_send_failed, 1);
    else if (link != MP_NO_LINK)
        mp_count_in(&figures_of(s, link)->probe_bytes, length);
}

/* Write the number of a probe to an endpoint: 56 bits behind a 0, which no report begins with.  The scope is left out:
 * an echo may come without it. */
static void number_write(const struct mp_probe *s, const struct mp_endpoint *e, uint32_t link, uint64_t sent_ns,
                         uint8_t out[MP_FORGERY_BYTES])
{
    uint64_t words[4] = { sent_ns, (uint64_t)link << 32 | (uint64_t)e->family << 16 | e->port };
    memcpy(words + 2, e->address, sizeof e->address);
    uint64_t number = mp_siphash(s->w->region->geometry.probe_secret, words, 4);
    memcpy(out, &number, sizeof number);
    out[0] = 0;
}

/* Send a probe with a report, or with the number that its echo must have. */
static void send_probe(struct mp_probe *s, uint32_t link, const struct mp_endpoint *e, const uint8_t *report)
{
    uint8_t body[BODY];
    struct mp_target to;
    memcpy(body, &s->w->now_ns, SECOND);
    if (report)
        memcpy(body + SECOND, report, MP_FORGERY_BYTES);
    else
        number_write(s, e, link, s->w->now_ns, body + SECOND);
    mp_target_set(&to, e);
    mp_count_in(&figures_of(s, link)->probes, 1);
    send_to(s, MP_TYPE_PROBE, body, &to, link);
}

static void probe_endpoint(struct mp_probe *s, uint32_t link)
{
    struct mp_link_rx *rx = figures_of(s, link);
    uint64_t loss = atomic_load_explicit(&rx->loss_ppm, memory_order_relaxed);
    loss = (loss * 15 + (s->links[link].is_unanswered ? 1000000 : 0)) / 16;
    atomic_store_explicit(&rx->loss_ppm, loss, memory_order_relaxed);
    s->links[link].is_unanswered = 1;
    send_probe(s, link, &s->peers->links[link].endpoint, NULL);
}

/* Pay for a probe to a candidate.  Returns 0 if the budget does not allow it. */
static int pay(struct mp_probe *s)
{
    uint64_t now = s->w->now_ns, from = s->spent_until_ns > now ? s->spent_until_ns : now;
    if (from - now > (MP_PROBE_BURST - 1) * MP_PROBE_COST_NS)
        return 0;
    s->spent_until_ns = from + MP_PROBE_COST_NS;
    return 1;
}

/* Return the time after the last probe to a candidate at which the next one is due. */
static uint64_t wait_ns(const struct probed_link *l)
{
    if (l->attempts < MP_PROBE_FIRST)
        return SPACING_NS * l->attempts;
    uint32_t doublings = l->attempts - MP_PROBE_FIRST;
    uint64_t first = l->is_host_known ? MP_PROBE_WAIT_NS : MP_PROBE_STRANGER_WAIT_NS;
    uint64_t wait = doublings < 16 ? first << doublings : MP_PROBE_WAIT_MAX_NS;
    return wait < MP_PROBE_WAIT_MAX_NS ? wait : MP_PROBE_WAIT_MAX_NS;
}

static void probe_candidate(struct mp_probe *s, uint32_t link)
{
    struct probed_link *l = &s->links[link];
    if (!pay(s)) {
        mp_count(s->w->count[MP_OVERLAY_INGRESS], MP_DROP_probe_budget, 1);
        l->due_ns = s->w->now_ns + SPACING_NS;
        return;
    }
    if (l->attempts < UINT8_MAX)
        l->attempts++;
    l->sent_ns = s->w->now_ns;
    l->due_ns = s->w->now_ns + wait_ns(l);
    send_probe(s, link, &l->candidate, NULL);
}

static void probe_candidates(struct mp_probe *s)
{
    s->candidates_due_ns = UINT64_MAX;
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++) {
        struct probed_link *l = &s->links[i];
        if (!l->is_up || !l->candidate.family)
            continue;
        if (l->due_ns <= s->w->now_ns)
            probe_candidate(s, i);
        if (l->due_ns < s->candidates_due_ns)
            s->candidates_due_ns = l->due_ns;
    }
}

/* Give back the probes to a candidate that has answered, whichever lane has received its echo. */
static void give_back(struct mp_probe *s, const struct probed_link *l)
{
    uint64_t cost = l->attempts * MP_PROBE_COST_NS;
    s->spent_until_ns -= cost < s->spent_until_ns ? cost : s->spent_until_ns;
}

static void copy_candidate(struct mp_probe *s, struct probed_link *mine, const struct mp_link *l)
{
    uint64_t latest_ns = s->w->now_ns + MP_PROBE_WAIT_NS;
    if (!mp_endpoint_is(&mine->candidate, &l->candidate)) {
        if (mine->candidate.family && mp_endpoint_is(&mine->candidate, &l->endpoint))
            give_back(s, mine);
        mine->candidate = l->candidate;
        mine->attempts = 0;
        mine->sent_ns = mine->due_ns = 0;
    } else if (l->is_host_known && !mine->is_host_known && mine->due_ns > latest_ns) {
        mine->due_ns = latest_ns;       /* its host has connected meanwhile */
    }
    mine->is_host_known = l->is_host_known;
}

void mp_probe_links_changed(struct mp_probe *s)
{
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++) {
        const struct mp_link *l = &s->peers->links[i];
        struct probed_link *mine = &s->links[i];
        uint8_t is_up = l->node && l->up;
        if (is_up && !mine->is_up)
            mine->is_unanswered = 0;
        mine->is_up = is_up;
        copy_candidate(s, mine, l);
    }
    if (!s->w->config.lane)
        s->candidates_due_ns = 0;       /* probe a new one at once */
}

/* ---- send: reports ---- */

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
        send_probe(s, k->link, &s->peers->links[k->link].endpoint, report);
    }
}

void mp_probe_send(struct mp_probe *s)
{
    if (s->peers->has_refusals && s->w->now_ns >= s->report_due_ns)
        send_reports(s);
    if (s->w->now_ns >= s->candidates_due_ns)
        probe_candidates(s);
    if (s->w->now_ns < s->due_ns)
        return;
    s->due_ns = s->w->now_ns + PERIOD_NS;
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++)
        if (is_probed(s, i))
            probe_endpoint(s, i);
}

uint64_t mp_probe_due_ns(const struct mp_probe *s)
{
    uint64_t due_ns = s->due_ns < s->candidates_due_ns ? s->due_ns : s->candidates_due_ns;
    return s->peers->has_refusals && s->report_due_ns < due_ns ? s->report_due_ns : due_ns;
}

void mp_probe_unknown_endpoint(struct mp_probe *s, uint32_t link)
{
    if (link == MP_NO_LINK || !is_probed(s, link) || s->w->now_ns < s->unknown_due_ns)
        return;
    s->unknown_due_ns = s->w->now_ns + PERIOD_NS;
    send_probe(s, link, &s->peers->links[link].endpoint, NULL);
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

static void punt_endpoint(struct mp_probe *s, uint32_t kind, uint32_t link, const struct mp_endpoint *from)
{
    struct { uint32_t link; struct mp_endpoint endpoint; } punt = { link, *from };
    mp_punt_add(s->w, MP_OVERLAY_INGRESS, kind, &punt, sizeof punt);
}

/* Return whether an echo answers a probe that this node has sent to exactly this endpoint, not long ago. */
static int is_answer(const struct mp_probe *s, const struct mp_opened *o, const struct mp_endpoint *from,
                     uint64_t sent_ns)
{
    uint8_t number[MP_FORGERY_BYTES];
    if (o->link == MP_NO_LINK || sent_ns > s->w->now_ns || s->w->now_ns - sent_ns > MP_ECHO_AGE_NS)
        return 0;
    number_write(s, from, o->link, sent_ns, number);
    return !memcmp(number, o->body + SECOND, sizeof number);
}

static void receive_echo(struct mp_probe *s, const struct mp_opened *o, const struct mp_endpoint *from)
{
    uint64_t sent_ns;
    memcpy(&sent_ns, o->body, sizeof sent_ns);
    if (!is_answer(s, o, from, sent_ns)) {
        mp_count(s->w->count[MP_OVERLAY_INGRESS], MP_DROP_stray_echo, 1);
        return;
    }
    struct mp_link_rx *rx = figures_of(s, o->link);
    uint64_t rtt = atomic_load_explicit(&rx->rtt_ns, memory_order_relaxed);
    atomic_store_explicit(&rx->rtt_ns, smoothed(rtt, mp_now_ns() - sent_ns), memory_order_relaxed);
    mp_count_in(&rx->echoes, 1);
    if (mp_endpoint_is(&s->peers->links[o->link].endpoint, from))
        s->links[o->link].is_unanswered = 0;
    else
        punt_endpoint(s, MP_PUNT_ENDPOINT, o->link, from);
}

/* A verified datagram of a peer has come from its candidate: a probe may reach it now.  Any other new endpoint may be
 * where the peer is now. */
static void check_endpoint(struct mp_probe *s, uint32_t link, const struct mp_endpoint *from)
{
    struct probed_link *l = &s->links[link];
    if (mp_endpoint_is(&s->peers->links[link].endpoint, from))
        return;
    if (!mp_endpoint_is(&s->peers->links[link].candidate, from)) {
        if (s->peers->sender.sealed || s->peers->links[link].has_probe_keys)
            punt_endpoint(s, MP_PUNT_CANDIDATE, link, from);
    } else if (!s->w->config.lane && l->is_up && l->due_ns > l->sent_ns + SPACING_NS) {
        l->due_ns = l->sent_ns + SPACING_NS;
        s->candidates_due_ns = l->due_ns < s->candidates_due_ns ? l->due_ns : s->candidates_due_ns;
    }
}

static void check_report(struct mp_probe *s, const struct mp_opened *o)
{
    if (s->w->now_ns < s->proof_due_ns || o->link == MP_NO_LINK || !mp_forgery_is_proven(s->peers, o->body + SECOND))
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
    struct mp_endpoint endpoint;
    mp_endpoint_from(&endpoint, from);
    if (type == MP_TYPE_ECHO)
        receive_echo(s, o, &endpoint);
    else if (!o->body[SECOND])          /* a report needs no answer */
        send_echo(s, o, from);
    if (o->link != MP_NO_LINK)
        check_endpoint(s, o->link, &endpoint);
}
