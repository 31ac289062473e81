/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_peers: keys, endpoints and probes of overlay_ingress.  See mp_peers.h.
 */
#include "mp_peers.h"

#include <errno.h>
#include <stdlib.h>

#include "mp_seal.h"
#include "mp_links_keys.h"

#define INDEX 4096u             /* twice the keys: short chains of linear probing */
#define PROBE_NS UINT64_C(1000000000)
#define PROBE_BODY 16u          /* u64 time of sending, u64 reserved */
#define NONE 0xffffu

struct key {
    struct mp_key is;
    struct mp_cipher *cipher;
    uint32_t link;              /* to the origin, or MP_NO_LINK */
};

struct peer_link {
    struct mp_link is;
    uint32_t waits;             /* for the answer to the last probe */
};

struct mp_peers {
    struct mp_worker *w;
    struct mp_counters *count;
    uint32_t links_version, keys_version, sender_version;
    uint32_t last_key;          /* consecutive datagrams mostly have one origin */
    uint64_t due_ns;
    struct mp_sender sender;
    struct mp_cipher *cipher;   /* seals probes and echoes */
    uint16_t by_key[INDEX], by_endpoint[INDEX], by_node[INDEX];
    struct key keys[MP_KEYS_MAX];
    struct peer_link links[MP_LINKS_MAX];
};

struct mp_peers *mp_peers_new(struct mp_worker *w)
{
    struct mp_peers *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    const struct mp_published *t = mp_published(w->region);
    s->w = w;
    s->count = w->count[MP_OVERLAY_INGRESS];
    s->links_version = atomic_load(&t->links_version) - 1;
    s->keys_version = atomic_load(&t->keys_version) - 1;
    s->sender_version = atomic_load(&t->sender_version) - 1;
    s->due_ns = w->config.lane ? UINT64_MAX : 0;
    memset(s->by_key, 0xff, sizeof s->by_key);
    memset(s->by_endpoint, 0xff, sizeof s->by_endpoint);
    memset(s->by_node, 0xff, sizeof s->by_node);
    return s;
}

void mp_peers_free(struct mp_peers *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < MP_KEYS_MAX; i++)
        mp_cipher_free(s->keys[i].cipher);
    mp_cipher_free(s->cipher);
    explicit_bzero(s, sizeof *s);
    free(s);
}

/* ---- indexes ---- */

static uint32_t hash32(uint32_t v)
{
    return v * 0x9e3779b1u >> 16;
}

static uint32_t hash_key(uint32_t origin, uint8_t epoch)
{
    return hash32(origin ^ (uint32_t)epoch << 24);
}

static uint32_t hash_endpoint(const struct mp_endpoint *e)
{
    uint32_t h = e->port, part;
    for (size_t i = 0; i < sizeof e->address; i += sizeof part) {
        memcpy(&part, e->address + i, sizeof part);
        h = (h ^ part) * 0x85ebca6bu;
    }
    return hash32(h);
}

static void index_add(uint16_t *index, uint32_t hash, uint32_t value)
{
    while (index[hash % INDEX] != NONE)
        hash++;
    index[hash % INDEX] = (uint16_t)value;
}

static uint32_t link_of_node(const struct mp_peers *s, uint32_t node)
{
    uint32_t h = hash32(node), i;
    while ((i = s->by_node[h % INDEX]) != NONE && s->links[i].is.node != node)
        h++;
    return i;
}

static uint32_t find_key(struct mp_peers *s, uint32_t origin, uint8_t epoch)
{
    const struct mp_key *last = &s->keys[s->last_key].is;
    if (last->origin == origin && last->epoch == epoch)
        return s->last_key;
    uint32_t h = hash_key(origin, epoch), i;
    while ((i = s->by_key[h % INDEX]) != NONE && (s->keys[i].is.origin != origin || s->keys[i].is.epoch != epoch))
        h++;
    if (i != NONE)
        s->last_key = i;
    return i;
}

uint32_t mp_peers_link_of(struct mp_peers *s, const union mp_address *from)
{
    struct mp_endpoint e;
    mp_endpoint_from(&e, from);
    uint32_t h = hash_endpoint(&e), i;
    while ((i = s->by_endpoint[h % INDEX]) != NONE) {
        const struct mp_endpoint *is = &s->links[i].is.endpoint;
        if (is->port == e.port && is->family == e.family && !memcmp(is->address, e.address, 16))
            return i;
        h++;
    }
    return MP_NO_LINK;
}

/* ---- refresh ---- */

static void refresh_links(struct mp_peers *s, uint32_t version)
{
    s->links_version = version;
    memset(s->by_endpoint, 0xff, sizeof s->by_endpoint);
    memset(s->by_node, 0xff, sizeof s->by_node);
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++) {
        struct peer_link *l = &s->links[i];
        uint32_t was_up = l->is.up && l->is.node;
        if (!mp_link_read(s->w->region, i, &l->is)) {
            l->is.node = 0;
            s->links_version = version - 1;     /* control is writing it: once more at the next burst */
        }
        if (!l->is.node)
            continue;
        index_add(s->by_endpoint, hash_endpoint(&l->is.endpoint), i);
        index_add(s->by_node, hash32(l->is.node), i);
        if (l->is.up && !was_up) {
            l->waits = 0;
            if (!s->w->config.lane)
                s->due_ns = 0;                  /* measure a new link at once */
        }
    }
}

static void refresh_keys(struct mp_peers *s, uint32_t version)
{
    s->keys_version = version;
    memset(s->by_key, 0xff, sizeof s->by_key);
    for (uint32_t i = 0; i < MP_KEYS_MAX; i++) {
        struct key *k = &s->keys[i];
        uint32_t old = k->is.generation;
        if (!mp_key_read(s->w->region, i, &k->is)) {
            k->is.origin = 0;
            s->keys_version = version - 1;
        }
        if (k->is.generation != old || !k->is.origin || !k->cipher) {
            mp_cipher_free(k->cipher);
            k->cipher = k->is.origin && k->is.sealed ? mp_cipher_new(s->w->gcm, k->is.key, 0) : NULL;
        }
        if (k->is.sealed && !k->cipher)
            k->is.origin = 0;   /* no memory: find_key() must not find it by its shortcut either */
        if (k->is.origin)
            index_add(s->by_key, hash_key(k->is.origin, k->is.epoch), i);
    }
}

static void refresh_sender(struct mp_peers *s, uint32_t version)
{
    if (!mp_sender_read(s->w->region, &s->sender))
        return;
    s->sender_version = version;
    mp_cipher_free(s->cipher);
    s->cipher = s->sender.sealed ? mp_cipher_new(s->w->gcm, s->sender.key[s->sender.active & 1], 1) : NULL;
}

void mp_peers_refresh(struct mp_peers *s)
{
    struct mp_published *t = mp_published(s->w->region);
    uint32_t links = atomic_load_explicit(&t->links_version, memory_order_acquire);
    uint32_t keys = atomic_load_explicit(&t->keys_version, memory_order_acquire);
    uint32_t sender = atomic_load_explicit(&t->sender_version, memory_order_acquire);
    int changed = links != s->links_version || keys != s->keys_version;
    if (links != s->links_version)
        refresh_links(s, links);
    if (keys != s->keys_version)
        refresh_keys(s, keys);
    if (sender != s->sender_version)
        refresh_sender(s, sender);
    for (uint32_t i = 0; changed && i < MP_KEYS_MAX; i++)
        s->keys[i].link = s->keys[i].is.origin ? link_of_node(s, s->keys[i].is.origin) : MP_NO_LINK;
}

void mp_peers_received(struct mp_peers *s, uint32_t link, uint32_t datagrams, uint64_t bytes)
{
    if (link == MP_NO_LINK)
        return;
    struct mp_link_rx *rx = mp_link_rx(s->w->region, s->w->config.lane) + link;
    mp_count_in(&rx->datagrams, datagrams);
    mp_count_in(&rx->bytes, bytes);
}

/* ---- probes and echoes ---- */

static void send_own(struct mp_peers *s, uint32_t type, const uint8_t *body, const union mp_address *to,
                     socklen_t to_length, uint32_t link)
{
    uint8_t datagram[MP_HEADER_BYTES + PROBE_BODY + MP_TAG_BYTES];
    struct mp_cursor *sequence = &s->w->lane->probe_sequence;
    uint64_t number = atomic_load_explicit(&sequence->at, memory_order_relaxed);
    uint32_t length = MP_HEADER_BYTES + PROBE_BODY;
    if (!s->sender.origin || (s->sender.sealed && !s->cipher))
        return;
    atomic_store_explicit(&sequence->at, number + 1, memory_order_relaxed);
    struct mp_header h = { .type = (uint8_t)type, .flags = s->sender.sealed ? MP_FLAG_SEALED : 0, .hop_limit = 1,
                           .epoch = s->sender.epoch[s->sender.active & 1], .origin = s->sender.origin,
                           .sequence = mp_space(s->w->config.lane, 1) | number };
    mp_header_write(datagram, &h);
    memcpy(datagram + MP_HEADER_BYTES, body, PROBE_BODY);
    if (s->sender.sealed) {
        if (mp_seal(s->cipher, datagram, PROBE_BODY))
            return;
        length += MP_TAG_BYTES;
    }
    if (sendto(s->w->config.udp, datagram, length, MSG_DONTWAIT, &to->any, to_length) < 0)
        mp_count(s->count, MP_DROP_send_failed, 1);
    else if (link != MP_NO_LINK)
        mp_count_in(&mp_link_rx(s->w->region, s->w->config.lane)[link].probe_bytes, length);
}

static uint64_t smoothed(uint64_t old, uint64_t sample)
{
    return old ? (old * 7 + sample) / 8 : sample;
}

static void take_echo(struct mp_peers *s, const uint8_t *body, uint32_t link)
{
    uint64_t sent;
    memcpy(&sent, body, sizeof sent);
    if (link == MP_NO_LINK || sent > s->w->now_ns)
        return;
    struct mp_link_rx *rx = mp_link_rx(s->w->region, s->w->config.lane) + link;
    uint64_t rtt = atomic_load_explicit(&rx->rtt_ns, memory_order_relaxed);
    atomic_store_explicit(&rx->rtt_ns, smoothed(rtt, mp_now_ns() - sent), memory_order_relaxed);
    mp_count_in(&rx->echoes, 1);
    s->links[link].waits = 0;
}

/* A probe or echo comes straight from its origin: if from a new address, control should know. */
static void check_endpoint(struct mp_peers *s, const union mp_address *from, uint32_t link)
{
    struct { uint32_t link; struct mp_endpoint endpoint; } moved = { .link = link };
    const struct mp_endpoint *is = &s->links[link].is.endpoint;
    mp_endpoint_from(&moved.endpoint, from);
    if (is->port != moved.endpoint.port || memcmp(is->address, moved.endpoint.address, 16))
        mp_punt_add(s->w, MP_OVERLAY_INGRESS, MP_PUNT_ENDPOINT, &moved, sizeof moved);
}

static void take_own_type(struct mp_peers *s, const struct mp_header *h, const struct mp_opened *o,
                          const union mp_address *from, uint32_t link)
{
    if (o->length != PROBE_BODY) {
        mp_count(s->count, MP_DROP_wire_header, 1);
        return;
    }
    if (h->type == MP_TYPE_PROBE && link != MP_NO_LINK)
        mp_count_in(&mp_link_rx(s->w->region, s->w->config.lane)[link].answered, 1);
    if (h->type == MP_TYPE_PROBE)
        send_own(s, MP_TYPE_ECHO, o->body, from, from->any.sa_family == AF_INET ? sizeof from->v4 : sizeof from->v6, link);
    else
        take_echo(s, o->body, link);
    if (link != MP_NO_LINK && s->sender.sealed)
        check_endpoint(s, from, link);
}

static void probe_link(struct mp_peers *s, uint32_t link)
{
    struct peer_link *l = &s->links[link];
    struct mp_link_rx *rx = mp_link_rx(s->w->region, s->w->config.lane) + link;
    uint64_t body[2] = { s->w->now_ns, 0 };
    if (atomic_load_explicit(&rx->echoes, memory_order_relaxed)) {   /* before the first the peer may lack our key */
        uint64_t loss = atomic_load_explicit(&rx->loss_ppm, memory_order_relaxed);
        atomic_store_explicit(&rx->loss_ppm, (loss * 15 + (l->waits ? 1000000 : 0)) / 16, memory_order_relaxed);
    }
    struct mp_target t;
    mp_target_set(&t, &l->is.endpoint);
    l->waits = 1;
    mp_count_in(&rx->probes, 1);
    send_own(s, MP_TYPE_PROBE, (const uint8_t *)body, &t.address, t.length, link);
}

void mp_peers_probe(struct mp_peers *s)
{
    if (s->w->now_ns < s->due_ns)
        return;
    s->due_ns = s->w->now_ns + PROBE_NS;
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++)
        if (s->links[i].is.node && s->links[i].is.up && s->links[i].is.endpoint.family)
            probe_link(s, i);
}

uint64_t mp_peers_due_ns(const struct mp_peers *s)
{
    return s->due_ns;
}

/* ---- verify ---- */

/* The replay window of the datagram's sequence space, NULL if the origin has no such space. */
static struct mp_window *window_of(const struct mp_peers *s, const struct mp_key *k, uint64_t sequence)
{
    uint32_t space = (uint32_t)(sequence >> 56), probes = space >= MP_LANES_MAX;
    uint32_t lane = space - (probes ? MP_LANES_MAX : 0);
    return lane < k->lanes ? mp_windows(s->w->region) + k->window + (probes ? k->lanes : 0u) + lane : NULL;
}

static int verify(struct mp_peers *s, const struct key *k, const uint8_t *datagram, uint32_t length,
                  const struct mp_header *h, uint8_t *scratch, struct mp_opened *o)
{
    struct mp_window *window = window_of(s, &k->is, h->sequence);
    uint32_t tag = k->is.sealed ? MP_TAG_BYTES : 0;
    if (!window || length < MP_HEADER_BYTES + tag)
        return MP_DROP_wire_header;
    if (!(h->flags & MP_FLAG_SEALED) != !k->is.sealed)
        return MP_DROP_authentication;
    if (!mp_window_is_fresh(window, h->sequence))
        return MP_DROP_replay;
    o->body = datagram + MP_HEADER_BYTES;
    o->length = length - MP_HEADER_BYTES - tag;
    if (k->is.sealed) {
        if (mp_open(k->cipher, datagram, o->length, scratch))
            return MP_DROP_authentication;
        o->body = scratch;
    }
    return mp_window_take(window, h->sequence) ? 0 : MP_DROP_replay;
}

int mp_peers_open(struct mp_peers *s, const uint8_t *datagram, uint32_t length, uint8_t *scratch,
                  const union mp_address *from, struct mp_opened *o)
{
    struct mp_header h;
    uint32_t at = NONE;
    int drop = mp_header_read(datagram, length, &h);
    if (!drop && h.origin == s->sender.origin)
        drop = MP_DROP_own_origin;
    if (!drop && (at = find_key(s, h.origin, h.epoch)) == NONE)
        drop = MP_DROP_unknown_origin;
    if (!drop)
        drop = verify(s, &s->keys[at], datagram, length, &h, scratch, o);
    if (drop) {
        mp_count(s->count, (uint32_t)drop, 1);
        return 0;
    }
    o->origin = h.origin;
    o->link = s->keys[at].link;
    o->stream_sequence = h.stream_sequence;
    o->epoch = h.epoch;
    if (h.type == MP_TYPE_DATA)
        return MP_TYPE_DATA;
    take_own_type(s, &h, o, from, s->keys[at].link);
    return 0;
}
