/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: each slot passes the three stages of a host ring once, in order and whole; a full ring stops its producer; a
 * sleeping stage is always woken; and a successor continues where a killed stage was.
 * Method: cursors by hand; then 10^7 slots through a producer and two further stages in processes of their own, each
 * of which checks position and content of each slot; the same with stages that sleep on an eventfd between bursts;
 * the same with a middle stage that is killed again and again.
 */
#include <poll.h>
#include <sys/eventfd.h>

#include "actor.h"
#include "mp_counter.h"
#include "mp_ring.h"

#define CONTENT_WORDS 4
#define WOKEN_WITHIN_MS 10000   /* a wake-up that takes longer was lost */
#define BUSY_SECONDS 2.0        /* bound of tests that hand on slot by slot, for slow machines */
#define LAST_ROUND UINT32_MAX

/* ---- by hand ---- */

static void cursors_bound_ready_and_free_slots(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct mp_lane *lane = mp_lane(r, 0);
    struct mp_cursor *a = &lane->host[0], *b = &lane->host[1], *c = &lane->host[2];
    const uint64_t starts[] = { 0, UINT32_MAX - 5u, UINT64_MAX - 5u }; /* the last shows that nothing overflows */
    for (size_t i = 0; i < 3; i++) {
        atomic_store(&a->at, starts[i]);
        atomic_store(&b->at, starts[i]);
        atomic_store(&c->at, starts[i]);
        atomic_store(&c->freed, starts[i]);
        CHECK(mp_room(a, c, 256) == 256 && mp_ready(a, b) == 0 && mp_ready(b, c) == 0);
        mp_publish(a, 256);
        CHECK(mp_room(a, c, 256) == 0 && mp_ready(a, b) == 256 && mp_ready(b, c) == 0);
        mp_publish(b, 10);
        CHECK(mp_ready(a, b) == 246 && mp_ready(b, c) == 10 && mp_room(a, c, 256) == 0);
        mp_release(c, 4, 0);
        CHECK(mp_room(a, c, 256) == 4 && mp_ready(b, c) == 6);
        CHECK(mp_skip(a, b) == 246 && mp_skip(a, b) == 0 && mp_ready(b, c) == 252);
        CHECK(mp_skip(b, c) == 252 && mp_room(a, c, 256) == 256 && mp_position(c) == starts[i] + 256);
        mp_publish(a, 200);
        mp_publish(b, 200);
        mp_release(c, 100, 192);
        CHECK(mp_ready(b, c) == 100 && mp_room(a, c, 256) == 56);   /* all are kept */
        mp_release(c, 100, 192);
        CHECK(mp_ready(b, c) == 0 && mp_room(a, c, 256) == 64);     /* all but 8 */
        mp_release(c, 0, 200);
        CHECK(mp_room(a, c, 256) == 64);                            /* freed slots are not kept again */
        mp_release(c, 0, 0);
        CHECK(mp_room(a, c, 256) == 256);
    }
    CHECK(mp_host_slot(r, 0, 3) == mp_host_slot(r, 0, 3 + 256));
    CHECK_EQUAL((char *)mp_host_slot(r, 0, 255) - (char *)mp_host_slot(r, 0, 0), 255 * 896);
    CHECK(mp_overlay_slot(r, 0, 1) == mp_overlay_slot(r, 0, 9));
    actor_unmap(r);
}

static uint64_t rung(int fd)
{
    uint64_t count = 0;
    return read(fd, &count, sizeof count) == sizeof count ? count : 0;
}

static void doorbell_rings_once_if_armed(void)
{
    struct mp_bell bell = { 0 };
    int fd = eventfd(0, EFD_NONBLOCK);
    mp_bell_ring(&bell, fd);
    CHECK_EQUAL(rung(fd), 0);
    mp_bell_arm(&bell);
    mp_bell_ring(&bell, fd);
    mp_bell_ring(&bell, fd);
    CHECK_EQUAL(rung(fd), 1);
    mp_bell_arm(&bell);
    mp_bell_disarm(&bell);
    mp_bell_ring(&bell, fd);
    CHECK_EQUAL(rung(fd), 0);
    const uint64_t full = UINT64_MAX - 1;
    CHECK(write(fd, &full, sizeof full) == sizeof full);
    mp_bell_arm(&bell);
    mp_bell_ring(&bell, fd); /* returns although the eventfd is full */
    mp_bell_clear(fd);
    mp_bell_clear(fd); /* returns although it is empty */
    CHECK_EQUAL(rung(fd), 0);
    close(fd);
}

/* ---- the race between falling asleep and publishing ---- */

struct race {
    struct mp_cursor produced, consumed;
    struct mp_bell bell;
    _Alignas(64) _Atomic uint32_t round;
    _Alignas(64) _Atomic uint32_t done;
    _Atomic uint32_t saw_slot;
};

static void spin_while(_Atomic uint32_t *value, uint32_t unwanted)
{
    for (uint32_t spins = 1; atomic_load(value) == unwanted; spins++)
        if (spins % 4096 == 0)
            sched_yield();
}

static void fall_asleep(void *argument)
{
    struct race *race = argument;
    for (uint32_t round = 1;; round++) {
        spin_while(&race->round, round - 1);
        if (atomic_load(&race->round) == LAST_ROUND)
            return;
        mp_bell_arm(&race->bell);
        atomic_store_explicit(&race->saw_slot, mp_ready(&race->produced, &race->consumed) != 0, memory_order_relaxed);
        atomic_store(&race->done, round);
    }
}

/* Both act at the same instant, again and again: the producer sees the flag, or the consumer the slot, or both. */
static void no_wake_up_is_missed(void)
{
    struct race *race = actor_memory(sizeof *race);
    struct actor consumer;
    double end = check_now_s() + BUSY_SECONDS;
    actor_start(&consumer, fall_asleep, race);
    for (uint32_t round = 1; round <= CHECK_SCALE(1000000u) && (round % 256 || check_now_s() < end); round++) {
        atomic_store(&race->round, round);
        for (uint32_t delay = round % 64; delay; delay--) /* the other actor needs some time to see the round */
            atomic_signal_fence(memory_order_seq_cst);
        mp_publish(&race->produced, 1);
        int rings = mp_bell_claim(&race->bell);
        spin_while(&race->done, round - 1);
        CHECK(rings || atomic_load(&race->saw_slot));
        mp_bell_disarm(&race->bell);
        mp_publish(&race->consumed, 1);
    }
    atomic_store(&race->round, LAST_ROUND);
    actor_join(&consumer);
    munmap(race, sizeof *race);
}

/* ---- three stages ---- */

struct flow {
    struct mp_region *r;
    _Atomic uint64_t total;     /* the producer lowers it when its time is over */
    uint32_t burst;             /* most slots of a burst */
    int sleeps;                 /* stages sleep when no slot is ready */
    int in_step;                /* the producer waits until the ring is empty */
    int bell[MP_STAGES];
    _Atomic uint64_t slept;
    _Atomic uint64_t skipped;
};

static void ring(struct flow *f, uint32_t stage)
{
    if (f->sleeps)
        mp_bell_ring(&mp_lane(f->r, 0)->bell[stage], f->bell[stage]);
}

static int is_over(struct flow *f, struct mp_cursor *own)
{
    return mp_position(own) >= atomic_load(&f->total);
}

/* Wait until slots are ready, as a worker does.  Returns 0 when all have passed. */
static uint64_t wait_ready(struct flow *f, uint32_t stage, struct mp_cursor *upstream, struct mp_cursor *own)
{
    struct mp_bell *bell = &mp_lane(f->r, 0)->bell[stage];
    struct pollfd poll_bell = { .fd = f->bell[stage], .events = POLLIN };
    uint64_t ready;
    while (!(ready = mp_ready(upstream, own)) && !is_over(f, own)) {
        if (!f->sleeps) {
            sched_yield();
            continue;
        }
        mp_bell_arm(bell);
        if (!mp_ready(upstream, own) && !is_over(f, own)) {
            CHECK_EQUAL(poll(&poll_bell, 1, WOKEN_WITHIN_MS), 1);
            mp_bell_clear(f->bell[stage]);
            atomic_fetch_add(&f->slept, 1);
        }
        mp_bell_disarm(bell);
    }
    return ready;
}

static void fill(struct flow *f, uint64_t position)
{
    struct mp_slot *slot = mp_host_slot(f->r, 0, position);
    uint64_t *content = (uint64_t *)(void *)mp_slot_packet(slot);
    slot->words = 0;
    slot->length = (uint32_t)position;
    for (uint64_t i = 0; i < CONTENT_WORDS; i++)
        content[i] = check_mix(position * CONTENT_WORDS + i);
}

/* As classify: change the packet in place, and set the number of words last, which marks the slot as complete. */
static void transform(struct flow *f, uint64_t position)
{
    struct mp_slot *slot = mp_host_slot(f->r, 0, position);
    uint64_t *content = (uint64_t *)(void *)mp_slot_packet(slot);
    CHECK_EQUAL(slot->length, (uint32_t)position);
    for (uint64_t i = 0; i < CONTENT_WORDS; i++) {
        CHECK(content[i] == check_mix(position * CONTENT_WORDS + i));
        content[i] = ~content[i];
    }
    slot->length++;
    slot->links[0] = position;
    atomic_signal_fence(memory_order_release);
    slot->words = 1;
}

/* Return whether the slot was transformed.  A transformed slot must be complete. */
static int consume(struct flow *f, uint64_t position)
{
    struct mp_slot *slot = mp_host_slot(f->r, 0, position);
    const uint64_t *content = (const uint64_t *)(const void *)mp_slot_packet(slot);
    if (!slot->words)
        return 0;
    CHECK(slot->links[0] == position && slot->length == (uint32_t)position + 1);
    for (uint64_t i = 0; i < CONTENT_WORDS; i++)
        CHECK(content[i] == ~check_mix(position * CONTENT_WORDS + i));
    slot->words = 0;
    return 1;
}

static void tun_ingress(void *argument)
{
    struct flow *f = argument;
    struct mp_lane *lane = mp_lane(f->r, 0);
    uint64_t random = 1;
    double end = check_now_s() + BUSY_SECONDS;
    while (!is_over(f, &lane->host[0])) {
        uint64_t at = mp_position(&lane->host[0]), n = 1 + check_random(&random, f->burst);
        uint64_t room = mp_room(&lane->host[0], &lane->host[2], f->r->geometry.host_slots);
        if (f->in_step && room < f->r->geometry.host_slots)
            continue;
        if (n > room)
            n = room;
        if (n > f->total - at)
            n = f->total - at;
        if (f->sleeps && check_now_s() > end)
            break;
        for (uint64_t i = 0; i < n; i++)
            fill(f, at + i);
        mp_publish(&lane->host[0], n);
        ring(f, MP_CLASSIFY);
        if (!n)
            sched_yield();
        else if (f->sleeps && !f->in_step && check_random(&random, 4) == 0)
            actor_pause_us(10);
    }
    atomic_store(&f->total, mp_position(&lane->host[0]));
    ring(f, MP_CLASSIFY);
    ring(f, MP_OVERLAY_EGRESS);
}

static void classify(void *argument)
{
    struct flow *f = argument;
    struct mp_lane *lane = mp_lane(f->r, 0);
    while (!is_over(f, &lane->host[1])) {
        uint64_t at = mp_position(&lane->host[1]);
        uint64_t n = wait_ready(f, MP_CLASSIFY, &lane->host[0], &lane->host[1]);
        for (uint64_t i = 0; i < n; i++)
            transform(f, at + i);
        mp_publish(&lane->host[1], n);
        ring(f, MP_OVERLAY_EGRESS);
    }
}

static void overlay_egress(void *argument)
{
    struct flow *f = argument;
    struct mp_lane *lane = mp_lane(f->r, 0);
    while (!is_over(f, &lane->host[2])) {
        uint64_t at = mp_position(&lane->host[2]);
        uint64_t n = wait_ready(f, MP_OVERLAY_EGRESS, &lane->host[1], &lane->host[2]);
        for (uint64_t i = 0; i < n; i++)
            CHECK(consume(f, at + i));
        mp_release(&lane->host[2], n, 0);
    }
}

static struct flow *open_flow(uint32_t slots, uint64_t total, uint32_t burst, int sleeps)
{
    struct flow *f = actor_memory(sizeof *f);
    struct mp_geometry g = actor_small;
    g.host_slots = slots;
    f->r = actor_region(&g);
    f->total = total;
    f->burst = burst;
    f->sleeps = sleeps;
    for (int i = 0; i < MP_STAGES; i++)
        f->bell[i] = eventfd(0, EFD_NONBLOCK);
    return f;
}

static void close_flow(struct flow *f)
{
    for (int i = 0; i < MP_STAGES; i++)
        close(f->bell[i]);
    actor_unmap(f->r);
    munmap(f, sizeof *f);
}

static uint64_t pass_all(uint32_t slots, uint64_t total, uint32_t burst, int sleeps, int in_step)
{
    struct flow *f = open_flow(slots, total, burst, sleeps);
    struct actor stage[3];
    f->in_step = in_step;
    actor_start(&stage[0], tun_ingress, f);
    actor_start(&stage[1], classify, f);
    actor_start(&stage[2], overlay_egress, f);
    for (int i = 0; i < 3; i++)
        actor_join(&stage[i]);
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(mp_position(&mp_lane(f->r, 0)->host[i]), atomic_load(&f->total));
    CHECK(sleeps || atomic_load(&f->total) == total);
    uint64_t slept = atomic_load(&f->slept);
    close_flow(f);
    return slept;
}

static void ten_million_slots_pass_in_order(void)
{
    pass_all(4096, CHECK_SCALE(10000000), 64, 0, 0);
}

static void sleeping_stages_are_woken(void)
{
    CHECK(pass_all(256, CHECK_SCALE(500000), 64, 1, 0) > 20);
}

/* One slot at a time, the next as soon as the last stage is about to sleep: no later slot makes up for a lost
 * wake-up. */
static void single_slots_wake_stages(void)
{
    CHECK(pass_all(64, CHECK_SCALE(60000), 1, 1, 1) > 20);
}

/* ---- a stage that is killed ---- */

#if !ACTORS_ARE_THREADS
static void successor(void *argument)
{
    struct flow *f = argument;
    struct mp_lane *lane = mp_lane(f->r, 0);
    mp_count_in(&f->skipped, mp_skip(&lane->host[0], &lane->host[1]));
    classify(f);
}

/* Run the first and the last stage in one process for some rounds. */
static uint64_t feed_and_drain(struct flow *f, uint32_t rounds)
{
    struct mp_lane *lane = mp_lane(f->r, 0);
    uint64_t lost = 0, whole = 0;
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t at = mp_position(&lane->host[0]);
        uint64_t room = mp_room(&lane->host[0], &lane->host[2], f->r->geometry.host_slots);
        for (uint64_t i = 0; i < room; i++)
            fill(f, at + i);
        mp_publish(&lane->host[0], room);
        uint64_t ready = mp_ready(&lane->host[1], &lane->host[2]);
        at = mp_position(&lane->host[2]);
        for (uint64_t i = 0; i < ready; i++) {
            int is_whole = consume(f, at + i);
            whole += (uint64_t)is_whole;
            lost += (uint64_t)!is_whole;
        }
        mp_release(&lane->host[2], ready, 0);
        if (!ready)
            sched_yield();
    }
    mp_count_in(&f->slept, lost); /* in this test: the slots that were not transformed */
    return whole;
}

static void successor_continues_after_killed_stage(void)
{
    struct flow *f = open_flow(256, UINT64_MAX, 64, 0);
    struct actor stage;
    uint64_t whole = 0, random = 3;
    double end = check_now_s() + BUSY_SECONDS;
    for (int kills = 0; kills < 200 && check_now_s() < end; kills++) {
        actor_start(&stage, successor, f);
        whole += feed_and_drain(f, 20 + check_random(&random, 300));
        actor_kill(&stage);
    }
    actor_start(&stage, successor, f); /* the last one empties the ring */
    while (mp_position(&mp_lane(f->r, 0)->host[2]) < mp_position(&mp_lane(f->r, 0)->host[1]) || !whole)
        whole += feed_and_drain(f, 100);
    whole += feed_and_drain(f, 100);
    actor_kill(&stage);
    uint64_t lost = atomic_load(&f->slept), skipped = atomic_load(&f->skipped);
    CHECK(whole > 0);
    CHECK_EQUAL(whole + lost, mp_position(&mp_lane(f->r, 0)->host[2]));
    CHECK(lost <= skipped && skipped <= 201u * 256u);
    close_flow(f);
}
#endif

int main(void)
{
    RUN(cursors_bound_ready_and_free_slots);
    RUN(doorbell_rings_once_if_armed);
    RUN(no_wake_up_is_missed);
    RUN(ten_million_slots_pass_in_order);
    RUN(sleeping_stages_are_woken);
    RUN(single_slots_wake_stages);
#if !ACTORS_ARE_THREADS
    RUN(successor_continues_after_killed_stage);
#endif
    return 0;
}
