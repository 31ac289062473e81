/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: the first packets of a flow wait for a route, come once and in order when there is one, and are counted when
 * there is none in time; nothing waits for long, and there is an end to how many do.
 * Method: node 0 of network.h has no route at first; then one worker for each stage, where the stages must wake each
 * other.
 */
#include "actor.h"
#include "network.h"
#include "mp_unresolved.h"
#include "mp_clock.h"
#include "mp_stage.h"

#define PARTS 3u

static void open_source(void)
{
    open_network(1, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
}

static void say_to(uint32_t group, uint32_t number)
{
    uint8_t packet[2048];
    write_host(0, packet, make_packet(packet, group, 100, number));
}

static void say(uint32_t number)
{
    say_to(GROUP, number);
}

/* Runs a worker for some time; what it punts is thrown away. */
static void run_for(struct mp_worker *w, uint64_t ms)
{
    uint8_t punt[64];
    uint32_t kind;
    for (uint64_t end = mp_now_ns() + ms * 1000000; mp_now_ns() < end;) {
        mp_worker_run(w, 1000000);
        while (mp_punt_take(w, &kind, punt, sizeof punt))
            ;
    }
}

/* How many numbers from `next` on node 1 has delivered, in order and once. */
static uint32_t take_delivered(uint32_t next)
{
    uint8_t got[70000], vnet[MP_VNET_BYTES];
    uint32_t first = next;
    run_for(nodes[1].worker, 5);
    while (read_host(1, got, vnet))
        CHECK_EQUAL(mp_get16(got + 4), next++);
    return next - first;
}

static void a_route_comes(void)
{
    open_source();
    for (uint32_t i = 0; i < 3; i++)
        say(i);
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(take_delivered(0), 0);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP + 1, 1 << 1, 0);    /* another: of no use to them */
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(mp_unresolved_ready(mp_lane(nodes[0].region, 0)), 3);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    for (uint32_t i = 3; i < 6; i++)
        say(i);
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(take_delivered(0), 6);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 0);
    close_network();
}

/* What is in the ring already when the route, or one of no use, is made does not overtake what waits. */
static void some_are_on_their_way(int useless)
{
    struct mp_worker *w;
    open_source();
    w = nodes[0].worker;
    for (uint32_t i = 0; i < 3; i++)
        say(i);
    run_for(w, 20);
    say(3);
    CHECK_EQUAL(mp_tun_ingress_burst(w), 1);
    if (useless) {
        set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP + 1, 1 << 1, 0);
        run_for(w, 20);
        CHECK_EQUAL(mp_unresolved_ready(mp_lane(nodes[0].region, 0)), 4);
    }
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    run_for(w, 20);
    say(4);
    run_for(w, 20);
    CHECK_EQUAL(take_delivered(0), 5);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 0);
    close_network();
}

static void none_overtakes(void)
{
    some_are_on_their_way(0);
    some_are_on_their_way(1);
}

static void none_comes(void)
{
    open_source();
    for (uint32_t i = 0; i < MP_UNRESOLVED_PER_FLOW + 4; i++)
        say(i);
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 4);
    run_for(nodes[0].worker, MP_UNRESOLVED_NS / 1000000);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), MP_UNRESOLVED_PER_FLOW + 4);
    CHECK_EQUAL(mp_unresolved_ready(mp_lane(nodes[0].region, 0)), 0);
    say(0);
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), MP_UNRESOLVED_PER_FLOW + 5);    /* the group has been asked for before */
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(take_delivered(0), 0);
    close_network();
}

/* The places are for several flows, but not for any number. */
static void many_flows(void)
{
    const uint32_t flows = MP_UNRESOLVED / 2 + 1;
    open_source();
    for (uint32_t i = 0; i < 2 * flows; i++)
        say_to(GROUP + i % flows, i);
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(mp_unresolved_ready(mp_lane(nodes[0].region, 0)), MP_UNRESOLVED);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 2);
    close_network();
}

/* Who says something from time to time may be forgotten between, and is no worse off than at first. */
static void after_a_pause(void)
{
    open_source();
    say(0);
    run_for(nodes[0].worker, 600);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 1);
    run_for(nodes[0].worker, 1500);
    say(1);
    run_for(nodes[0].worker, 20);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(take_delivered(1), 1);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 1);
    close_network();
}

static struct mp_worker *part[PARTS];

static void run_part(void *stage)
{
    struct mp_worker *w = part[(uintptr_t)stage];
    uint8_t punt[64];
    uint32_t kind;
    while (mp_worker_run(w, UINT64_C(10000000000)) != -EINTR)
        while (mp_punt_take(w, &kind, punt, sizeof punt))
            CHECK_EQUAL(kind, MP_PUNT_SOURCE);
}

static void stages_wake_each_other(void)
{
    const struct node *n = &nodes[0];
    struct actor actor[PARTS];
    const uint32_t egress = 1u << MP_OVERLAY_EGRESS;
    const uint32_t inline_stages[PARTS] = { [MP_TUN_INGRESS] = 1u << MP_CLASSIFY | egress, [MP_CLASSIFY] = egress };
    open_source();
    mp_worker_free(n->worker);
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        atomic_store(&mp_lane(n->region, 0)->bell[stage].runner, 0);    /* it ended in peace */
    for (uint32_t stage = 0; stage < PARTS; stage++) {
        struct mp_worker_config config = { .stages = 1u << stage, .inline_stages = inline_stages[stage], .idle = MP_IDLE_ADAPTIVE,
                                           .tun = n->tun, .udp = n->udp, .wake = n->wake[0] };
        memcpy(config.bell, n->bell, sizeof config.bell);
        part[stage] = mp_worker_new(n->region, &config);
        CHECK(part[stage] != NULL);
    }
    for (uintptr_t stage = 0; stage < PARTS; stage++)
        actor_start(&actor[stage], run_part, (void *)stage);
    actor_pause_us(20000);
    say(0);
    actor_pause_us(30000);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);        /* nobody is reported */
    actor_pause_us(100000);
    CHECK_EQUAL(take_delivered(0), 1);
    CHECK(write(n->wake[1], "", 1) == 1);
    for (uint32_t stage = 0; stage < PARTS; stage++)
        actor_join(&actor[stage]);
    for (uint32_t stage = 1; stage < PARTS; stage++)
        mp_worker_free(part[stage]);
    nodes[0].worker = part[0];
    close_network();
}

int main(void)
{
    RUN(a_route_comes);
    RUN(none_overtakes);
    RUN(none_comes);
    RUN(many_flows);
    RUN(after_a_pause);
    RUN(stages_wake_each_other);
    return 0;
}
