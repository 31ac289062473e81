/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_rx_peers: copies of links and keys, their indexes, and the verification of datagrams.  See mp_rx_peers.h.
 */
#include "mp_rx_peers.h"

#include <errno.h>
#include <stdlib.h>

#include "mp_links_keys.h"
#include "mp_seal.h"

#define NONE 0xffffu            /* an empty place of an index */

struct mp_rx_peers *mp_rx_peers_new(struct mp_worker *w)
{
    struct mp_rx_peers *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    const struct mp_published *p = mp_published(w->region);
    s->w = w;
    s->count = w->count[MP_OVERLAY_INGRESS];
    s->links_version = atomic_load(&p->links_version) - 1;
    s->keys_version = atomic_load(&p->keys_version) - 1;
    s->sender_version = atomic_load(&p->sender_version) - 1;
    memset(s->by_key, 0xff, sizeof s->by_key);
    memset(s->by_endpoint, 0xff, sizeof s->by_endpoint);
    memset(s->by_node, 0xff, sizeof s->by_node);
    return s;
}

void mp_rx_peers_free(struct mp_rx_peers *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < MP_KEYS_MAX; i++)
        mp_cipher_free(s->keys[i].cipher);
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++) {
        mp_cipher_free(s->probe[i].seal);
        mp_cipher_free(s->probe[i].open);
    }
    mp_cipher_free(s->seal);
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
    while (index[hash % MP_RX_INDEX] != NONE)
        hash++;
    index[hash % MP_RX_INDEX] = (uint16_t)value;
}

static uint32_t link_of_node(const struct mp_rx_peers *s, uint32_t node)
{
    uint32_t h = hash32(node), i;
    while ((i = s->by_node[h % MP_RX_INDEX]) != NONE && s->links[i].node != node)
        h++;
    return i;
}
_Static_assert(NONE == MP_NO_LINK, "the end of a chain is no link");

static uint32_t find_key(struct mp_rx_peers *s, uint32_t origin, uint8_t epoch)
{
    const struct mp_key *last = &s->keys[s->last_key].record;
    if (last->origin == origin && last->epoch == epoch)
        return s->last_key;
    uint32_t h = hash_key(origin, epoch), i;
    while ((i = s->by_key[h % MP_RX_INDEX]) != NONE &&
           (s->keys[i].record.origin != origin || s->keys[i].record.epoch != epoch))
        h++;
    if (i != NONE)
        s->last_key = i;
    return i;
}

uint32_t mp_rx_peers_link_of(const struct mp_rx_peers *s, const union mp_address *from)
{
    struct mp_endpoint e;
    mp_endpoint_from(&e, from);
    uint32_t h = hash_endpoint(&e), i;
    while ((i = s->by_endpoint[h % MP_RX_INDEX]) != NONE) {
        const struct mp_link *l = &s->links[i];
        if (mp_endpoint_is(&l->endpoint, &e) || mp_endpoint_is(&l->candidate, &e))
            return i;
        h++;
    }
    return MP_NO_LINK;
}

/* ---- refresh ---- */

static int has_same_probe_keys(const struct mp_link *a, const struct mp_link *b)
{
    return a->has_probe_keys == b->has_probe_keys && !memcmp(a->probe_seal, b->probe_seal, sizeof a->probe_seal) &&
           !memcmp(a->probe_open, b->probe_open, sizeof a->probe_open);
}

static void refresh_probe_keys(struct mp_rx_peers *s, struct mp_probe_ciphers *c, const struct mp_link *l)
{
    mp_cipher_free(c->seal);
    mp_cipher_free(c->open);
    c->seal = l->has_probe_keys ? mp_cipher_new(s->w->gcm, l->probe_seal, 1) : NULL;
    c->open = l->has_probe_keys ? mp_cipher_new(s->w->gcm, l->probe_open, 0) : NULL;
}

static void refresh_links(struct mp_rx_peers *s, uint32_t version)
{
    s->links_version = version;
    memset(s->by_endpoint, 0xff, sizeof s->by_endpoint);
    memset(s->by_node, 0xff, sizeof s->by_node);
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++) {
        struct mp_link *l = &s->links[i], old = *l;
        if (!mp_link_read(s->w->region, i, l)) {
            l->node = 0;
            s->links_version = version - 1;     /* control is writing it: copied again at the next burst */
        }
        if (!has_same_probe_keys(&old, l))
            refresh_probe_keys(s, &s->probe[i], l);
        if (!l->node)
            continue;
        if (l->endpoint.family)
            index_add(s->by_endpoint, hash_endpoint(&l->endpoint), i);
        index_add(s->by_node, hash32(l->node), i);
    }
    /* Last: a record with another node's endpoint takes no datagrams from that node's link. */
    for (uint32_t i = 0; i < MP_LINKS_MAX; i++)
        if (s->links[i].node && s->links[i].candidate.family)
            index_add(s->by_endpoint, hash_endpoint(&s->links[i].candidate), i);
}

static void refresh_keys(struct mp_rx_peers *s, uint32_t version)
{
    s->keys_version = version;
    memset(s->by_key, 0xff, sizeof s->by_key);
    for (uint32_t i = 0; i < MP_KEYS_MAX; i++) {
        struct mp_rx_key *k = &s->keys[i];
        uint32_t old = k->record.generation;
        if (!mp_key_read(s->w->region, i, &k->record)) {
            k->record.origin = 0;
            s->keys_version = version - 1;      /* control is writing it: copied again at the next burst */
        }
        if (k->record.generation != old || !k->record.origin || !k->cipher) {
            mp_cipher_free(k->cipher);
            k->is_refused = 0;
            k->cipher = k->record.origin && k->record.sealed ? mp_cipher_new(s->w->gcm, k->record.key, 0) : NULL;
        }
        if (k->record.sealed && !k->cipher)
            k->record.origin = 0;       /* no memory: find_key() must not find it by its shortcut either */
        if (k->record.origin)
            index_add(s->by_key, hash_key(k->record.origin, k->record.epoch), i);
    }
}

static void refresh_sender(struct mp_rx_peers *s, uint32_t version)
{
    if (!mp_sender_read(s->w->region, &s->sender))
        return;
    s->sender_version = version;
    mp_cipher_free(s->seal);
    s->seal = s->sender.sealed ? mp_cipher_new(s->w->gcm, s->sender.key[s->sender.active & 1], 1) : NULL;
}

int mp_rx_peers_refresh(struct mp_rx_peers *s)
{
    struct mp_published *p = mp_published(s->w->region);
    /* acquire PUBLISHED_VERSION, three times: pairs with write_record of mp_links_keys.c */
    uint32_t links = atomic_load_explicit(&p->links_version, memory_order_acquire);
    uint32_t keys = atomic_load_explicit(&p->keys_version, memory_order_acquire);
    uint32_t sender = atomic_load_explicit(&p->sender_version, memory_order_acquire);
    int has_links = links != s->links_version, has_keys = keys != s->keys_version;
    if (has_links)
        refresh_links(s, links);
    if (has_keys)
        refresh_keys(s, keys);
    if (sender != s->sender_version)
        refresh_sender(s, sender);
    for (uint32_t i = 0; (has_links || has_keys) && i < MP_KEYS_MAX; i++)
        s->keys[i].link = s->keys[i].record.origin ? link_of_node(s, s->keys[i].record.origin) : MP_NO_LINK;
    return has_links;
}

/* ---- verify ---- */

struct mp_window *mp_rx_peers_window(const struct mp_rx_peers *s, const struct mp_key *k, uint64_t sequence)
{
    uint32_t space = (uint32_t)(sequence >> 56), probes = space >= MP_LANES_MAX;
    uint32_t lane = space - (probes ? MP_LANES_MAX : 0);
    return lane < k->lanes ? mp_windows(s->w->region) + k->window + (probes ? k->lanes : 0u) + lane : NULL;
}

/* What opens a datagram: the sender key of its origin, or for probes and echoes the key of the two nodes, which no
 * third member has.  `is_sealed` says whether it must be sealed. */
static struct mp_cipher *cipher_for(const struct mp_rx_peers *s, const struct mp_rx_key *k, const struct mp_header *h,
                                    int *is_sealed)
{
    int is_probe = h->type == MP_TYPE_PROBE || h->type == MP_TYPE_ECHO;
    if (!is_probe || k->link == MP_NO_LINK || !s->links[k->link].has_probe_keys) {
        *is_sealed = k->record.sealed;
        return k->cipher;
    }
    *is_sealed = 1;
    return s->probe[k->link].open;
}

/* The window is marked only after the tag was verified: without the key nobody can make a genuine datagram a replay.
 * A replayed probe is opened too. */
static int verify(struct mp_rx_peers *s, const struct mp_rx_key *k, const uint8_t *datagram, uint32_t length,
                  const struct mp_header *h, uint8_t *scratch, struct mp_opened *o)
{
    struct mp_window *window = mp_rx_peers_window(s, &k->record, h->sequence);
    int is_sealed;
    struct mp_cipher *cipher = cipher_for(s, k, h, &is_sealed);
    uint32_t tag = is_sealed ? MP_TAG_BYTES : 0;
    if (!window || length < MP_HEADER_BYTES + tag)
        return MP_DROP_wire_header;
    if (!(h->flags & MP_FLAG_SEALED) != !is_sealed || (is_sealed && !cipher))
        return MP_DROP_authentication;
    int is_fresh = mp_window_is_fresh(window, h->sequence);
    if (!is_fresh && h->type != MP_TYPE_PROBE)
        return MP_DROP_replay;
    o->body = datagram + MP_HEADER_BYTES;
    o->length = length - MP_HEADER_BYTES - tag;
    if (is_sealed) {
        if (mp_open(cipher, datagram, o->length, scratch))
            return MP_DROP_authentication;
        o->body = scratch;
    }
    return is_fresh && mp_window_take(window, h->sequence) ? 0 : MP_DROP_replay;
}

static void note_refusal(struct mp_rx_peers *s, struct mp_rx_key *k, uint64_t sequence)
{
    s->has_refusals = k->is_refused = 1;
    k->refused = sequence;
}

int mp_rx_peers_open(struct mp_rx_peers *s, const uint8_t *datagram, uint32_t length, uint8_t *scratch,
                     struct mp_opened *o)
{
    struct mp_header h;
    uint32_t at = NONE;
    int drop = mp_header_read(datagram, length, &h);
    if (!drop && (h.type == MP_TYPE_DATA) != (h.sequence < mp_space(0, 1)))
        drop = MP_DROP_wire_header;     /* data must not mark the windows of probes, nor probes those of data */
    if (!drop && h.origin == s->sender.origin)
        drop = MP_DROP_own_origin;
    if (!drop && (at = find_key(s, h.origin, h.epoch)) == NONE)
        drop = MP_DROP_unknown_origin;
    if (!drop)
        drop = verify(s, &s->keys[at], datagram, length, &h, scratch, o);
    if (drop)
        mp_count(s->count, (uint32_t)drop, 1);
    if (drop == MP_DROP_replay)
        note_refusal(s, &s->keys[at], h.sequence);
    if (drop && (drop != MP_DROP_replay || h.type != MP_TYPE_PROBE))
        return 0;
    o->origin = h.origin;
    o->link = s->keys[at].link;
    o->stream_sequence = h.stream_sequence;
    o->epoch = h.epoch;
    return drop ? MP_TYPE_REPLAYED_PROBE : h.type;
}
