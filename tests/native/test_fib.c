/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: the forwarding table behaves as a dictionary within its bounds, and a new writer repairs the table of a dead
 * one.
 * Method: functional checks; 65,536 entries over 1,024 links; random operations against a naive model (seeded);
 * chains brought by hand into the states in which a writer can die.  Readers beside a writer are in
 * test_fib_hammer.c.
 */
#include <errno.h>

#include "actor.h"
#include "mp_fib.h"

static struct mp_fib_key group_key(uint32_t n)
{
    struct mp_fib_key key = { .group = { [10] = 0xff, 0xff, 239, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n },
                              .via = MP_NO_LINK };
    return key;
}

static struct mp_fib_value value_of(uint32_t stream, uint32_t link)
{
    struct mp_fib_value value = { .stream = stream, .words = (uint8_t)(link / 64 + 1) };
    value.links[link / 64] = UINT64_C(1) << link % 64;
    return value;
}

static uint32_t fib_version(const struct mp_region *r)
{
    return atomic_load(&mp_fib(r)->version);
}

static int stream_at(const struct mp_region *r, const struct mp_fib_key *key)
{
    struct mp_fib_value value;
    return mp_fib_lookup(r, key, &value) == MP_NO_ENTRY ? -1 : (int)value.stream;
}

static void set_replaces_and_delete_removes(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_fib_writer *w = mp_fib_writer_new(r);
    struct mp_fib_key a = group_key(1), b = group_key(2);
    struct mp_fib_value value = value_of(7, 700), out;
    value.flags = MP_ENTRY_LOCAL;
    value.stripes = 3;
    value.words = MP_LINK_WORDS; /* more words than are in use */
    CHECK_EQUAL(mp_fib_lookup(r, &a, &out), MP_NO_ENTRY);
    CHECK_EQUAL(mp_fib_delete(w, &a), -ENOENT);
    uint32_t version = fib_version(r);
    CHECK_EQUAL(mp_fib_set(w, &a, &value), 0);
    CHECK_EQUAL(fib_version(r), version + 1);
    CHECK(mp_fib_lookup(r, &a, &out) != MP_NO_ENTRY);
    CHECK(out.stream == 7 && out.flags == MP_ENTRY_LOCAL && out.stripes == 3 && out.words == 11);
    CHECK(!memcmp(out.links, value.links, 11 * sizeof out.links[0]));
    CHECK_EQUAL(stream_at(r, &b), -1);
    value = value_of(8, 0);
    value.words = 0;
    CHECK_EQUAL(mp_fib_set(w, &a, &value), 0);
    CHECK_EQUAL(fib_version(r), version + 2);
    CHECK(mp_fib_lookup(r, &a, &out) != MP_NO_ENTRY && out.stream == 8 && out.words == 0 && out.flags == 0);
    CHECK_EQUAL(atomic_load(&mp_fib(r)->entries), 1);
    value.words = MP_LINK_WORDS + 1;
    CHECK_EQUAL(mp_fib_set(w, &a, &value), -EINVAL);
    CHECK_EQUAL(mp_fib_delete(w, &a), 0);
    CHECK_EQUAL(mp_fib_delete(w, &a), -ENOENT);
    CHECK_EQUAL(fib_version(r), version + 3);
    CHECK_EQUAL(stream_at(r, &a), -1);
    CHECK_EQUAL(atomic_load(&mp_fib(r)->entries), 0);
    mp_fib_writer_free(w);
    actor_unmap(r);
}

/* Keys that differ in one field have different entries. */
static void each_field_distinguishes_keys(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_fib_writer *w = mp_fib_writer_new(r);
    struct mp_fib_key keys[9];
    for (int i = 0; i < 9; i++)
        keys[i] = group_key(1);
    keys[1].group[0] = 1;
    keys[2].source[15] = 1;
    keys[3].origin = 1;
    keys[4].via = 0;
    keys[5].side = MP_SIDE_OVERLAY;
    keys[6].kind = MP_KIND_UNICAST;
    keys[7].side = MP_SIDE_OVERLAY, keys[7].origin = 9;
    keys[8].side = MP_SIDE_OVERLAY, keys[8].origin = 9, keys[8].via = 1023;
    for (uint32_t i = 0; i < 9; i++) {
        struct mp_fib_value value = value_of(i, i);
        CHECK_EQUAL(stream_at(r, &keys[i]), -1);
        CHECK_EQUAL(mp_fib_set(w, &keys[i], &value), 0);
    }
    for (int i = 0; i < 9; i++)
        CHECK_EQUAL(stream_at(r, &keys[i]), i);
    CHECK_EQUAL(atomic_load(&mp_fib(r)->specific[MP_SIDE_HOST]), 3);
    CHECK_EQUAL(atomic_load(&mp_fib(r)->specific[MP_SIDE_OVERLAY]), 2);
    for (int i = 0; i < 9; i++)
        CHECK_EQUAL(mp_fib_delete(w, &keys[i]), 0);
    CHECK_EQUAL(atomic_load(&mp_fib(r)->specific[0]) + atomic_load(&mp_fib(r)->specific[1]), 0);
    mp_fib_writer_free(w);
    actor_unmap(r);
}

/* A stripe has a key of its own; a stripe without an entry has no links. */
static void stripes_have_entries_of_their_own(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_fib_writer *w = mp_fib_writer_new(r);
    struct mp_fib_key key = group_key(1), other = key;
    struct mp_fib_value value = value_of(1, 1), out;
    value.stripes = MP_STRIPES_MAX;
    CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    for (uint32_t stripe = 1; stripe < MP_STRIPES_MAX; stripe += 2) {
        other.kind = (uint8_t)(key.kind | stripe << MP_STRIPE_SHIFT);
        value = value_of(1, 100 + stripe);
        CHECK_EQUAL(mp_fib_set(w, &other, &value), 0);
    }
    for (uint32_t stripe = 1; stripe < MP_STRIPES_MAX; stripe++) {
        mp_fib_stripe(r, &key, stripe, &out);
        CHECK_EQUAL(out.words, stripe % 2 ? 2 : 0);
        CHECK(!out.words || out.links[1] == UINT64_C(1) << (36 + stripe));
    }
    CHECK(mp_fib_lookup(r, &key, &out) != MP_NO_ENTRY && out.stripes == MP_STRIPES_MAX && out.links[0] == 2);
    CHECK_EQUAL(atomic_load(&mp_fib(r)->specific[MP_SIDE_HOST]), 0);
    mp_fib_writer_free(w);
    actor_unmap(r);
}

static void used_marks_survive_replacement(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_fib_writer *w = mp_fib_writer_new(r);
    struct mp_fib_key key, met;
    struct mp_fib_value value = value_of(1, 1), out;
    uint32_t cursor = 0, used = 9;
    for (uint32_t i = 0; i < 10; i++)
        key = group_key(i), CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    CHECK_EQUAL(mp_fib_next_used(w, &cursor, &met), 0);
    key = group_key(4);
    mp_fib_touch(r, mp_fib_lookup(r, &key, &out));
    CHECK_EQUAL(mp_fib_set(w, &key, &value), 0); /* a replaced entry keeps its mark */
    cursor = 0;
    CHECK(mp_fib_next_used(w, &cursor, &met) == 1 && !memcmp(&met, &key, sizeof key));
    CHECK_EQUAL(mp_fib_next_used(w, &cursor, &met), 0);
    cursor = 0;
    CHECK_EQUAL(mp_fib_next_used(w, &cursor, &met), 0);
    mp_fib_touch(r, mp_fib_lookup(r, &key, &out));
    for (int pass = 0; pass < 2; pass++) {
        uint32_t count = 0, in_use = 0;
        for (cursor = 0; mp_fib_next(w, &cursor, &met, &out, &used, pass == 0); count++)
            in_use += used;
        CHECK(count == 10 && in_use == (pass == 0));
    }
    mp_fib_writer_free(w);
    actor_unmap(r);
}

static void full_table_refuses_additions_only(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_fib_writer *w = mp_fib_writer_new(r);
    struct mp_fib_value value = value_of(1, 1);
    CHECK_EQUAL(mp_fib_high_water(w, 10), 10);
    for (int round = 0; round < 5; round++) {
        for (uint32_t i = 0; i < 63; i++) {
            struct mp_fib_key key = group_key(i);
            CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
        }
        struct mp_fib_key more = group_key(63);
        CHECK_EQUAL(mp_fib_set(w, &more, &value), -ENOSPC);
        for (uint32_t i = 0; i < 1000; i++) { /* entries of a full table can be replaced without end */
            struct mp_fib_key key = group_key(i % 63);
            value.stream = i;
            CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
            CHECK_EQUAL(stream_at(r, &key), i);
        }
        CHECK_EQUAL(mp_fib_high_water(w, 10), 64);
        for (uint32_t i = 0; i < 63; i++) {
            struct mp_fib_key key = group_key(i);
            CHECK_EQUAL(mp_fib_delete(w, &key), 0);
        }
        CHECK_EQUAL(atomic_load(&mp_fib(r)->entries), 0);
    }
    mp_fib_writer_free(w);
    actor_unmap(r);
}

/* 65,536 entries over 1,024 links; entry n has all words of links up to n mod 1,024. */
static void table_holds_65536_entries_of_1024_links(void)
{
    struct mp_geometry g = actor_small;
    g.fib_entries = 131072;
    g.fib_buckets = 65536;
    struct mp_region *r = actor_region(&g);
    struct mp_fib_writer *w = mp_fib_writer_new(r);
    struct mp_fib_value value = { 0 }, out;
    for (uint32_t i = 0; i < 65536; i++) {
        struct mp_fib_key key = group_key(i);
        value.stream = i;
        value.words = MP_LINK_WORDS;
        for (uint32_t word = 0; word < MP_LINK_WORDS; word++)
            value.links[word] = word <= i % 1024 / 64 ? check_mix(i + word) | 1 : 0;
        CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    }
    CHECK_EQUAL(atomic_load(&mp_fib(r)->entries), 65536);
    for (uint32_t i = 0; i < 65536; i++) {
        struct mp_fib_key key = group_key(i);
        CHECK(mp_fib_lookup(r, &key, &out) != MP_NO_ENTRY);
        CHECK(out.stream == i && out.words == i % 1024 / 64 + 1);
        for (uint32_t word = 0; word < out.words; word++)
            CHECK(out.links[word] == (check_mix(i + word) | 1));
        key.side = MP_SIDE_OVERLAY;
        CHECK_EQUAL(stream_at(r, &key), -1);
    }
    for (uint32_t i = 0; i < 65536; i++) {
        struct mp_fib_key key = group_key(i);
        CHECK_EQUAL(mp_fib_delete(w, &key), 0);
    }
    CHECK_EQUAL(atomic_load(&mp_fib(r)->entries), 0);
    CHECK(mp_fib_high_water(w, 0) <= 65536); /* additions alone take no more entries */
    mp_fib_writer_free(w);
    actor_unmap(r);
}

/* Few entries that change all the time use few entries of the table, and so few pages. */
static void few_entries_use_little_memory(void)
{
    struct mp_geometry g = actor_small;
    g.fib_entries = 65536;
    struct mp_region *r = actor_region(&g);
    struct mp_fib_writer *w = mp_fib_writer_new(r);
    struct mp_fib_value value = value_of(1, 1);
    for (uint32_t i = 0; i < 100000; i++) {
        struct mp_fib_key key = group_key(i % 20);
        CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    }
    CHECK(mp_fib_high_water(w, 0) <= 20 + MP_FIB_RESTING + 1);
    mp_fib_writer_free(w);
    actor_unmap(r);
}

/* ---- against a model ---- */

#define UNIVERSE 80u            /* more keys than entries */

struct model {
    int present[UNIVERSE], used[UNIVERSE];
    uint32_t stream[UNIVERSE], count;
};

static struct mp_fib_key model_key(uint32_t n)
{
    struct mp_fib_key key = group_key(n / 8);
    key.source[3] = n & 1;
    key.origin = n >> 1 & 1;
    key.side = n >> 2 & 1;
    return key;
}

static void compare(const struct mp_region *r, const struct mp_fib_writer *w, struct model *m)
{
    struct mp_fib_key key;
    struct mp_fib_value value;
    uint32_t cursor = 0, used, met = 0, specific[2] = { 0 };
    for (uint32_t n = 0; n < UNIVERSE; n++) {
        key = model_key(n);
        CHECK_EQUAL(stream_at(r, &key), m->present[n] ? (int)m->stream[n] : -1);
        specific[n >> 2 & 1] += m->present[n] && (n & 3);
    }
    for (; mp_fib_next(w, &cursor, &key, &value, &used, 0); met++) {
        uint32_t n = 0;
        for (struct mp_fib_key k = model_key(0); memcmp(&k, &key, sizeof k); k = model_key(n))
            n++;
        CHECK(m->present[n] && value.stream == m->stream[n] && used == (uint32_t)m->used[n]);
    }
    CHECK_EQUAL(met, m->count);
    CHECK_EQUAL(atomic_load(&mp_fib(r)->entries), m->count);
    CHECK(atomic_load(&mp_fib(r)->specific[0]) == specific[0] && atomic_load(&mp_fib(r)->specific[1]) == specific[1]);
}

static void model_step(struct mp_region *r, struct mp_fib_writer **w, struct model *m, uint64_t *random)
{
    uint32_t n = check_random(random, UNIVERSE), what = check_random(random, 100);
    struct mp_fib_key key = model_key(n);
    struct mp_fib_value value = value_of(check_random(random, 1000000), check_random(random, MP_LINKS_MAX)), out;
    if (what < 60) {
        int fits = m->present[n] || m->count < 63;
        CHECK_EQUAL(mp_fib_set(*w, &key, &value), fits ? 0 : -ENOSPC);
        if (!fits)
            return;
        m->used[n] &= m->present[n];
        m->count += !m->present[n];
        m->present[n] = 1;
        m->stream[n] = value.stream;
        CHECK(mp_fib_lookup(r, &key, &out) != MP_NO_ENTRY && out.words == value.words);
        CHECK(!memcmp(out.links, value.links, value.words * sizeof value.links[0]));
    } else if (what < 90) {
        CHECK_EQUAL(mp_fib_delete(*w, &key), m->present[n] ? 0 : -ENOENT);
        m->count -= (uint32_t)m->present[n];
        m->present[n] = 0;
    } else if (what < 98) {
        uint32_t index = mp_fib_lookup(r, &key, &out);
        if (index != MP_NO_ENTRY)
            mp_fib_touch(r, index), m->used[n] = 1;
    } else {
        mp_fib_writer_free(*w);
        *w = mp_fib_writer_new(r);
        compare(r, *w, m);
    }
}

static void random_operations_match_a_model(void)
{
    for (uint32_t seed = 1; seed <= 20; seed++) {
        struct mp_geometry g = actor_small;
        struct model m = { 0 };
        uint64_t random = (uint64_t)seed << 32;
        g.seed = seed;
        g.fib_buckets = 1u << seed % 8;
        struct mp_region *r = actor_region(&g);
        struct mp_fib_writer *w = mp_fib_writer_new(r);
        for (uint32_t i = 0; i < CHECK_SCALE(20000u); i++) {
            model_step(r, &w, &m, &random);
            if (i % 200 == 0)
                compare(r, w, &m);
        }
        compare(r, w, &m);
        mp_fib_writer_free(w);
        actor_unmap(r);
    }
}

/* ---- a table that a dead writer left ---- */

static struct mp_fib_entry *entry(struct mp_region *r, uint32_t index)
{
    return (struct mp_fib_entry *)mp_at(r, r->fib_entries_at) + index;
}

static void new_writer_finishes_a_replacement(void)
{
    struct mp_geometry g = actor_small;
    g.fib_buckets = 1;
    struct mp_region *r = actor_region(&g);
    _Atomic uint32_t *bucket = mp_at(r, r->fib_buckets_at);
    struct mp_fib_writer *w = mp_fib_writer_new(r);
    struct mp_fib_value value = value_of(1, 1);
    for (uint32_t i = 0; i < 5; i++) {
        struct mp_fib_key key = group_key(i);
        value.stream = i;
        CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    }
    mp_fib_writer_free(w); /* leaves the region as the end of a process does */

    /* The new entry of key 2 is linked, the old one (index 2) is not unlinked yet. */
    struct mp_fib_entry *new = entry(r, 5);
    atomic_store(&mp_fib(r)->high_water, 6);
    memcpy((char *)new + 8, (char *)entry(r, 2) + 8, sizeof *new - 8);
    new->stream = 22;
    atomic_store(&new->generation, 2);
    atomic_store(&new->next, atomic_load(bucket));
    atomic_store(bucket, 5);
    /* Another entry was being filled. */
    atomic_store(&mp_fib(r)->high_water, 7);
    atomic_store(&entry(r, 6)->generation, 1);

    struct mp_fib_key key = group_key(2);
    uint32_t version = fib_version(r);
    CHECK_EQUAL(stream_at(r, &key), 22);
    w = mp_fib_writer_new(r);
    CHECK(fib_version(r) != version); /* stages look up again */
    CHECK_EQUAL(atomic_load(&mp_fib(r)->entries), 5);
    CHECK_EQUAL(mp_fib_high_water(w, 0), 7);
    for (uint32_t i = 0; i < 5; i++) {
        key = group_key(i);
        CHECK_EQUAL(stream_at(r, &key), i == 2 ? 22 : (int)i);
    }
    for (uint32_t i = 0; i < 63; i++) { /* all entries but the spare one can be used */
        key = group_key(i);
        CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    }
    mp_fib_writer_free(w);
    actor_unmap(r);
}

int main(void)
{
    RUN(set_replaces_and_delete_removes);
    RUN(each_field_distinguishes_keys);
    RUN(stripes_have_entries_of_their_own);
    RUN(used_marks_survive_replacement);
    RUN(full_table_refuses_additions_only);
    RUN(table_holds_65536_entries_of_1024_links);
    RUN(few_entries_use_little_memory);
    RUN(random_operations_match_a_model);
    RUN(new_writer_finishes_a_replacement);
    return 0;
}
