/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * ring_bench: slots a second through a ring between processes.
 *
 * Question: what does the hand-off of a slot cost, with one stage behind the producer and with two, without doorbells
 * (stages spin) and with them (a stage without work sleeps at once: the worst case for wake-ups)?
 * Method: each stage is a process; bursts of up to 32 slots; each stage reads the first line of a slot, the middle one
 * also writes it.  Best and median of several runs, as other work on the machine only makes a run slower.
 *
 *   make -C tests/native bench [ARGS="--json --slots 20000000 --runs 9"]
 */
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "mp_ring.h"

#define BURST 32u
#define RUNS_MAX 99u
#define SPINS 2000u             /* rounds after which a stage yields: there may be too few cores */

struct bench {
    struct mp_region *region;
    struct mp_lane *lane;
    uint64_t slots;
    uint32_t stages;            /* 2 or 3 */
    int bells;
    int eventfd[MP_STAGES];
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void produce(struct bench *b)
{
    struct mp_cursor *own = &b->lane->host[0], *last = &b->lane->host[b->stages - 1];
    uint32_t idle = 0;
    while (mp_position(own) < b->slots) {
        uint64_t at = mp_position(own), n = mp_room(own, last, b->region->geometry.host_slots);
        if (n > BURST)
            n = BURST;
        if (n > b->slots - at)
            n = b->slots - at;
        if (!n) {
            if (++idle % SPINS == 0)
                sched_yield();
            continue;
        }
        for (uint64_t i = 0; i < n; i++)
            mp_host_slot(b->region, 0, at + i)->unresolved_ns = at + i;
        mp_publish(own, n);
        if (b->bells)
            mp_bell_ring(&b->lane->bell[1], b->eventfd[1]);
    }
}

static void await(struct bench *b, uint32_t stage, uint32_t *idle)
{
    struct mp_bell *bell = &b->lane->bell[stage];
    struct pollfd p = { .fd = b->eventfd[stage], .events = POLLIN };
    if (!b->bells) {
        if (++*idle % SPINS == 0)
            sched_yield();
        return;
    }
    mp_bell_arm(bell);
    if (!mp_ready(&b->lane->host[stage - 1], &b->lane->host[stage]) && poll(&p, 1, -1) == 1)
        mp_bell_clear(b->eventfd[stage]);
    mp_bell_disarm(bell);
}

static void consume(struct bench *b, uint32_t stage)
{
    struct mp_cursor *own = &b->lane->host[stage];
    uint32_t idle = 0;
    while (mp_position(own) < b->slots) {
        uint64_t at = mp_position(own), n = mp_ready(&b->lane->host[stage - 1], own);
        if (!n) {
            await(b, stage, &idle);
            continue;
        }
        for (uint64_t i = 0; i < n; i++) {
            struct mp_slot *slot = mp_host_slot(b->region, 0, at + i);
            if (slot->unresolved_ns != at + i + (stage - 1)) {
                fprintf(stderr, "ring_bench: slot %" PRIu64 " has wrong contents\n", at + i);
                _exit(1);
            }
            if (stage + 1 < b->stages)
                slot->unresolved_ns++;
        }
        if (stage + 1 < b->stages)
            mp_publish(own, n);
        else
            mp_release(own, n, 0);
        if (b->bells && stage + 1 < b->stages)
            mp_bell_ring(&b->lane->bell[stage + 1], b->eventfd[stage + 1]);
    }
}

/* Run once.  Returns the seconds that it took. */
static double run(struct bench *b)
{
    pid_t child[2];
    memset(b->lane, 0, sizeof *b->lane);
    for (uint32_t stage = 1; stage < b->stages; stage++) {
        child[stage - 1] = fork();
        if (child[stage - 1] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            consume(b, stage);
            _exit(0);
        }
    }
    double start = now_s();
    produce(b);
    for (uint32_t stage = 1; stage < b->stages; stage++) {
        int status;
        if (waitpid(child[stage - 1], &status, 0) < 0 || status)
            exit(1);
    }
    return now_s() - start;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void open_bench(struct bench *b)
{
    const struct mp_geometry g = { .lanes = 1, .host_slots = 1024, .host_slot_bytes = 2048, .overlay_slots = 8,
                                   .fib_entries = 64, .fib_buckets = 64, .mtu = 1436 };
    b->region = mmap(NULL, mp_region_size(&g), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                     0);
    if (b->region == MAP_FAILED || mp_region_format(b->region, &g))
        exit(1);
    b->lane = mp_lane(b->region, 0);
    for (int i = 0; i < MP_STAGES; i++)
        b->eventfd[i] = eventfd(0, EFD_NONBLOCK);
}

int main(int argc, char **argv)
{
    struct bench b = { .slots = 10000000 };
    uint32_t runs = 5;
    int json = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json"))
            json = 1;
        else if (!strcmp(argv[i], "--slots") && i + 1 < argc)
            b.slots = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--runs") && i + 1 < argc)
            runs = (uint32_t)strtoul(argv[++i], NULL, 10);
        else
            return fprintf(stderr, "usage: ring_bench [--json] [--slots N] [--runs N]\n"), 2;
    }
    if (!runs || runs > RUNS_MAX || !b.slots)
        return fprintf(stderr, "ring_bench: --runs is 1 ... %u, --slots at least 1\n", RUNS_MAX), 2;
    open_bench(&b);
    if (json)
        printf("{\"schema\": 1, \"cpus\": %ld, \"slots\": %" PRIu64 ", \"rings\": [", sysconf(_SC_NPROCESSORS_ONLN),
               b.slots);
    for (int kind = 0; kind < 4; kind++) {
        double took[RUNS_MAX];
        b.stages = kind & 1 ? 3 : 2;
        b.bells = kind >> 1;
        for (uint32_t i = 0; i < runs; i++)
            took[i] = run(&b);
        qsort(took, runs, sizeof took[0], ascending);
        double best = (double)b.slots / took[0], median = (double)b.slots / took[runs / 2];
        printf(json ? "%s{\"processes\": %u, \"bell\": %s, \"best_slots_per_s\": %.0f, \"median_slots_per_s\": %.0f}"
                    : "%s%u processes, doorbell %-5s  best %7.1f M slots/s  median %7.1f M slots/s\n",
               json && kind ? ", " : "", b.stages, json ? b.bells ? "true" : "false" : b.bells ? "on" : "off",
               json ? best : best / 1e6, json ? median : median / 1e6);
        fflush(stdout);
    }
    if (json)
        printf("]}\n");
    return 0;
}
