/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_fib: the hash table.  See mp_fib.h for the guarantees to readers and writer.
 *
 * Order of the file: the hash, the look-up of readers, then the writer: attach, set, delete, walk.
 */
#include "mp_fib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mp_seqlock.h"

#define KEY_WORDS (sizeof(struct mp_fib_key) / sizeof(uint64_t))

/* Entries are copied in words.  The four small fields behind `used` are one word. */
#define SMALL_AT offsetof(struct mp_fib_entry, flags)
_Static_assert(sizeof(struct mp_fib_key) % 8 == 0 && offsetof(struct mp_fib_entry, key) % 8 == 0, "read as words");
_Static_assert(SMALL_AT % 4 == 0 && offsetof(struct mp_fib_entry, links) == SMALL_AT + 4, "flags, stripes, words");

struct small {
    uint8_t flags, reserved, stripes, words;
};
_Static_assert(sizeof(struct small) == 4, "moved as one word");

/* ---- hash ---- */

__extension__ typedef unsigned __int128 product;

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    product p = (product)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

/* Folded multiplications as in wyhash (Wang Yi, public domain).  The seed is secret and enters each factor, so that a
 * sender that chooses groups can neither aim at one bucket nor make a factor zero. */
static uint32_t hash_key(const struct mp_fib_key *key, uint32_t seed)
{
    uint64_t w[KEY_WORDS], s = ((uint64_t)seed + 1u) * UINT64_C(0x9e3779b97f4a7c15);
    memcpy(w, key, sizeof w);
    uint64_t a = fold(w[0] ^ s ^ UINT64_C(0xa0761d6478bd642f), w[1] ^ s ^ UINT64_C(0xe7037ed1a0b428db));
    uint64_t b = fold(w[2] ^ s ^ UINT64_C(0x8ebc6af09c88c6e3), w[3] ^ s ^ UINT64_C(0x589965cc75374cc3));
    uint64_t c = fold(w[4] ^ a ^ UINT64_C(0x1d8e4e27c47d124f), b ^ s ^ UINT64_C(0xeb44accab455d165));
    return (uint32_t)(c ^ c >> 32);
}

static inline _Atomic uint32_t *bucket_of(const struct mp_region *r, uint32_t hash)
{
    return (_Atomic uint32_t *)mp_at(r, r->fib_buckets_at) + (hash & (r->geometry.fib_buckets - 1u));
}

static inline struct mp_fib_entry *entry_at(const struct mp_region *r, uint32_t index)
{
    return (struct mp_fib_entry *)mp_at(r, r->fib_entries_at) + index;
}

static inline uint32_t load32(const void *word, memory_order order)
{
    return atomic_load_explicit((const _Atomic uint32_t *)word, order);
}

static inline uint64_t load64(const void *words, size_t i)
{
    return atomic_load_explicit((const _Atomic uint64_t *)words + i, memory_order_relaxed);
}

/* ---- reader ---- */

static inline int has_key(const struct mp_fib_entry *e, const struct mp_fib_key *key)
{
    uint64_t w[KEY_WORDS], differs = 0;
    memcpy(w, key, sizeof w);
    for (size_t i = 0; i < KEY_WORDS; i++)
        differs |= w[i] ^ load64(&e->key, i);
    return !differs;
}

static inline void copy_value(const struct mp_fib_entry *e, struct mp_fib_value *value)
{
    struct small small;
    mp_words_load(&small, (const char *)e + SMALL_AT, 1);
    value->stream = load32(&e->stream, memory_order_relaxed);
    value->flags = small.flags;
    value->stripes = small.stripes;
    value->words = small.words;
    for (uint32_t i = 0; i < small.words && i < MP_LINK_WORDS; i++)
        value->links[i] = load64(e->links, i);
}

/* Walk once along a chain.  Returns 1 with the outcome in *found, or 0 if the writer disturbed the walk. */
static int walk(const struct mp_region *r, uint32_t hash, const struct mp_fib_key *key, struct mp_fib_value *value,
                uint32_t *found)
{
    _Atomic uint32_t *bucket = bucket_of(r, hash);
    /* acquire FIB_HEAD: pairs with link_head; the entry is filled */
    uint32_t head = atomic_load_explicit(bucket, memory_order_acquire), head_generation = 0;
    uint32_t hops = 0;
    *found = MP_NO_ENTRY;
    for (uint32_t index = head; index != MP_NO_ENTRY; hops++) {
        const struct mp_fib_entry *e = entry_at(r, index);
        uint32_t generation = mp_seq_enter(&e->generation);
        if (index == head)
            head_generation = generation;
        uint32_t hash_here = load32(&e->hash, memory_order_relaxed);
        /* acquire FIB_UNLINK: pairs with unlink_entry; a reader that misses an entry by it sees the replacement */
        uint32_t next = load32(&e->next, memory_order_acquire);
        int matches = hash_here == hash && has_key(e, key);
        if (matches)
            copy_value(e, value);
        if (!mp_seq_same(&e->generation, generation) || ((hash_here ^ hash) & (r->geometry.fib_buckets - 1u)) ||
            hops == r->geometry.fib_entries)
            return 0;
        if (matches) {
            *found = index;
            return 1;
        }
        index = next;
    }
    /* The end of the chain proves nothing if an entry was linked at its head meanwhile, perhaps with this key.  The
     * same head, not refilled, means that every entry behind it was linked before this walk began. */
    return head == MP_NO_ENTRY || (atomic_load_explicit(bucket, memory_order_relaxed) == head &&
                                   load32(&entry_at(r, head)->generation, memory_order_relaxed) == head_generation);
}

/* A walk fails for one of two reasons.  An entry was linked into this bucket during the walk: a walk takes some 50
 * ns, and control, which is Python, makes at most one change a microsecond, seldom in one of 262,144 buckets.  Or an
 * entry was refilled under the reader: then control made MP_FIB_RESTING changes during one step of the walk, so the
 * reader did not run for a millisecond; that costs one restart, not two in a row.  A writer in C that only changes
 * entries of the only chain (tests/native/test_fib_hammer.c) disturbs three walks in a hundred, never more than nine
 * in a row.  The bound MP_FIB_RESTARTS is therefore never reached; it exists because no loop of a stage is endless. */
uint32_t mp_fib_lookup(const struct mp_region *r, const struct mp_fib_key *key, struct mp_fib_value *value)
{
    uint32_t hash = hash_key(key, r->geometry.seed), found = MP_NO_ENTRY;
    for (uint32_t i = 0; i < MP_FIB_RESTARTS; i++)
        if (walk(r, hash, key, value, &found))
            return found;
    return MP_NO_ENTRY;
}

void mp_fib_stripe(const struct mp_region *r, const struct mp_fib_key *key, uint32_t stripe, struct mp_fib_value *value)
{
    struct mp_fib_key of_stripe = *key;
    of_stripe.kind = (uint8_t)(of_stripe.kind | stripe << MP_STRIPE_SHIFT);
    if (mp_fib_lookup(r, &of_stripe, value) == MP_NO_ENTRY)
        value->words = 0;
}

void mp_fib_touch(const struct mp_region *r, uint32_t index)
{
    _Atomic uint32_t *used = &entry_at(r, index)->used;
    /* Written once a period only, so that the line stays shared between the caches of the stages. */
    if (!atomic_load_explicit(used, memory_order_relaxed))
        atomic_store_explicit(used, 1u, memory_order_relaxed);
}

/* ---- writer: attach ---- */

struct mp_fib_writer {
    struct mp_region *region;
    struct mp_fib *fib;
    uint32_t capacity;
    uint32_t fresh;             /* entries from here on have never been used */
    uint32_t resting;           /* entries in the queue, oldest at queue[first] */
    uint32_t first;
    uint32_t *queue;            /* of `capacity` */
    uint8_t *linked;            /* by entry: reachable */
};

static int is_specific(const struct mp_fib_key *key)
{
    static const uint8_t none[16];
    return key->kind != MP_KIND_SOURCE &&
           (memcmp(key->source, none, sizeof none) || key->origin || key->via != MP_NO_LINK);
}

static uint32_t has_repair(const struct mp_fib_entry *e)
{
    struct small small;
    mp_words_load(&small, (const char *)e + SMALL_AT, 1);
    return (small.flags & MP_ENTRY_REPAIR) != 0;
}

static void add_relaxed(_Atomic uint32_t *value, uint32_t n)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + n, memory_order_relaxed);
}

static void next_version(struct mp_fib *fib)
{
    /* release FIB_VERSION: pairs with the stages' loads of the version, which validate their cached look-ups */
    atomic_store_explicit(&fib->version, atomic_load_explicit(&fib->version, memory_order_relaxed) + 1u,
                          memory_order_release);
}

static void rest(struct mp_fib_writer *w, uint32_t index)
{
    w->linked[index] = 0;
    w->queue[(w->first + w->resting++) % w->capacity] = index;
}

/* The writer reads its own writes, or those of a dead predecessor, so relaxed order is enough. */
static uint32_t find(const struct mp_fib_writer *w, uint32_t hash, const struct mp_fib_key *key, uint32_t start)
{
    uint32_t index = start;
    while (index != MP_NO_ENTRY) {
        const struct mp_fib_entry *e = entry_at(w->region, index);
        if (load32(&e->hash, memory_order_relaxed) == hash && has_key(e, key))
            return index;
        index = load32(&e->next, memory_order_relaxed);
    }
    return MP_NO_ENTRY;
}

static void load_key(const struct mp_fib_entry *e, struct mp_fib_key *key)
{
    uint64_t w[KEY_WORDS];
    for (size_t i = 0; i < KEY_WORDS; i++)
        w[i] = load64(&e->key, i);
    memcpy(key, w, sizeof *key);
}

/* Walk along one chain of a predecessor: mark its entries as linked, unlink the old one of an unfinished replace. */
static void repair_chain(struct mp_fib_writer *w, _Atomic uint32_t *bucket)
{
    _Atomic uint32_t *link = bucket;
    uint32_t index;
    while ((index = atomic_load_explicit(link, memory_order_relaxed)) != MP_NO_ENTRY) {
        struct mp_fib_entry *e = entry_at(w->region, index);
        struct mp_fib_key key;
        load_key(e, &key);
        uint32_t newer = find(w, load32(&e->hash, memory_order_relaxed), &key,
                              atomic_load_explicit(bucket, memory_order_relaxed));
        if (newer != index) {
            /* release FIB_UNLINK: pairs with walk */
            atomic_store_explicit(link, load32(&e->next, memory_order_relaxed), memory_order_release);
            continue;
        }
        w->linked[index] = 1;
        add_relaxed(&w->fib->entries, 1);
        add_relaxed(&w->fib->specific[key.side & 1], (uint32_t)is_specific(&key));
        add_relaxed(&mp_published(w->region)->repairing, has_repair(e));
        link = &e->next;
    }
}

/* Find the linked and the free entries.  Only entries below the shared high-water mark have been used; the mark was
 * raised before they were. */
static void repair(struct mp_fib_writer *w)
{
    const struct mp_geometry *g = &w->region->geometry;
    w->fresh = atomic_load_explicit(&w->fib->high_water, memory_order_relaxed);
    /* Until the chains are counted, readers look for specific entries in any case. */
    add_relaxed(&w->fib->specific[0], w->capacity);
    add_relaxed(&w->fib->specific[1], w->capacity);
    uint32_t before[2] = { atomic_load_explicit(&w->fib->specific[0], memory_order_relaxed),
                           atomic_load_explicit(&w->fib->specific[1], memory_order_relaxed) };
    atomic_store_explicit(&w->fib->entries, 0, memory_order_relaxed);
    uint32_t repairing = atomic_load_explicit(&mp_published(w->region)->repairing, memory_order_relaxed);
    for (uint32_t b = 0; b < g->fib_buckets; b++)
        repair_chain(w, bucket_of(w->region, b));
    for (int side = 0; side < 2; side++)
        add_relaxed(&w->fib->specific[side], 0u - before[side]);
    add_relaxed(&mp_published(w->region)->repairing, 0u - repairing);
    for (uint32_t i = 0; i < w->fresh; i++)
        if (!w->linked[i])
            rest(w, i);
    next_version(w->fib);
}

struct mp_fib_writer *mp_fib_writer_new(struct mp_region *r)
{
    struct mp_fib_writer *w = calloc(1, sizeof *w);
    uint32_t capacity = r->geometry.fib_entries;
    if (!w)
        return NULL;
    *w = (struct mp_fib_writer){ .region = r, .fib = mp_fib(r), .capacity = capacity,
                                 .queue = calloc(capacity, sizeof *w->queue), .linked = calloc(capacity, 1) };
    if (!w->queue || !w->linked) {
        mp_fib_writer_free(w);
        return NULL;
    }
    repair(w);
    return w;
}

void mp_fib_writer_free(struct mp_fib_writer *w)
{
    if (!w)
        return;
    free(w->queue);
    free(w->linked);
    free(w);
}

/* ---- writer: changes ---- */

static uint32_t free_entries(const struct mp_fib_writer *w)
{
    return w->capacity - w->fresh + w->resting;
}

/* Take a free entry: one that has rested for long, else one never used, else the one that has rested the longest. */
static uint32_t take_free(struct mp_fib_writer *w)
{
    if (w->resting < MP_FIB_RESTING && w->fresh < w->capacity) {
        uint32_t index = w->fresh++;
        /* release FIB_HIGH_WATER: a successor that finds the entry in a chain finds it below the mark; it loads the
         * mark after the death of this process, which needs no acquire */
        atomic_store_explicit(&w->fib->high_water, w->fresh, memory_order_release);
        return index;
    }
    uint32_t index = w->queue[w->first];
    w->first = (w->first + 1) % w->capacity;
    w->resting--;
    return index;
}

static uint8_t words_in_use(const struct mp_fib_value *value)
{
    uint8_t words = value->words;
    while (words && !value->links[words - 1])
        words--;
    return words;
}

static void store64(void *shared, const void *local, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, (const char *)local + 8 * i, sizeof word);
        atomic_store_explicit((_Atomic uint64_t *)shared + i, word, memory_order_relaxed);
    }
}

static void fill(struct mp_fib_entry *e, uint32_t hash, const struct mp_fib_key *key, const struct mp_fib_value *value,
                 uint32_t next)
{
    struct small small = { .flags = value->flags, .stripes = value->stripes, .words = words_in_use(value) };
    mp_seq_begin(&e->generation);
    atomic_store_explicit(&e->next, next, memory_order_relaxed);
    mp_words_store(&e->hash, &hash, 1);
    mp_words_store(&e->stream, &value->stream, 1);
    store64(&e->key, key, KEY_WORDS);
    mp_words_store((char *)e + SMALL_AT, &small, 1);
    store64(e->links, value->links, small.words);
    mp_seq_end(&e->generation);
}

static void link_head(_Atomic uint32_t *bucket, uint32_t index)
{
    /* release FIB_HEAD: pairs with walk */
    atomic_store_explicit(bucket, index, memory_order_release);
}

/* Unlink an entry.  The entry itself stays as it is, for readers that stand on it. */
static void unlink_entry(struct mp_fib_writer *w, _Atomic uint32_t *bucket, uint32_t index)
{
    _Atomic uint32_t *link = bucket;
    for (;;) {
        uint32_t at = atomic_load_explicit(link, memory_order_relaxed);
        if (at == index)
            break;
        link = &entry_at(w->region, at)->next;
    }
    /* release FIB_UNLINK: pairs with walk; a reader that no longer meets the entry sees all changes before */
    atomic_store_explicit(link, load32(&entry_at(w->region, index)->next, memory_order_relaxed), memory_order_release);
    rest(w, index);
}

int mp_fib_set(struct mp_fib_writer *w, const struct mp_fib_key *key, const struct mp_fib_value *value)
{
    uint32_t hash = hash_key(key, w->region->geometry.seed);
    _Atomic uint32_t *bucket = bucket_of(w->region, hash);
    uint32_t head = atomic_load_explicit(bucket, memory_order_relaxed), old = find(w, hash, key, head);
    if (value->words > MP_LINK_WORDS)
        return -EINVAL;
    if (free_entries(w) <= (old == MP_NO_ENTRY ? 1u : 0u))
        return -ENOSPC;

    uint32_t index = take_free(w);
    struct mp_fib_entry *e = entry_at(w->region, index);
    /* A flow stays in use when its route changes. */
    uint32_t used = old == MP_NO_ENTRY ? 0u : load32(&entry_at(w->region, old)->used, memory_order_relaxed);
    atomic_store_explicit(&e->used, used, memory_order_relaxed);
    fill(e, hash, key, value, head);
    if (old == MP_NO_ENTRY) {
        add_relaxed(&w->fib->entries, 1);
        /* before the link: a reader of 0 may skip the look-up */
        add_relaxed(&w->fib->specific[key->side & 1], (uint32_t)is_specific(key));
    }
    uint32_t repaired = old == MP_NO_ENTRY ? 0u : has_repair(entry_at(w->region, old));
    add_relaxed(&mp_published(w->region)->repairing, has_repair(e) - repaired);
    w->linked[index] = 1;
    link_head(bucket, index);
    next_version(w->fib);
    if (old != MP_NO_ENTRY)
        unlink_entry(w, bucket, old);
    return 0;
}

int mp_fib_delete(struct mp_fib_writer *w, const struct mp_fib_key *key)
{
    uint32_t hash = hash_key(key, w->region->geometry.seed);
    _Atomic uint32_t *bucket = bucket_of(w->region, hash);
    uint32_t index = find(w, hash, key, atomic_load_explicit(bucket, memory_order_relaxed));
    if (index == MP_NO_ENTRY)
        return -ENOENT;
    unlink_entry(w, bucket, index);
    add_relaxed(&w->fib->entries, 0u - 1u);
    add_relaxed(&w->fib->specific[key->side & 1], 0u - (uint32_t)is_specific(key));
    add_relaxed(&mp_published(w->region)->repairing, 0u - has_repair(entry_at(w->region, index)));
    next_version(w->fib);
    return 0;
}

uint32_t mp_fib_high_water(const struct mp_fib_writer *w, uint32_t more)
{
    return more < w->capacity - w->fresh ? w->fresh + more : w->capacity;
}

/* Return the next linked entry from *cursor on, and move *cursor behind it; NULL at the end. */
static struct mp_fib_entry *next_linked(const struct mp_fib_writer *w, uint32_t *cursor)
{
    while (*cursor < w->fresh) {
        uint32_t index = (*cursor)++;
        if (w->linked[index])
            return entry_at(w->region, index);
    }
    return NULL;
}

int mp_fib_next(const struct mp_fib_writer *w, uint32_t *cursor, struct mp_fib_key *key, struct mp_fib_value *value,
                uint32_t *used, int clear_used)
{
    struct mp_fib_entry *e = next_linked(w, cursor);
    if (!e)
        return 0;
    load_key(e, key);
    copy_value(e, value);
    *used = load32(&e->used, memory_order_relaxed);
    if (clear_used && *used)
        atomic_store_explicit(&e->used, 0u, memory_order_relaxed);
    return 1;
}

int mp_fib_next_used(const struct mp_fib_writer *w, uint32_t *cursor, struct mp_fib_key *key)
{
    struct mp_fib_entry *e;
    while ((e = next_linked(w, cursor)))
        if (load32(&e->used, memory_order_relaxed)) {
            load_key(e, key);
            atomic_store_explicit(&e->used, 0u, memory_order_relaxed);
            return 1;
        }
    return 0;
}
