/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * overlay_ingress: opens what peers send, delivers it into the TUN, hands on what must be relayed, answers probes.
 *
 * Steps of a super-buffer, in this order below: receive into the overlay ring → every datagram: header, key, replay
 * window, open → forwarding entry, policy → delivery list, in the order of the stream where packets take stripes, and relay
 * runs → delivery → publish for overlay_egress.
 * A datagram is verified before anything is done with it.  A super-buffer that is neither relayed nor kept for repair
 * leaves its slot unused.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "mp_lookup.h"
#include "mp_repair_gaps.h"
#include "mp_repair_track.h"
#include "mp_peers.h"
#include "mp_seal.h"
#include "mp_reorder.h"
#include "mp_links_keys.h"
#include "mp_tun.h"
#include "mp_udp.h"

/* How long a datagram that is early may wait for those before it. */
#define HOLD_STRIPES_NS UINT64_C(20000000) /* trees of one network differ by less */
#define HOLD_REPAIR_NS UINT64_C(100000000) /* what a local network loses comes after some 50 ms, or is asked for once more */
#define FORWARDS 64u            /* cached look-ups, direct-mapped */

struct forward {                /* what is known of a flow that comes by a link; valid for one version of the table */
    uint64_t version;           /* of the table, plus 1 */
    uint32_t origin, via, entry;
    uint32_t refused, undelivered;  /* the policy's counters for all, and for this host; 0: allowed */
    uint32_t rate;              /* the group's slot */
    uint8_t source[16], destination[16];
    struct mp_fib_value value;  /* of stripe 0 */
    struct mp_fib_key key;      /* that `entry` was found by */
    uint32_t stripe;              /* that `later` is of; 0: none has been looked up */
    struct mp_fib_value later;
    struct mp_repair_track *heard;     /* of a stream that is repaired; NULL: not looked up */
};

struct mp_ingress {
    struct mp_peers *peers;
    struct mp_delivery delivery[MP_DELIVERIES_MAX];
    uint32_t deliveries;
    struct forward *last;       /* consecutive datagrams mostly share it */
    struct forward forwards[FORWARDS];
    struct mp_repair_gaps gaps;
    struct mp_reorder *sequence; /* NULL with several lanes: none sees all of a stream */
    struct mp_fib_value besides; /* of besides_origin() */
    uint32_t scattered;         /* the last delivery was of several flows: gather from all super-buffers of a burst */
    uint8_t opened[MP_RECEIVE_BURST][MP_SUPER_BYTES];   /* plain text, at the offsets of the sealed super-buffer */
    struct mp_super spare[MP_RECEIVE_BURST]; /* received into when the overlay ring is full */
};

static void deliver_in_order(void *worker, const uint8_t *bytes, uint32_t length);

int mp_ingress_init(struct mp_worker *w)
{
    w->ingress = calloc(1, sizeof *w->ingress);
    if (!w->ingress)
        return -ENOMEM;
    w->ingress->last = w->ingress->forwards;
    mp_repair_gaps_init(w, &w->ingress->gaps);
    w->ingress->peers = mp_peers_new(w);
    if (w->region->geometry.lanes == 1 &&
        !(w->ingress->sequence = mp_reorder_new(w->region->geometry.mtu, deliver_in_order, w)))
        return -ENOMEM;
    return w->ingress->peers ? 0 : -ENOMEM;
}

void mp_ingress_exit(struct mp_worker *w)
{
    if (!w->ingress)
        return;
    mp_peers_free(w->ingress->peers);
    mp_reorder_free(w->ingress->sequence);
    free(w->ingress);
}

uint64_t mp_ingress_due_ns(const struct mp_worker *w)
{
    const struct mp_ingress *s = w->ingress;
    uint64_t probes = mp_peers_due_ns(s->peers), gaps = mp_repair_gaps_due_ns(&s->gaps);
    uint64_t held = s->sequence ? mp_reorder_due_ns(s->sequence) : UINT64_MAX, due = probes < gaps ? probes : gaps;
    return held < due ? held : due;
}

/* ---- deliver ---- */

static void flush_deliveries(struct mp_worker *w)
{
    struct mp_ingress *s = w->ingress;
    if (!s->deliveries)
        return;
    uint32_t flows = mp_tun_deliver(w->config.tun, s->delivery, s->deliveries, (int)w->config.super,
                                    w->count[MP_OVERLAY_INGRESS]);
    s->scattered = flows > 1;
    s->deliveries = 0;
    if (s->sequence)
        mp_reorder_recycle(s->sequence);
}

/* All packets of a datagram are of the flow that its first was looked up by: a member that lies gains nothing. */
static void deliver(struct mp_worker *w, const struct mp_packet *first, const uint8_t *bytes, uint32_t length)
{
    struct mp_ingress *s = w->ingress;
    while (length) {
        struct mp_packet p;
        if (mp_packet_parse(bytes, length, &p) || p.class != first->class || memcmp(p.source, first->source, 16) ||
            memcmp(p.destination, first->destination, 16)) {
            mp_count(w->count[MP_OVERLAY_INGRESS], MP_DROP_inner, 1);
            return;
        }
        if (s->deliveries == MP_DELIVERIES_MAX)
            flush_deliveries(w);
        s->delivery[s->deliveries++] = (struct mp_delivery){ bytes, p.length, p.class == MP_CLASS_FLOOD };
        bytes += p.length;
        length -= p.length;
    }
}

/* For mp_reorder: a datagram's turn to be delivered has come. */
static void deliver_in_order(void *worker, const uint8_t *bytes, uint32_t length)
{
    struct mp_packet p;
    if (!mp_packet_parse(bytes, length, &p))
        deliver(worker, &p, bytes, length);
}

/* ---- look up ---- */

/* Where the datagram of that stream sequence number goes. */
static const struct mp_fib_value *in_turn(const struct mp_region *r, struct forward *f, uint32_t stream_sequence)
{
    uint32_t stripe = f->value.stripes > 1 ? stream_sequence % f->value.stripes : 0;
    if (!stripe)
        return &f->value;
    if (f->stripe != stripe) {
        f->stripe = stripe;
        mp_fib_stripe(r, &f->key, stripe, &f->later);
    }
    return &f->later;
}

static int is_same(const struct forward *f, const struct mp_packet *p, uint32_t origin, uint32_t via, uint64_t version)
{
    return f->version == version && f->origin == origin && f->via == via &&
           !memcmp(f->destination, p->destination, 16) && !memcmp(f->source, p->source, 16);
}

/* The place of a flow in the cache: packets that take stripes come by several links one after the other. */
static struct forward *place_of(struct mp_ingress *s, const struct mp_packet *p, uint32_t via)
{
    uint64_t a, b;
    memcpy(&a, p->source + 8, 8);
    memcpy(&b, p->destination + 8, 8);
    return &s->forwards[((a ^ (b << 7 | b >> 57)) + via) * UINT64_C(0x9e3779b97f4a7c15) >> 58];
}
_Static_assert(FORWARDS == 64, "six bits of a hash");

static struct forward *look_up(struct mp_worker *w, const struct mp_packet *p, uint32_t origin, uint32_t via,
                               uint64_t version)
{
    struct forward *f = w->ingress->last;
    if (!is_same(f, p, origin, via, version))
        w->ingress->last = f = place_of(w->ingress, p, via);
    if (!is_same(f, p, origin, via, version)) {
        f->version = version;
        f->origin = origin;
        f->via = via;
        memcpy(f->source, p->source, 16);
        memcpy(f->destination, p->destination, 16);
        f->refused = mp_policy_passes(&w->policy, w->region, p, origin);
        f->undelivered = mp_policy_delivers(&w->policy, p);
        f->rate = mp_rate_slot(w->region, p->destination);
        f->entry = mp_lookup_overlay(w->region, p, origin, via, &f->key, &f->value);
        f->stripe = 0;
        f->heard = NULL;
    }
    if (f->entry != MP_NO_ENTRY)
        mp_fib_touch(w->region, f->entry);
    return f;
}

/* ---- relay ---- */

/* Adds the datagram to the super-buffer's runs: to the last one if it has the same links and ends where this begins. */
static void relay(struct mp_worker *w, struct mp_super *super, uint32_t offset, uint32_t length, uint32_t via,
                  const struct mp_fib_value *value)
{
    struct mp_counters *c = w->count[MP_OVERLAY_INGRESS];
    struct mp_run *last = super->runs ? &super->run[super->runs - 1] : NULL;
    size_t bytes = value->words * sizeof value->links[0];
    if (super->data[offset + 2] <= 1) {
        mp_count(c, MP_DROP_hop_limit, 1);
        return;
    }
    super->data[offset + 2]--;
    if (last && last->offset + last->length == offset && last->words == value->words &&
        !memcmp(last->links, value->links, bytes)) {
        last->length += length;
    } else if (super->runs == MP_RUNS_MAX) {
        mp_count(c, MP_DROP_relay_full, 1);
    } else {
        struct mp_run *r = &super->run[super->runs++];
        r->offset = offset;
        r->length = length;
        r->words = value->words;
        r->came_from = via;
        memcpy(r->links, value->links, bytes);
    }
}

/* The origin itself gets no copy, whoever passes its datagrams on. */
static const struct mp_fib_value *besides_origin(struct mp_ingress *s, const struct mp_fib_value *hops,
                                                 const struct mp_opened *o)
{
    uint32_t word = o->link / 64;
    uint64_t bit = UINT64_C(1) << o->link % 64;
    if (o->link == o->via || word >= hops->words || !(hops->links[word] & bit))
        return hops;
    s->besides = *hops;
    s->besides.links[word] &= ~bit;
    return &s->besides;
}

static int has_links_besides(const struct mp_fib_value *v, uint32_t via)
{
    for (uint32_t i = 0; i < v->words; i++)
        if (v->links[i] & ~(via / 64 == i ? UINT64_C(1) << via % 64 : 0))
            return 1;
    return 0;
}

/* ---- repair ---- */

/* Is it one of a stream of which the order and what is missing matter? */
static int is_tracked(const struct forward *f)
{
    return f->entry != MP_NO_ENTRY && f->value.stream && (f->value.stripes > 1 || f->value.flags & MP_ENTRY_REPAIR);
}

/* Notes that the datagram has come, and keeps it for who may lack it. */
static void track(struct mp_worker *w, struct mp_super *super, uint32_t offset, struct forward *f,
                  const struct mp_opened *o)
{
    uint32_t which = offset / super->segment;
    uint64_t name = mp_repair_track_name(o->origin, f->value.stream, o->epoch);
    if (!f->heard || !mp_repair_track_is(f->heard, name))
        f->heard = mp_repair_track_find(w->region, name, o->stream_sequence);
    int changed = mp_repair_track_mark(f->heard, o->stream_sequence, w->now_ns);
    if (!(f->value.flags & MP_ENTRY_REPAIR))
        return;
    if (which < MP_RUNS_MAX) {
        if (!super->kept++)
            memset(super->stream, 0, sizeof super->stream);
        super->stream[which] = (uint16_t)f->value.stream;
    }
    mp_repair_gaps_earn_credit(&w->ingress->gaps);
    if (changed)
        mp_repair_gaps_schedule(w, &w->ingress->gaps, f->heard, o->via);
}

static void deliver_tracked(struct mp_worker *w, const struct forward *f, const struct mp_opened *o,
                            const struct mp_packet *p)
{
    struct mp_ingress *s = w->ingress;
    if (!s->sequence) {
        deliver(w, p, o->body, o->length);
        return;
    }
    uint64_t hold_ns = f->value.flags & MP_ENTRY_REPAIR ? HOLD_REPAIR_NS : HOLD_STRIPES_NS;
    mp_reorder_add(s->sequence, (uint32_t)(f->heard - mp_repair_tracks(w->region)),
                     mp_repair_track_name(o->origin, f->value.stream, o->epoch), o->stream_sequence, o->body, o->length,
                     w->now_ns, hold_ns);
}

/* ---- one datagram ---- */

/* Why a verified datagram is not even relayed: a drop counter, or 0. */
static uint32_t refusal(const struct mp_worker *w, const struct forward *f, const struct mp_packet *p,
                        const struct mp_opened *o)
{
    const struct mp_policy *policy = &w->policy;
    if (f->refused)
        return f->refused;
    if (o->link != MP_NO_LINK && !mp_rate_take(w->region, MP_RATE_PEER, o->link, policy->peer_pps, w->now_ns))
        return MP_DROP_peer_rate;
    if (p->class != MP_CLASS_UNICAST &&
        !mp_rate_take(w->region, MP_RATE_RECEIVE, f->rate, policy->receive_pps, w->now_ns))
        return MP_DROP_group_rate;
    return 0;
}

static void take_data(struct mp_worker *w, struct mp_super *super, uint32_t offset, uint32_t length,
                      const struct mp_opened *o, uint64_t version)
{
    struct mp_counters *c = w->count[MP_OVERLAY_INGRESS];
    struct mp_packet p;
    if (mp_packet_parse(o->body, o->length, &p) || p.class == MP_CLASS_MEMBERSHIP) {
        mp_count(c, MP_DROP_inner, 1);
        return;
    }
    struct forward *f = look_up(w, &p, o->origin, o->via, version);
    uint32_t refused = refusal(w, f, &p, o);
    if (refused) {
        mp_count(c, refused, 1);
        return;
    }
    int tracked = is_tracked(f);
    if (tracked)
        track(w, super, offset, f, o);
    int local = f->entry != MP_NO_ENTRY && f->value.flags & MP_ENTRY_LOCAL;
    const struct mp_fib_value *hops = f->entry != MP_NO_ENTRY ? in_turn(w->region, f, o->stream_sequence) : NULL;
    if (hops)
        hops = besides_origin(w->ingress, hops, o);
    int onward = hops && has_links_besides(hops, o->via);
    if (local && f->undelivered)
        mp_count(c, f->undelivered, 1);
    else if (local && tracked)
        deliver_tracked(w, f, o, &p);
    else if (local)
        deliver(w, &p, o->body, o->length);
    if (onward)
        relay(w, super, offset, length, o->via, hops);
    if (!local && !onward)
        mp_count(c, MP_DROP_not_wanted, 1);
}

/* Returns how many datagrams are in it. */
static uint32_t take_super(struct mp_worker *w, struct mp_super *super, const struct mp_received *in, uint8_t *opened,
                           uint64_t version)
{
    struct mp_ingress *s = w->ingress;
    super->length = in->length;
    super->segment = in->segment;
    super->runs = super->kept = 0;
    uint32_t via = mp_peers_link_of(s->peers, &in->from), datagrams = 0;
    for (uint32_t offset = 0; offset < in->length; offset += in->segment, datagrams++) {
        uint32_t left = in->length - offset, length = left < in->segment ? left : in->segment;
        struct mp_opened o = { .via = via };
        int type = mp_peers_open(s->peers, super->data + offset, length, opened + offset, &in->from, &o);
        if (type == MP_TYPE_DATA)
            take_data(w, super, offset, length, &o, version);
    }
    if (!s->scattered)
        flush_deliveries(w);
    mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_overlay_rx_datagrams, datagrams);
    mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_overlay_rx_bytes, in->length);
    mp_peers_received(s->peers, via, datagrams, in->length);
    return datagrams;
}

/* ---- the stage ---- */

static uint32_t datagrams_in(const struct mp_super *super)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < super->runs; i++)
        n += (super->run[i].length + super->segment - 1) / super->segment;
    return n;
}

/* After a burst: when to receive again.  A burst costs a write a flow: with several under load the socket is left to fill. */
static void moderate(struct mp_worker *w, uint32_t supers)
{
    int waits = w->ingress->scattered && w->schedule.loaded && supers < MP_RECEIVE_BURST;
    w->receive_at_ns = waits ? w->now_ns + (uint64_t)w->config.moderation_us * 1000 / 2 : 0;
}

uint32_t mp_ingress_burst(struct mp_worker *w)
{
    struct mp_ingress *s = w->ingress;
    struct mp_cursor *own = &w->lane->overlay[0];
    struct mp_received in[MP_RECEIVE_BURST];
    struct mp_super *super[MP_RECEIVE_BURST];
    uint64_t room = mp_room(own, &w->lane->overlay[1], w->region->geometry.overlay_slots), at = mp_position(own);
    uint32_t used = 0;          /* slots in front of the cursor that hold something to relay or to keep */
    mp_peers_refresh(s->peers);
    mp_peers_probe(s->peers);
    mp_repair_gaps_report(w, &s->gaps);
    if (s->sequence)
        mp_reorder_expire(s->sequence, w->now_ns);
    flush_deliveries(w);
    if (w->now_ns < w->receive_at_ns)
        return 0;
    for (uint32_t i = 0; i < MP_RECEIVE_BURST; i++) {
        super[i] = room >= MP_RECEIVE_BURST ? mp_overlay_slot(w->region, w->config.lane, at + i) : &s->spare[i];
        in[i].data = super[i]->data;
    }
    uint32_t count = mp_udp_receive(w->config.udp, in, MP_RECEIVE_BURST), datagrams = 0;
    if (!count)
        return 0;
    mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_overlay_rx_calls, 1);
    uint64_t version = (uint64_t)atomic_load_explicit(&mp_fib(w->region)->version, memory_order_acquire) + 1;
    for (uint32_t i = 0; i < count; i++) {
        datagrams += take_super(w, super[i], &in[i], s->opened[s->scattered ? i : 0], version);
        if (super[i]->runs && room < MP_RECEIVE_BURST)
            mp_count(w->count[MP_OVERLAY_INGRESS], MP_DROP_relay_full, datagrams_in(super[i]));
        else if (super[i]->runs || super[i]->kept)
            used = i + 1;
    }
    flush_deliveries(w);
    moderate(w, count);
    if (used) {
        mp_publish(own, used);
        mp_hand_off(w, MP_OVERLAY_EGRESS, count == MP_RECEIVE_BURST);
    }
    return datagrams;
}
