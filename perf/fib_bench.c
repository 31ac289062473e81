/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fib_bench: nanoseconds of a look-up in the forwarding table, and of a change.
 *
 * Question: what does classify pay for a flow that its cache does not hold?
 * Method: look-ups in random order of keys that are in the table and of keys that are not; few keys (all in the CPU's
 * cache) and 65,536 (the largest supported number).  One process; the best of several runs.
 *
 *   make -C tests/native bench [ARGS=--json]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "mp_fib.h"

#define LOOKUPS (1u << 20)
#define RUNS 7

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct mp_fib_key key_of(uint32_t n)
{
    struct mp_fib_key key = { .group = { [10] = 0xff, 0xff, 239, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n },
                              .via = MP_NO_LINK };
    return key;
}

/* Return the best of RUNS; `absent`: keys that are not in the table. */
static double look_up(const struct mp_region *r, uint32_t keys, int absent)
{
    double best = 1e12;
    for (int run = 0; run < RUNS; run++) {
        uint32_t state = 1, found = 0;
        double start = now_ns();
        for (uint32_t i = 0; i < LOOKUPS; i++) {
            struct mp_fib_value value;
            state = state * 1664525u + 1013904223u;
            struct mp_fib_key key = key_of((state >> 12) % keys + (absent ? 1u << 20 : 0));
            found += mp_fib_lookup(r, &key, &value) != MP_NO_ENTRY;
        }
        double took = (now_ns() - start) / LOOKUPS;
        best = took < best ? took : best;
        if (found != (absent ? 0 : LOOKUPS))
            exit(1);
    }
    return best;
}

static double fill(struct mp_fib_writer *w, uint32_t keys)
{
    double start = now_ns();
    for (uint32_t n = 0; n < keys; n++) {
        struct mp_fib_key key = key_of(n);
        struct mp_fib_value value = { .stream = n, .words = 1, .links = { n | 1 } };
        if (mp_fib_set(w, &key, &value))
            exit(1);
    }
    return (now_ns() - start) / keys;
}

int main(int argc, char **argv)
{
    const struct mp_geometry g = { .lanes = 1, .host_slots = 64, .host_slot_bytes = 2048, .overlay_slots = 8,
                                   .fib_entries = 262144, .fib_buckets = 262144, .mtu = 1436, .seed = 12345 };
    const uint32_t sizes[] = { 16, 1024, 65536 };
    int json = argc > 1 && !strcmp(argv[1], "--json");
    if (json)
        printf("{\"schema\": 1, \"tables\": [");
    for (int i = 0; i < 3; i++) {
        struct mp_region *r = mmap(NULL, mp_region_size(&g), PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (r == MAP_FAILED || mp_region_format(r, &g))
            return 1;
        struct mp_fib_writer *w = mp_fib_writer_new(r);
        if (!w)
            return 1;
        fill(w, sizes[i]);
        double change = fill(w, sizes[i]), hit = look_up(r, sizes[i], 0), miss = look_up(r, sizes[i], 1);
        printf(json ? "%s{\"entries\": %u, \"hit_ns\": %.1f, \"miss_ns\": %.1f, \"replace_ns\": %.1f}"
                    : "%s%6u entries  hit %6.1f ns  miss %6.1f ns  replace %6.1f ns\n",
               json && i ? ", " : "", sizes[i], hit, miss, change);
        mp_fib_writer_free(w);
        munmap(r, mp_region_size(&g));
    }
    if (json)
        printf("]}\n");
    return 0;
}
