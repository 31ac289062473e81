/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * overlay_ingress: receives the datagrams of peers, delivers their packets into the TUN and passes on what is relayed.
 *
 * Steps of a datagram, in the order of this file:
 *   1. receive    super-buffers of up to 64 KiB from the socket, straight into the slots of the overlay ring
 *   2. verify     each datagram: header, sender key, replay window, tag (mp_rx_peers); probes and echoes go to mp_probe
 *   3. data       parse the first inner packet, and steps 4 to 8
 *   4. look up    forwarding entry, policy and rates of its flow, from a cache; then the entry of its stripe
 *   5. refuse     by the policy or a rate
 *   6. track      a repaired or striped stream: mark its number, report gaps, keep the datagram
 *   7. deliver    to this host: into a list, in the order of the stream where packets take stripes
 *   8. relay      to other nodes: append to the runs of its super-buffer
 *   9. flush      write the delivery list into the TUN
 *  10. publish    slots that overlay_egress relays or keeps
 *
 * Nothing is done with a datagram before it is verified.  Super-buffers that no step keeps leave their slots unused.
 */
#include <errno.h>
#include <stdlib.h>

#include "mp_hand_off.h"
#include "mp_lookup.h"
#include "mp_probe.h"
#include "mp_reorder.h"
#include "mp_repair_gaps.h"
#include "mp_repair_track.h"
#include "mp_ring.h"
#include "mp_rx_peers.h"
#include "mp_tun.h"
#include "mp_unicast.h"

/* How long an early datagram is held for the numbers before it. */
#define HOLD_STRIPES_NS UINT64_C(20000000) /* trees of one network differ by less */
#define HOLD_REPAIR_NS UINT64_C(100000000) /* a datagram lost in a local network is repaired after some 50 ms */
#define FLOWS 64u               /* cached look-ups, direct-mapped */

struct flow {                   /* cached look-up of a flow from one link; valid for one version of the table */
    uint64_t version;           /* of the table, plus 1 */
    uint32_t origin, via, entry;
    uint32_t refused, undelivered;  /* drop counters of the policy, for all and for this host; 0: allowed; the second
                                     * may be MP_EACH_PACKET */
    uint32_t rate;              /* the rate slot of the group */
    uint8_t source[16], destination[16];
    struct mp_fib_value value;  /* of stripe 0 */
    struct mp_fib_key key;      /* of `entry` */
    uint32_t stripe;            /* of `later`; 0: none has been looked up */
    struct mp_fib_value later;
    struct mp_repair_track *track; /* of a repaired stream; NULL: not looked up */
};

struct mp_ingress {
    struct mp_rx_peers *peers;
    struct mp_probe *probe;
    struct mp_delivery delivery[MP_DELIVERIES_MAX];
    uint32_t deliveries;
    struct flow *last;          /* consecutive datagrams mostly share it */
    struct flow flows[FLOWS];
    struct mp_repair_gaps gaps;
    struct mp_reorder *reorder; /* NULL with several lanes: no lane sees a whole stream */
    struct mp_fib_value hops;   /* of without_origin() */
    uint32_t has_several_flows; /* the last delivery had: gather from all super-buffers of a burst */
    uint8_t plain[MP_RECEIVE_BURST][MP_SUPER_BYTES];    /* plain text, at the offsets of the sealed super-buffer */
    struct mp_super spare[MP_RECEIVE_BURST];            /* received into while the overlay ring is full */
};

static uint32_t verify_super(struct mp_worker *w, struct mp_super *super, const struct mp_received *in, uint8_t *plain,
                             uint64_t version);
static void receive_data(struct mp_worker *w, struct mp_super *super, uint32_t offset, uint32_t length,
                         const struct mp_opened *o, uint64_t version);
static struct flow *look_up(struct mp_worker *w, const struct mp_packet *p, uint32_t origin, uint32_t via,
                            uint64_t version);
static const struct mp_fib_value *hops_of(struct mp_worker *w, struct flow *f, const struct mp_opened *o);
static uint32_t refusal(const struct mp_worker *w, const struct flow *f, const struct mp_packet *p,
                        const struct mp_opened *o);
static void track(struct mp_worker *w, struct mp_super *super, uint32_t offset, struct flow *f,
                  const struct mp_opened *o);
static void deliver(struct mp_worker *w, const struct mp_packet *first, const uint8_t *bytes, uint32_t length);
static void deliver_allowed(struct mp_worker *w, const struct flow *f, const struct mp_packet *first,
                            const uint8_t *bytes, uint32_t length);
static void deliver_tracked(struct mp_worker *w, const struct flow *f, const struct mp_opened *o,
                            const struct mp_packet *p);
static void deliver_in_order(void *worker, const uint8_t *bytes, uint32_t length);
static void relay(struct mp_worker *w, struct mp_super *super, uint32_t offset, uint32_t length, uint32_t via,
                  const struct mp_fib_value *value);
static void flush_deliveries(struct mp_worker *w);

/* ---- life cycle ---- */

int mp_ingress_init(struct mp_worker *w)
{
    struct mp_ingress *s = w->ingress = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->last = s->flows;
    mp_repair_gaps_init(w, &s->gaps);
    s->peers = mp_rx_peers_new(w);
    s->probe = s->peers ? mp_probe_new(s->peers) : NULL;
    if (!s->probe)
        return -ENOMEM;
    if (w->region->geometry.lanes == 1)
        s->reorder = mp_reorder_new(w->region->geometry.mtu, deliver_in_order, w);
    return s->reorder || w->region->geometry.lanes > 1 ? 0 : -ENOMEM;
}

void mp_ingress_exit(struct mp_worker *w)
{
    if (!w->ingress)
        return;
    mp_probe_free(w->ingress->probe);
    mp_rx_peers_free(w->ingress->peers);
    mp_reorder_free(w->ingress->reorder);
    free(w->ingress);
}

uint64_t mp_ingress_due_ns(const struct mp_worker *w)
{
    const struct mp_ingress *s = w->ingress;
    uint64_t probes = mp_probe_due_ns(s->probe), gaps = mp_repair_gaps_due_ns(&s->gaps);
    uint64_t held = s->reorder ? mp_reorder_due_ns(s->reorder) : UINT64_MAX, due = probes < gaps ? probes : gaps;
    return held < due ? held : due;
}

/* ---- 1. receive, 10. publish ---- */

static uint32_t datagrams_in(const struct mp_super *super)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < super->runs; i++)
        n += (super->run[i].length + super->segment - 1) / super->segment;
    return n;
}

/* Set when to receive again.  A burst costs one write a flow: with several flows under load the socket fills first. */
static void moderate(struct mp_worker *w, uint32_t supers)
{
    int fills = w->ingress->has_several_flows && w->schedule.loaded && supers < MP_RECEIVE_BURST;
    w->receive_at_ns = fills ? w->now_ns + (uint64_t)w->config.moderation_us * 1000 / 2 : 0;
}

static void run_timers(struct mp_worker *w)
{
    struct mp_ingress *s = w->ingress;
    if (mp_rx_peers_refresh(s->peers))
        mp_probe_links_changed(s->probe);
    mp_probe_send(s->probe);
    mp_repair_gaps_report(w, &s->gaps);
    if (s->reorder)
        mp_reorder_expire(s->reorder, w->now_ns);
    flush_deliveries(w);
}

uint32_t mp_ingress_burst(struct mp_worker *w)
{
    struct mp_ingress *s = w->ingress;
    struct mp_cursor *own = &w->lane->overlay[0];
    struct mp_received in[MP_RECEIVE_BURST];
    struct mp_super *super[MP_RECEIVE_BURST];
    uint64_t room = mp_room(own, &w->lane->overlay[1], w->region->geometry.overlay_slots), at = mp_position(own);
    uint32_t used = 0;          /* slots in front of the cursor up to the last one to relay or to keep */
    run_timers(w);
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
    /* acquire FIB_VERSION: pairs with next_version of mp_fib.c; look-ups see at least the table of this version */
    uint64_t version = (uint64_t)atomic_load_explicit(&mp_fib(w->region)->version, memory_order_acquire) + 1;
    for (uint32_t i = 0; i < count; i++) {
        datagrams += verify_super(w, super[i], &in[i], s->plain[s->has_several_flows ? i : 0], version);
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

/* ---- 2. verify ---- */

static void count_received(struct mp_worker *w, uint32_t via, uint32_t datagrams, uint32_t bytes)
{
    struct mp_counters *c = w->count[MP_OVERLAY_INGRESS];
    mp_count(c, MP_COUNT_overlay_rx_datagrams, datagrams);
    mp_count(c, MP_COUNT_overlay_rx_bytes, bytes);
    if (via == MP_NO_LINK)
        return;
    struct mp_link_rx *rx = mp_link_rx(w->region, w->config.lane) + via;
    mp_count_in(&rx->datagrams, datagrams);
    mp_count_in(&rx->bytes, bytes);
}

/* Handle all datagrams of a super-buffer.  Returns their number. */
static uint32_t verify_super(struct mp_worker *w, struct mp_super *super, const struct mp_received *in, uint8_t *plain,
                             uint64_t version)
{
    struct mp_ingress *s = w->ingress;
    super->length = in->length;
    super->segment = in->segment;
    super->runs = super->kept = 0;
    uint32_t via = mp_rx_peers_link_of(s->peers, &in->from), datagrams = 0;
    for (uint32_t offset = 0; offset < in->length; offset += in->segment, datagrams++) {
        uint32_t left = in->length - offset, length = left < in->segment ? left : in->segment;
        struct mp_opened o = { .via = via };
        int type = mp_rx_peers_open(s->peers, super->data + offset, length, plain + offset, &o);
        if (type == MP_TYPE_DATA && via == MP_NO_LINK)
            mp_probe_unknown_endpoint(s->probe, o.link);
        if (type == MP_TYPE_DATA)
            receive_data(w, super, offset, length, &o, version);
        else if (type)
            mp_probe_receive(s->probe, type, &o, &in->from);
    }
    if (!s->has_several_flows)
        flush_deliveries(w);
    count_received(w, via, datagrams, in->length);
    return datagrams;
}

/* ---- 3. data ---- */

/* Return whether the order and the gaps of the stream matter. */
static int is_tracked(const struct flow *f)
{
    return f->entry != MP_NO_ENTRY && f->value.stream && (f->value.stripes > 1 || f->value.flags & MP_ENTRY_REPAIR);
}

static int has_links_but(const struct mp_fib_value *v, uint32_t via)
{
    for (uint32_t i = 0; i < v->words; i++)
        if (v->links[i] & ~(via / 64 == i ? UINT64_C(1) << via % 64 : 0))
            return 1;
    return 0;
}

static void receive_data(struct mp_worker *w, struct mp_super *super, uint32_t offset, uint32_t length,
                         const struct mp_opened *o, uint64_t version)
{
    struct mp_counters *c = w->count[MP_OVERLAY_INGRESS];
    struct mp_packet p;
    if (mp_packet_parse(o->body, o->length, &p) || p.class == MP_CLASS_MEMBERSHIP) {
        mp_count(c, MP_DROP_inner, 1);
        return;
    }
    struct flow *f = look_up(w, &p, o->origin, o->via, version);
    uint32_t refused = refusal(w, f, &p, o);
    if (refused) {
        mp_count(c, refused, 1);
        return;
    }
    int tracked = is_tracked(f);
    if (tracked)
        track(w, super, offset, f, o);
    int local = f->entry != MP_NO_ENTRY && f->value.flags & MP_ENTRY_LOCAL;
    const struct mp_fib_value *hops = f->entry != MP_NO_ENTRY ? hops_of(w, f, o) : NULL;
    int onward = hops && has_links_but(hops, o->via);
    if (local && f->undelivered)
        deliver_allowed(w, f, &p, o->body, o->length);
    else if (local && tracked)
        deliver_tracked(w, f, o, &p);
    else if (local)
        deliver(w, &p, o->body, o->length);
    if (onward)
        relay(w, super, offset, length, o->via, hops);
    if (!local && !onward)
        mp_count(c, MP_DROP_not_wanted, 1);
}

/* ---- 4. look up ---- */

static int is_same(const struct flow *f, const struct mp_packet *p, uint32_t origin, uint32_t via, uint64_t version)
{
    return f->version == version && f->origin == origin && f->via == via &&
           !memcmp(f->destination, p->destination, 16) && !memcmp(f->source, p->source, 16);
}

/* Return the place of a flow in the cache.  The link is hashed too: consecutive packets of stripes come by several. */
static struct flow *place_of(struct mp_ingress *s, const struct mp_packet *p, uint32_t via)
{
    uint64_t a, b;
    memcpy(&a, p->source + 8, 8);
    memcpy(&b, p->destination + 8, 8);
    return &s->flows[((a ^ (b << 7 | b >> 57)) + via) * UINT64_C(0x9e3779b97f4a7c15) >> 58];
}
_Static_assert(FLOWS == 64, "six bits of a hash");

static struct flow *look_up(struct mp_worker *w, const struct mp_packet *p, uint32_t origin, uint32_t via,
                            uint64_t version)
{
    struct flow *f = w->ingress->last;
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
        f->track = NULL;
    }
    if (f->entry != MP_NO_ENTRY)
        mp_fib_touch(w->region, f->entry);
    return f;
}

/* Return the entry of the stripe that this stream sequence number takes. */
static const struct mp_fib_value *stripe_of(const struct mp_region *r, struct flow *f, uint32_t stream_sequence)
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

/* Leave the origin out of the next hops: it gets no copy of its own datagram. */
static const struct mp_fib_value *without_origin(struct mp_ingress *s, const struct mp_fib_value *hops,
                                                 const struct mp_opened *o)
{
    uint32_t word = o->link / 64;
    uint64_t bit = UINT64_C(1) << o->link % 64;
    if (o->link == o->via || word >= hops->words || !(hops->links[word] & bit))
        return hops;
    s->hops = *hops;
    s->hops.links[word] &= ~bit;
    return &s->hops;
}

static const struct mp_fib_value *hops_of(struct mp_worker *w, struct flow *f, const struct mp_opened *o)
{
    return without_origin(w->ingress, stripe_of(w->region, f, o->stream_sequence), o);
}

/* ---- 5. refuse ---- */

/* Return the drop counter of a datagram that is neither delivered nor relayed, or 0. */
static uint32_t refusal(const struct mp_worker *w, const struct flow *f, const struct mp_packet *p,
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

/* ---- 6. track ---- */

/* Mark the datagram as received, and keep it for peers that may request it. */
static void track(struct mp_worker *w, struct mp_super *super, uint32_t offset, struct flow *f,
                  const struct mp_opened *o)
{
    uint32_t index = offset / super->segment;
    uint64_t name = mp_repair_track_name(o->origin, f->value.stream, o->epoch);
    if (!f->track || !mp_repair_track_is(f->track, name))
        f->track = mp_repair_track_find(w->region, name, o->stream_sequence);
    int changed = mp_repair_track_mark(f->track, o->stream_sequence, w->now_ns);
    if (!(f->value.flags & MP_ENTRY_REPAIR))
        return;
    if (index < MP_RUNS_MAX) {
        if (!super->kept++)
            memset(super->stream, 0, sizeof super->stream);
        super->stream[index] = (uint16_t)f->value.stream;
    }
    mp_repair_gaps_earn_credit(&w->ingress->gaps);
    if (changed)
        mp_repair_gaps_schedule(w, &w->ingress->gaps, f->track, o->via);
}

/* ---- 7. deliver ---- */

/* All packets of a datagram must be of the flow that the first was looked up by: a node with all keys that packs others
 * behind it gains nothing. */
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

/* Deliver those packets of a datagram that the policy lets reach this host: their ports differ. */
static void deliver_allowed(struct mp_worker *w, const struct flow *f, const struct mp_packet *first,
                            const uint8_t *bytes, uint32_t length)
{
    struct mp_packet p;
    if (f->undelivered != MP_EACH_PACKET) {
        mp_count(w->count[MP_OVERLAY_INGRESS], f->undelivered, 1);
        return;
    }
    for (; length; bytes += p.length, length -= p.length) {
        if (mp_packet_parse(bytes, length, &p) || p.class != MP_CLASS_UNICAST) {
            mp_count(w->count[MP_OVERLAY_INGRESS], MP_DROP_inner, 1);
            return;
        }
        uint32_t denied = mp_unicast_delivers(&w->policy, w->region, bytes, &p, w->now_ns);
        if (denied)
            mp_count(w->count[MP_OVERLAY_INGRESS], denied, 1);
        else
            deliver(w, first, bytes, p.length);
    }
}

static void deliver_tracked(struct mp_worker *w, const struct flow *f, const struct mp_opened *o,
                            const struct mp_packet *p)
{
    struct mp_ingress *s = w->ingress;
    if (!s->reorder) {
        deliver(w, p, o->body, o->length);
        return;
    }
    uint64_t hold_ns = f->value.flags & MP_ENTRY_REPAIR ? HOLD_REPAIR_NS : HOLD_STRIPES_NS;
    mp_reorder_add(s->reorder, (uint32_t)(f->track - mp_repair_tracks(w->region)),
                   mp_repair_track_name(o->origin, f->value.stream, o->epoch), o->stream_sequence, o->body, o->length,
                   w->now_ns, hold_ns);
}

/* Called by mp_reorder with each datagram, in the order of its stream. */
static void deliver_in_order(void *worker, const uint8_t *bytes, uint32_t length)
{
    struct mp_packet p;
    if (!mp_packet_parse(bytes, length, &p))
        deliver(worker, &p, bytes, length);
}

/* ---- 8. relay ---- */

/* Add the datagram to the last run of its super-buffer if links and position fit, else to a new one. */
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

/* ---- 9. flush ---- */

static void flush_deliveries(struct mp_worker *w)
{
    struct mp_ingress *s = w->ingress;
    if (!s->deliveries)
        return;
    uint32_t flows = mp_tun_deliver(w->config.tun, s->delivery, s->deliveries, (int)w->config.super,
                                    w->count[MP_OVERLAY_INGRESS]);
    s->has_several_flows = flows > 1;
    s->deliveries = 0;
    if (s->reorder)
        mp_reorder_recycle(s->reorder);
}
