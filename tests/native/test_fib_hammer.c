/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: whatever the writer does, a reader finds each key that is in the table, with a value that was legal at that
 * time and not torn; also while the writer is killed at any point and replaced.
 * Method: a writer (a process; a thread under ThreadSanitizer) changes the table as fast as it can, against readers.
 * Permanent keys are only replaced.  Before it writes version n of a key the writer announces n, and afterwards it
 * confirms n.  The confirmed version before a look-up and the announced one after it bound the versions that a reader
 * may find.  All fields of a value follow from key and version.  Other keys are added and deleted in the same
 * buckets.
 */
#include <errno.h>

#include "actor.h"
#include "mp_fib.h"

#define PERMANENT_MAX 64u
#define READERS 3

struct hammer {
    struct mp_region *r;
    uint32_t permanent, others;
    _Atomic uint32_t stop;
    _Atomic uint64_t changes, lookups, found_others;
    struct {
        _Alignas(64) _Atomic uint32_t announced;
        _Atomic uint32_t confirmed;
    } key[PERMANENT_MAX];
};

static struct mp_fib_key key_of(uint32_t n)
{
    struct mp_fib_key key = { .group = { 0xff, 0x15, [14] = (uint8_t)(n >> 8), (uint8_t)n }, .origin = n % 3,
                              .via = MP_NO_LINK, .side = MP_SIDE_OVERLAY };
    return key;
}

static struct mp_fib_value value_of(uint32_t n, uint32_t version)
{
    uint64_t x = check_mix((uint64_t)n << 32 | version);
    struct mp_fib_value value = { .stream = version, .flags = (uint8_t)x, .stripes = (uint8_t)(x >> 8),
                                  .words = (uint8_t)(1 + (x >> 16) % MP_LINK_WORDS) };
    for (uint32_t i = 0; i < value.words; i++)
        value.links[i] = check_mix(x + i) | 1;
    return value;
}

static void check_whole(uint32_t n, const struct mp_fib_value *value)
{
    struct mp_fib_value expected = value_of(n, value->stream);
    CHECK(value->flags == expected.flags && value->stripes == expected.stripes && value->words == expected.words);
    CHECK(!memcmp(value->links, expected.links, expected.words * sizeof expected.links[0]));
}

/* ---- the writer ---- */

static void replace(struct hammer *h, struct mp_fib_writer *w, uint32_t n)
{
    uint32_t version = atomic_load(&h->key[n].announced) + 1;
    struct mp_fib_key key = key_of(n);
    struct mp_fib_value value = value_of(n, version);
    atomic_store(&h->key[n].announced, version);
    CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    atomic_store(&h->key[n].confirmed, version);
}

static void change_other(struct hammer *h, struct mp_fib_writer *w, uint64_t *random)
{
    uint32_t n = PERMANENT_MAX + check_random(random, h->others);
    struct mp_fib_key key = key_of(n);
    if (check_random(random, 2)) {
        struct mp_fib_value value = value_of(n, check_random(random, 1u << 30));
        CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    } else {
        int status = mp_fib_delete(w, &key);
        CHECK(status == 0 || status == -ENOENT);
    }
}

static void write_table(void *argument)
{
    struct hammer *h = argument;
    struct mp_fib_writer *w = mp_fib_writer_new(h->r);
    uint64_t random = atomic_load(&h->changes) << 8;
    CHECK(w != NULL);
    CHECK(atomic_load(&mp_fib(h->r)->entries) >= h->permanent);
    while (!atomic_load(&h->stop)) {
        for (int i = 0; i < 16; i++) {
            replace(h, w, check_random(&random, h->permanent));
            change_other(h, w, &random);
        }
        atomic_fetch_add(&h->changes, 32);
    }
    mp_fib_writer_free(w);
}

/* ---- readers ---- */

static void look_up(struct hammer *h, uint32_t n)
{
    struct mp_fib_key key = key_of(n);
    struct mp_fib_value value;
    uint32_t oldest = atomic_load(&h->key[n].confirmed);
    CHECK(mp_fib_lookup(h->r, &key, &value) != MP_NO_ENTRY);
    uint32_t newest = atomic_load(&h->key[n].announced);
    CHECK(value.stream >= oldest && value.stream <= newest);
    check_whole(n, &value);
}

static void read_table(void *argument)
{
    struct hammer *h = argument;
    uint64_t random = check_mix((uint64_t)getpid());
    while (!atomic_load(&h->stop)) {
        uint64_t found = 0;
        for (int i = 0; i < 64; i++) {
            struct mp_fib_value value;
            uint32_t n = PERMANENT_MAX + check_random(&random, h->others);
            struct mp_fib_key key = key_of(n);
            look_up(h, check_random(&random, h->permanent));
            uint32_t index = mp_fib_lookup(h->r, &key, &value);
            if (index == MP_NO_ENTRY)
                continue;
            check_whole(n, &value);
            mp_fib_touch(h->r, index);
            found++;
        }
        atomic_fetch_add(&h->lookups, 128);
        atomic_fetch_add(&h->found_others, found);
    }
}

/* ---- the tests ---- */

static struct hammer *open_hammer(uint32_t entries, uint32_t buckets, uint32_t permanent, uint32_t others)
{
    struct mp_geometry g = actor_small;
    struct hammer *h = actor_memory(sizeof *h);
    g.fib_entries = entries;
    g.fib_buckets = buckets;
    h->r = actor_region(&g);
    h->permanent = permanent;
    h->others = others;
    struct mp_fib_writer *w = mp_fib_writer_new(h->r);
    for (uint32_t n = 0; n < permanent; n++)
        replace(h, w, n);
    mp_fib_writer_free(w);
    return h;
}

/* All entries can be used again: none has leaked. */
static void close_hammer(struct hammer *h)
{
    struct mp_fib_writer *w = mp_fib_writer_new(h->r);
    uint32_t cursor = 0, used;
    struct mp_fib_key key;
    struct mp_fib_value value;
    while (mp_fib_next(w, &cursor, &key, &value, &used, 0))
        CHECK_EQUAL(mp_fib_delete(w, &key), 0);
    CHECK_EQUAL(atomic_load(&mp_fib(h->r)->entries), 0);
    CHECK_EQUAL(atomic_load(&mp_fib(h->r)->specific[0]) + atomic_load(&mp_fib(h->r)->specific[1]), 0);
    for (uint32_t n = 0; n < h->r->geometry.fib_entries - 1; n++) {
        key = key_of(n);
        key.kind = MP_KIND_UNICAST;
        CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    }
    mp_fib_writer_free(w);
    actor_unmap(h->r);
    munmap(h, sizeof *h);
}

static void run_hammer(uint32_t entries, uint32_t buckets, uint32_t permanent, uint32_t others)
{
    struct hammer *h = open_hammer(entries, buckets, permanent, others);
    struct actor writer, readers[READERS];
    for (int i = 0; i < READERS; i++)
        actor_start(&readers[i], read_table, h);
    actor_start(&writer, write_table, h);
    actor_pause_us(800000);
    atomic_store(&h->stop, 1);
    actor_join(&writer);
    for (int i = 0; i < READERS; i++)
        actor_join(&readers[i]);
    CHECK(atomic_load(&h->changes) > 1000 && atomic_load(&h->lookups) > 1000 && atomic_load(&h->found_others) > 0);
    if (getenv("CHECK_VERBOSE"))
        printf("    %llu changes, %llu look-ups\n", (unsigned long long)atomic_load(&h->changes),
               (unsigned long long)atomic_load(&h->lookups));
    close_hammer(h);
}

/* Freed entries are filled again after few changes, so that readers meet them all the time. */
static void readers_survive_reuse_of_few_entries(void)
{
    run_hammer(64, 8, 16, 32);
}

/* All entries in one chain: each change disturbs the readers. */
static void readers_survive_changes_of_one_chain(void)
{
    run_hammer(64, 1, 16, 32);
}

static void readers_survive_long_chains(void)
{
    run_hammer(4096, 16, 64, 512);
}

static void readers_survive_sparse_table(void)
{
    run_hammer(65536, 65536, 64, 20000);
}

#if !ACTORS_ARE_THREADS
static void run_kills(uint32_t entries, uint32_t buckets, uint32_t permanent, uint32_t others)
{
    struct hammer *h = open_hammer(entries, buckets, permanent, others);
    struct actor writer, readers[READERS];
    uint64_t random = entries;
    for (int i = 0; i < READERS; i++)
        actor_start(&readers[i], read_table, h);
    for (int kills = 0; kills < 60; kills++) {
        actor_start(&writer, write_table, h);
        actor_pause_us(500 + check_random(&random, 15000));
        actor_kill(&writer);
        /* A version announced and not confirmed may be in the table or not: both are legal from now on. */
    }
    atomic_store(&h->stop, 1);
    for (int i = 0; i < READERS; i++)
        actor_join(&readers[i]);
    CHECK(atomic_load(&h->changes) > 1000);
    close_hammer(h);
}

static void readers_survive_killed_writers(void)
{
    run_kills(64, 8, 16, 32);
    run_kills(4096, 256, 64, 512);
}
#endif

int main(void)
{
    RUN(readers_survive_reuse_of_few_entries);
    RUN(readers_survive_changes_of_one_chain);
    RUN(readers_survive_long_chains);
    RUN(readers_survive_sparse_table);
#if !ACTORS_ARE_THREADS
    RUN(readers_survive_killed_writers);
#endif
    return 0;
}
