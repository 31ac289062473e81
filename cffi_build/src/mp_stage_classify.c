/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * classify: all work that is done once for a packet: parse, punt, look up, pack, seal.
 *
 * Steps of a packet, as classify_slot() and mp_classify_burst() at the end of this file call them:
 *
 *   1. parse      the inner packet; membership reports are punted and end here
 *   2. look up    policy and forwarding entry of its flow, from a cache
 *   3. punt       the first packet of a flow without entry, so that control learns of the source
 *   4. wait       for a route, for a bounded time: mp_unresolved.h
 *   5. pack       behind small packets of the same flow and burst, or into a datagram of its own
 *   6. seal       header, stream sequence number, next hops of its stripe, tag
 *   7. hand on    to overlay_egress
 *
 * A datagram is open for further packets only within a burst: no packet is delayed for a later one.
 */
#include <errno.h>
#include <stdlib.h>

#include "mp_hand_off.h"
#include "mp_links_keys.h"
#include "mp_lookup.h"
#include "mp_punt.h"
#include "mp_seal.h"
#include "mp_unicast.h"
#include "mp_unresolved.h"

#define BURST 128u              /* slots at a time: small packets fill eight datagrams, and egress waits briefly */
#define FLOWS 128u              /* cached look-ups, direct-mapped */
#define PUNT_AGAIN_NS UINT64_C(1000000000) /* a flow without entry is punted once in that time */
#define PUNT_ANEW_NS (2 * PUNT_AGAIN_NS) /* control may forget a source that pauses so long: its packets wait again */
#define PUNT_SOURCE_BYTES 64u   /* of the packet: its headers */

/* Cached look-up of a (source, destination) pair; valid for one version of the forwarding table. */
struct flow {
    uint8_t source[16], destination[16];
    uint64_t version;           /* of the table, plus 1; 0: unused */
    uint64_t punted_ns;         /* last punt of the source; 0: none */
    uint64_t first_ns;          /* first punt of the source: packets soon after it wait for a route */
    uint32_t held_ever;         /* packets that have waited since */
    uint32_t held;              /* packets that wait now, in mp_unresolved or the ring: all others wait behind them */
    uint16_t round;             /* of mp_unresolved, in which its last packet was put back */
    uint32_t entry;             /* or MP_NO_ENTRY */
    uint32_t drop;              /* drop counter; 0: forward */
    uint32_t refused;           /* drop counter of the policy, or MP_EACH_PACKET; 0: allowed */
    uint32_t rate;              /* the rate slot of the group */
    struct mp_slot *open;       /* datagram of this burst that may take another packet */
    struct mp_fib_value value;  /* of stripe 0 */
    struct mp_fib_value later[MP_STRIPES_MAX - 1]; /* of the stripes from 1 on, if the entry has any */
};

struct mp_classify {
    struct mp_sender sender;
    uint32_t sender_version;
    uint32_t has_sender;
    struct mp_cipher *cipher[2];
    struct flow *opened[BURST]; /* flows with an open datagram */
    uint32_t opened_count;
    struct flow flows[FLOWS];
};

int mp_classify_init(struct mp_worker *w)
{
    w->classify = calloc(1, sizeof *w->classify);
    if (!w->classify)
        return -ENOMEM;
    w->classify->sender_version = atomic_load(&mp_published(w->region)->sender_version) - 1;
    return 0;
}

void mp_classify_exit(struct mp_worker *w)
{
    if (!w->classify)
        return;
    mp_cipher_free(w->classify->cipher[0]);
    mp_cipher_free(w->classify->cipher[1]);
    explicit_bzero(w->classify, sizeof *w->classify);
    free(w->classify);
}

/* Copy the keys of the sender when control has written new ones. */
static void refresh_sender(struct mp_worker *w)
{
    struct mp_classify *s = w->classify;
    /* acquire PUBLISHED_VERSION: pairs with write_record of mp_links_keys.c */
    uint32_t version = atomic_load_explicit(&mp_published(w->region)->sender_version, memory_order_acquire);
    if (version == s->sender_version || !mp_sender_read(w->region, &s->sender))
        return;
    s->sender_version = version;
    s->has_sender = s->sender.origin != 0;
    for (int i = 0; i < 2; i++) {
        mp_cipher_free(s->cipher[i]);
        s->cipher[i] = s->sender.sealed ? mp_cipher_new(w->gcm, s->sender.key[i], 1) : NULL;
        s->has_sender &= s->cipher[i] || !s->sender.sealed;
    }
}

/* ---- punt ---- */

/* Return 0 if the stage's own process must do it. */
static int punt_membership(struct mp_worker *w, const uint8_t *bytes, const struct mp_packet *p)
{
    if (!mp_has_stage(w, MP_CLASSIFY))
        return 0;
    mp_punt_add(w, MP_CLASSIFY, MP_PUNT_MEMBERSHIP, bytes, p->length);
    return 1;
}

/* Return 0 if the stage's own process must do it, which is so once in PUNT_AGAIN_NS. */
static int punt_source(struct mp_worker *w, struct flow *f, const uint8_t *bytes, const struct mp_packet *p)
{
    if (f->entry != MP_NO_ENTRY)
        return 1;
    if (p->class != MP_CLASS_GROUP || (f->punted_ns && w->now_ns - f->punted_ns < PUNT_AGAIN_NS))
        return 1;
    if (!f->punted_ns || w->now_ns - f->punted_ns > PUNT_ANEW_NS) {
        f->first_ns = w->now_ns;
        f->held_ever = f->held = 0;
    }
    f->punted_ns = w->now_ns;
    if (!mp_has_stage(w, MP_CLASSIFY))
        return 0;
    uint32_t length = p->length < PUNT_SOURCE_BYTES ? p->length : PUNT_SOURCE_BYTES;
    mp_punt_add(w, MP_CLASSIFY, MP_PUNT_SOURCE, bytes, length);
    return 1;
}

/* ---- wait ---- */

/* Return whether a stale look-up is kept: while packets of a flow wait, it changes only at the beginning of a round, so
 * that no packet overtakes those that wait. */
static int is_settled(const struct mp_worker *w, const struct flow *f, const struct mp_slot *slot)
{
    int begins = slot->unresolved_ns && slot->round != f->round;
    /* the bound in time is for packets that a dead process has lost */
    return f->held && !begins && w->now_ns - f->first_ns < 2 * MP_UNRESOLVED_NS;
}

static void count_put_back(struct flow *f, const struct mp_slot *slot)
{
    if (!slot->unresolved_ns)
        return;
    f->round = slot->round;
    f->held -= f->held > 0;
}

static int can_wait(const struct mp_worker *w, const struct flow *f, const struct mp_slot *slot)
{
    uint64_t since = slot->unresolved_ns ? slot->unresolved_ns : f->first_ns;
    return f->drop == MP_DROP_no_member && f->punted_ns && w->now_ns - since < MP_UNRESOLVED_NS;
}

/* Return 0 if the stage's own process must do it. */
static int wait_for_route(struct mp_worker *w, struct flow *f, const struct mp_slot *slot, const uint8_t *bytes,
                          uint32_t length)
{
    uint64_t since = slot->unresolved_ns ? slot->unresolved_ns : w->now_ns;
    if (!mp_has_stage(w, MP_CLASSIFY))
        return 0;
    int fits = slot->unresolved_ns || f->held_ever < MP_UNRESOLVED_PER_FLOW;
    if (fits && mp_unresolved_add(w->region, w->config.lane, bytes, length, since)) {
        f->held_ever += !slot->unresolved_ns;
        f->held++;
        mp_bell_write(w->config.bell[MP_TUN_INGRESS]);
    } else {
        mp_count(w->count[MP_CLASSIFY], MP_DROP_no_member, 1);
    }
    return 1;
}

/* ---- look up ---- */

static int has_links(const struct mp_fib_value *v)
{
    uint64_t any = 0;
    for (uint32_t i = 0; i < v->words; i++)
        any |= v->links[i];
    return any != 0;
}

static uint32_t stripes_of(const struct mp_fib_value *v)
{
    return v->stripes < MP_STRIPES_MAX ? v->stripes : MP_STRIPES_MAX;
}

static void find_entry(struct mp_worker *w, struct flow *f, const struct mp_packet *p)
{
    const struct mp_region *r = w->region;
    struct mp_fib_key key;
    f->entry = mp_lookup_host(r, p, &key, &f->value);
    int any = f->entry != MP_NO_ENTRY && has_links(&f->value);
    for (uint32_t stripe = 1; f->entry != MP_NO_ENTRY && stripe < stripes_of(&f->value); stripe++) {
        mp_fib_stripe(r, &key, stripe, &f->later[stripe - 1]);
        any |= has_links(&f->later[stripe - 1]);
    }
    f->drop = any ? 0 : p->class == MP_CLASS_UNICAST ? MP_DROP_not_overlay : MP_DROP_no_member;
}

/* 24 bits: the low ones select the place in the cache. */
static uint32_t flow_hash(const struct mp_packet *p)
{
    uint64_t a, b, c, d;
    memcpy(&a, p->source, 8);
    memcpy(&b, p->source + 8, 8);
    memcpy(&c, p->destination, 8);
    memcpy(&d, p->destination + 8, 8);
    return (uint32_t)(((a ^ c) + (b ^ (d << 7 | d >> 57))) * UINT64_C(0x9e3779b97f4a7c15) >> 40);
}

static void close_datagram(struct mp_worker *w, struct flow *f);

static struct flow *find_flow(struct mp_worker *w, const struct mp_packet *p, const struct mp_slot *slot,
                              uint64_t version)
{
    struct flow *f = &w->classify->flows[flow_hash(p) % FLOWS];
    int same = f->version && !memcmp(f->source, p->source, 16) && !memcmp(f->destination, p->destination, 16);
    if (same && (f->version == version || is_settled(w, f, slot)))
        return f;
    if (f->open)
        close_datagram(w, f);
    memcpy(f->source, p->source, 16);
    memcpy(f->destination, p->destination, 16);
    f->version = version;
    if (!same)
        f->punted_ns = f->held = 0;
    f->refused = mp_policy_sends(&w->policy, w->region, p);
    f->rate = mp_rate_slot(w->region, p->destination);
    find_entry(w, f, p);
    return f;
}

/* ---- pack and seal ---- */

/* Return the entry of the stripe that this stream sequence number takes. */
static const struct mp_fib_value *stripe_of(const struct flow *f, uint32_t stream_sequence)
{
    uint32_t stripes = stripes_of(&f->value), stripe = stripes > 1 ? stream_sequence % stripes : 0;
    return stripe ? &f->later[stripe - 1] : &f->value;
}

static void close_datagram(struct mp_worker *w, struct flow *f)
{
    struct mp_classify *s = w->classify;
    struct mp_slot *slot = f->open;
    struct mp_cursor *sequence = &w->lane->data_sequence;
    uint64_t number = atomic_load_explicit(&sequence->at, memory_order_relaxed);
    uint8_t *header = mp_slot_packet(slot) - MP_HEADER_BYTES;
    uint8_t epoch = s->sender.epoch[s->sender.active & 1];
    f->open = NULL;
    atomic_store_explicit(&sequence->at, number + 1, memory_order_relaxed);  /* first: a nonce is never used twice */
    struct mp_header h = {
        .type = MP_TYPE_DATA, .flags = s->sender.sealed ? MP_FLAG_SEALED : 0, .hop_limit = MP_HOP_LIMIT,
        .epoch = epoch, .origin = s->sender.origin, .sequence = mp_space(w->config.lane, 0) | number,
        .stream_sequence = atomic_fetch_add_explicit(&mp_streams(w->region)[f->value.stream], 1, memory_order_relaxed),
    };
    mp_header_write(header, &h);
    if (s->sender.sealed && mp_seal(s->cipher[epoch & 1], header, slot->length)) {
        mp_count(w->count[MP_CLASSIFY], MP_DROP_no_key, 1);
        return;
    }
    slot->length += MP_HEADER_BYTES + (s->sender.sealed ? MP_TAG_BYTES : 0);
    const struct mp_fib_value *hops = stripe_of(f, h.stream_sequence);
    memcpy(slot->links, hops->links, hops->words * sizeof slot->links[0]);
    slot->flow = (uint16_t)(f - s->flows);
    slot->stream = f->value.flags & MP_ENTRY_REPAIR ? (uint16_t)f->value.stream : 0;
    /* last: overlay_egress passes over slots without links, also those that a dead classify left half-way */
    atomic_signal_fence(memory_order_release);
    slot->words = hops->words;
    mp_count(w->count[MP_CLASSIFY], MP_COUNT_sealed, 1);
}

static void add_to_datagram(struct mp_worker *w, struct flow *f, struct mp_slot *slot, uint32_t length)
{
    struct mp_classify *s = w->classify;
    if (f->open && f->open->length + length <= w->region->geometry.mtu) {
        memcpy(mp_slot_packet(f->open) + f->open->length, mp_slot_packet(slot), length);
        f->open->length += length;
        mp_count(w->count[MP_CLASSIFY], MP_COUNT_packed, 1);
        return;
    }
    if (f->open)
        close_datagram(w, f);
    else
        s->opened[s->opened_count++] = f;
    slot->length = length;
    f->open = slot;
}

/* ---- the stage ---- */

/* Return 0 if the packet is left to the stage's own process, which can punt it. */
static int classify_slot(struct mp_worker *w, struct mp_slot *slot, uint64_t version)
{
    struct mp_counters *c = w->count[MP_CLASSIFY];
    const uint8_t *bytes = mp_slot_packet(slot);
    struct mp_packet p;
    if (slot->unresolved_ns && !mp_has_stage(w, MP_CLASSIFY))
        return 0;
    int drop = mp_packet_parse(bytes, slot->length, &p);
    if (drop) {
        mp_count(c, (uint32_t)drop, 1);
        return 1;
    }
    if (p.class == MP_CLASS_MEMBERSHIP)
        return punt_membership(w, bytes, &p);
    if (p.length > w->region->geometry.mtu) {
        mp_count(c, MP_DROP_too_big, 1);
        return 1;
    }
    struct flow *f = find_flow(w, &p, slot, version);
    count_put_back(f, slot);
    if (f->refused) {
        uint32_t refused = f->refused;
        if (refused == MP_EACH_PACKET)
            refused = mp_unicast_sends(&w->policy, w->region, bytes, &p, w->now_ns);
        if (refused) {
            mp_count(c, refused, 1);
            return 1;
        }
    }
    if (f->entry != MP_NO_ENTRY)
        mp_fib_touch(w->region, f->entry);
    if (!punt_source(w, f, bytes, &p))
        return 0;
    if (f->drop && can_wait(w, f, slot))
        return wait_for_route(w, f, slot, bytes, p.length);
    if (f->drop)
        mp_count(c, f->drop, 1);
    else if (!w->classify->has_sender)
        mp_count(c, MP_DROP_no_key, 1);
    else if (p.class != MP_CLASS_UNICAST &&
             !mp_rate_take(w->region, MP_RATE_SEND, f->rate, w->policy.send_pps, w->now_ns))
        mp_count(c, MP_DROP_group_rate, 1);
    else
        add_to_datagram(w, f, slot, p.length);
    return 1;
}

uint32_t mp_classify_burst(struct mp_worker *w)
{
    struct mp_classify *s = w->classify;
    struct mp_cursor *own = &w->lane->host[1];
    uint64_t ready = mp_ready(&w->lane->host[0], own), at = mp_position(own);
    uint32_t most = ready < BURST ? (uint32_t)ready : BURST, count = 0;
    if (!most || (mp_unresolved_ready(w->lane) && !mp_has_stage(w, MP_CLASSIFY)))
        return 0;
    refresh_sender(w);
    /* acquire FIB_VERSION: pairs with next_version of mp_fib.c; look-ups see at least the table of this version */
    uint64_t version = (uint64_t)atomic_load_explicit(&mp_fib(w->region)->version, memory_order_acquire) + 1;
    while (count < most && classify_slot(w, mp_host_slot(w->region, w->config.lane, at + count), version))
        count++;
    while (s->opened_count) {
        struct flow *f = s->opened[--s->opened_count];
        if (f->open)
            close_datagram(w, f);
    }
    mp_publish(own, count);
    mp_hand_off(w, MP_OVERLAY_EGRESS, mp_ready(&w->lane->host[0], own) > 0);
    return count;
}
