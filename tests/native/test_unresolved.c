/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: the first packets of a flow wait for a route.  They come out once and in order when there is one, and are
 * counted when there is none in time.  Time and number of waiting packets are bounded.
 * Method: node 0 of network.h has no route at first; then one worker for each stage, where the stages must wake each
 * other.
 */
#include "actor.h"
#include "network.h"
#include "mp_unresolved.h"
#include "mp_clock.h"
#include "mp_stage.h"

#define PARTS 3u

static uint32_t sent;           /* by node 0 */

static void open_source(void)
{
    sent = 0;
    open_network(1, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
}

static void send_to(uint32_t group, uint32_t number)
{
    uint8_t packet[2048];
    write_host(0, packet, make_packet(packet, group, 100, number));
    sent++;
}

static void send_packet(uint32_t number)
{
    send_to(GROUP, number);
}

/* Run a worker for some time, and discard its punts. */
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

/* Run node 0 until it has read all packets, tried the present version of the table, and lets `count` packets wait. */
static void run_until_waiting(uint64_t count)
{
    struct node *n = &nodes[0];
    struct mp_lane *lane = mp_lane(n->region, 0);
    double end = check_now_s() + 10;
    int settled;
    do {
        run_for(n->worker, 5);
        settled = counted(0, MP_COUNT_tun_rx_packets) == sent && !mp_ready(&lane->host[0], &lane->host[2]) &&
                  (!count || n->worker->unresolved_version == atomic_load(&mp_fib(n->region)->version));
    } while (check_now_s() < end && (!settled || mp_unresolved_ready(lane) != count));
    CHECK_EQUAL(mp_unresolved_ready(lane), count);
}

/* Return how many numbers from `next` on node 1 has delivered, in order and once. */
static uint32_t take_delivered(uint32_t next)
{
    uint8_t got[70000], vnet[MP_VNET_BYTES];
    uint32_t first = next;
    run_for(nodes[1].worker, 5);
    while (read_host(1, got, vnet))
        CHECK_EQUAL(mp_get16(got + 4), next++);
    return next - first;
}

static void packets_leave_when_a_route_comes(void)
{
    open_source();
    for (uint32_t i = 0; i < 3; i++)
        send_packet(i);
    run_until_waiting(3);
    CHECK_EQUAL(take_delivered(0), 0);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP + 1, 1 << 1, 0);    /* of another group */
    run_until_waiting(3);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    for (uint32_t i = 3; i < 6; i++)
        send_packet(i);
    run_until_waiting(0);
    CHECK_EQUAL(take_delivered(0), 6);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 0);
    close_network();
}

/* A packet that is in the ring when the route is made, perhaps after one of another group, does not overtake others. */
static void route_comes_with_packet_in_ring(int has_other_route)
{
    struct mp_worker *w;
    open_source();
    w = nodes[0].worker;
    for (uint32_t i = 0; i < 3; i++)
        send_packet(i);
    run_until_waiting(3);
    send_packet(3);
    CHECK_EQUAL(mp_tun_ingress_burst(w), 1);
    if (has_other_route) {
        set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP + 1, 1 << 1, 0);
        run_until_waiting(4);
    }
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    run_until_waiting(0);
    send_packet(4);
    run_until_waiting(0);
    CHECK_EQUAL(take_delivered(0), 5);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 0);
    close_network();
}

static void no_packet_overtakes_waiting_ones(void)
{
    route_comes_with_packet_in_ring(0);
    route_comes_with_packet_in_ring(1);
}

static void packets_are_dropped_without_a_route(void)
{
    open_source();
    for (uint32_t i = 0; i < MP_UNRESOLVED_PER_FLOW + 4; i++)
        send_packet(i);
    run_until_waiting(MP_UNRESOLVED_PER_FLOW);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 4);
    run_for(nodes[0].worker, MP_UNRESOLVED_NS / 1000000);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), MP_UNRESOLVED_PER_FLOW + 4);
    CHECK_EQUAL(mp_unresolved_ready(mp_lane(nodes[0].region, 0)), 0);
    send_packet(0);
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), MP_UNRESOLVED_PER_FLOW + 5);    /* the source was punted before */
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    run_for(nodes[0].worker, 20);
    CHECK_EQUAL(take_delivered(0), 0);
    close_network();
}

/* Several flows share the places, the number of flows is bounded. */
static void flows_share_bounded_places(void)
{
    const uint32_t flows = MP_UNRESOLVED / 2 + 1;
    open_source();
    for (uint32_t i = 0; i < 2 * flows; i++)
        send_to(GROUP + i % flows, i);
    run_until_waiting(MP_UNRESOLVED);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 2);
    close_network();
}

/* Control may forget a source that pauses: its next packet waits for a route like the first. */
static void packets_wait_again_after_a_pause(void)
{
    open_source();
    send_packet(0);
    run_for(nodes[0].worker, 600);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 1);
    run_for(nodes[0].worker, 1500);
    send_packet(1);
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
        atomic_store(&mp_lane(n->region, 0)->bell[stage].runner, 0);    /* as a worker that ended regularly */
    for (uint32_t stage = 0; stage < PARTS; stage++) {
        struct mp_worker_config config = { .stages = 1u << stage, .inline_stages = inline_stages[stage],
                                           .idle = MP_IDLE_ADAPTIVE, .tun = n->tun, .udp = n->udp,
                                           .wake = n->wake[0] };
        memcpy(config.bell, n->bell, sizeof config.bell);
        part[stage] = mp_worker_new(n->region, &config);
        CHECK(part[stage] != NULL);
    }
    for (uintptr_t stage = 0; stage < PARTS; stage++)
        actor_start(&actor[stage], run_part, (void *)stage);
    actor_pause_us(20000);
    send_packet(0);
    actor_pause_us(30000);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);        /* without a doorbell */
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
    RUN(packets_leave_when_a_route_comes);
    RUN(no_packet_overtakes_waiting_ones);
    RUN(packets_are_dropped_without_a_route);
    RUN(flows_share_bounded_places);
    RUN(packets_wait_again_after_a_pause);
    RUN(stages_wake_each_other);
    return 0;
}
