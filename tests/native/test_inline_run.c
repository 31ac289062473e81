/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: stages that run now in their own process and now inline in another lose, double and reorder no packet, no
 * process misses a wake-up, and only a stage's own process punts.
 * Method: node 1 of network.h runs as four workers, each an actor.  It sends packets of its own host and relays those
 * of node 0 to node 2, so that overlay_egress has two producers.  Packets come in bursts, with pauses of many
 * lengths.
 */
#include "actor.h"
#include "mp_repair_requests.h"
#include "mp_ring.h"
#include "network.h"

#define PACKETS 6000u
#define RELAYED (GROUP + 1)
#define PARTS 4u

static struct mp_worker *part[PARTS];

static void open_part(uint32_t stage, uint32_t inline_stages)
{
    const struct node *n = &nodes[1];
    struct mp_worker_config config = { .stages = 1u << stage, .inline_stages = inline_stages, .idle = MP_IDLE_ADAPTIVE,
                                       .moderation_us = 300, .tun = n->tun, .udp = n->udp, .wake = n->wake[0] };
    memcpy(config.bell, n->bell, sizeof config.bell);
    part[stage] = mp_worker_new(n->region, &config);
    CHECK(part[stage] != NULL);
}

static void open_parts(void)
{
    const uint32_t egress = 1u << MP_OVERLAY_EGRESS;
    open_network(1, 0);
    mp_worker_free(nodes[1].worker);
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        atomic_store(&mp_lane(nodes[1].region, 0)->bell[stage].runner, 0);  /* as a worker that ended regularly */
    open_part(MP_TUN_INGRESS, 1u << MP_CLASSIFY | egress);
    open_part(MP_CLASSIFY, egress);
    open_part(MP_OVERLAY_EGRESS, 0);
    open_part(MP_OVERLAY_INGRESS, egress);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, RELAYED, 1 << 1, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, RELAYED, 1 << 2, 0);
    set_route(1, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 2, 0);
    for (uint32_t i = 0; i < 2; i++)
        set_route(2, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP + i, 0, 1);
}

static void close_parts(void)
{
    for (uint32_t stage = 1; stage < PARTS; stage++)
        mp_worker_free(part[stage]);
    nodes[1].worker = part[0];
    close_network();
}

static void run_part(void *stage)
{
    struct mp_worker *w = part[(uintptr_t)stage];
    uint8_t punt[64];
    uint32_t kind;
    for (int status; (status = mp_worker_run(w, UINT64_C(50000000))) != -EINTR;) {
        CHECK(status == 0 || (uintptr_t)stage == MP_CLASSIFY);
        while (mp_punt_take(w, &kind, punt, sizeof punt))
            CHECK_EQUAL(kind, MP_PUNT_MEMBERSHIP);
    }
}

/* Send an IGMPv2 report, valid as far as the stages check it. */
static void send_report(void)
{
    uint8_t packet[64];
    uint32_t length = make_packet(packet, GROUP, 4, 0);
    packet[9] = 2;
    mp_put16(packet + 10, 0);
    mp_put16(packet + 10, ~mp_checksum_add(packet, 20, 0));
    write_host(1, packet, length);
}

static void take_delivered(uint32_t next[2])
{
    uint8_t got[70000], vnet[MP_VNET_BYTES];
    while (read_host(2, got, vnet)) {
        uint32_t flow = got[19] - (GROUP & 0xff);
        CHECK_EQUAL(mp_get16(got + 4), next[flow]++);
    }
}

static void two_producers_lose_no_packet(void)
{
    struct actor actor[PARTS];
    uint32_t next[2] = { 0 }, reports = 0;
    uint8_t packet[2048];
    open_parts();
    for (uintptr_t stage = 0; stage < PARTS; stage++)
        actor_start(&actor[stage], run_part, (void *)stage);
    for (uint32_t i = 0; i < PACKETS; i++) {
        uint64_t random = check_mix(i);
        write_host(1, packet, make_packet(packet, GROUP, 100 + (uint32_t)(random >> 8) % 1000, i));
        write_host(0, packet, make_packet(packet, RELAYED, 700, i));
        if (random % 97 == 0) {
            send_report();
            reports++;
        }
        if (random % 11 == 0)
            usleep((useconds_t)(random >> 20) % 400);
        while (i > next[0] + 40 || i > next[1] + 40 || random % 5 == 0) {
            mp_worker_run(nodes[0].worker, 20000);
            mp_worker_run(nodes[2].worker, 20000);
            take_delivered(next);
            random = 1;
        }
    }
    for (int i = 0; i < 3000 && (next[0] < PACKETS || next[1] < PACKETS); i++) {
        mp_worker_run(nodes[0].worker, 1000000);
        mp_worker_run(nodes[2].worker, 1000000);
        take_delivered(next);
    }
    CHECK(write(nodes[1].wake[1], "", 1) == 1);
    for (uint32_t stage = 0; stage < PARTS; stage++)
        actor_join(&actor[stage]);
    CHECK_EQUAL(next[0], PACKETS);
    CHECK_EQUAL(next[1], PACKETS);
    CHECK_EQUAL(counted(1, MP_COUNT_punted), reports);
    CHECK(counted(1, MP_COUNT_borrowed) > 50);
    CHECK_EQUAL(counted(1, MP_DROP_restart_skip), 0);
    close_parts();
}

/* tun_ingress died while it ran classify inline: its successor gives the stage back and counts the lost packets. */
static void successor_gives_inline_stage_back(void)
{
    uint8_t packet[2048];
    open_parts();
    struct mp_lane *lane = mp_lane(nodes[1].region, 0);
    for (uint32_t i = 0; i < 5; i++)
        write_host(1, packet, make_packet(packet, GROUP, 100, i));
    atomic_store(&lane->bell[MP_CLASSIFY].runner, 1 + MP_CLASSIFY);     /* its own process runs: not inline */
    CHECK_EQUAL(mp_worker_run(part[MP_TUN_INGRESS], 1000000), 0);
    CHECK_EQUAL(mp_ready(&lane->host[0], &lane->host[1]), 5);
    atomic_store(&lane->bell[MP_CLASSIFY].runner, 1 + MP_TUN_INGRESS);
    CHECK_EQUAL(mp_worker_run(part[MP_CLASSIFY], 1000000), 0);
    CHECK_EQUAL(mp_ready(&lane->host[0], &lane->host[1]), 5);           /* its own process leaves them */
    mp_worker_free(part[MP_TUN_INGRESS]);
    open_part(MP_TUN_INGRESS, 1u << MP_CLASSIFY | 1u << MP_OVERLAY_EGRESS);
    CHECK_EQUAL(counted(1, MP_DROP_restart_skip), 5);
    CHECK_EQUAL(mp_runner(&lane->bell[MP_CLASSIFY]), 0);
    write_host(1, packet, make_packet(packet, GROUP, 100, 5));
    mp_bell_arm(&lane->bell[MP_CLASSIFY]);
    mp_bell_arm(&lane->bell[MP_OVERLAY_EGRESS]);
    CHECK_EQUAL(mp_worker_run(part[MP_TUN_INGRESS], 1000000), 0);       /* both sleep: both run inline */
    CHECK_EQUAL(mp_ready(&lane->host[0], &lane->host[2]), 0);
    CHECK_EQUAL(counted(1, MP_COUNT_borrowed), 2);
    close_parts();
}

/* A worker died while it ran overlay_egress inline, then a repair request came: its successor wakes the stage. */
static void successor_wakes_stage_for_work_left(void)
{
    const uint32_t numbers[] = { 5 };
    open_parts();
    struct mp_bell *bell = &mp_lane(nodes[1].region, 0)->bell[MP_OVERLAY_EGRESS];
    atomic_store(&bell->runner, 1 + MP_TUN_INGRESS);
    mp_bell_arm(bell);
    CHECK_EQUAL(mp_repair_request_add(nodes[1].region, 2, origin_of(0), 1, numbers, 1), 0);
    mp_worker_free(part[MP_TUN_INGRESS]);
    open_part(MP_TUN_INGRESS, 1u << MP_CLASSIFY | 1u << MP_OVERLAY_EGRESS);
    uint64_t rings = 0;
    CHECK(read(nodes[1].bell[MP_OVERLAY_EGRESS], &rings, sizeof rings) == sizeof rings && rings == 1);
    CHECK_EQUAL(mp_runner(bell), 0);
    close_parts();
}

int main(void)
{
    RUN(two_producers_lose_no_packet);
    RUN(successor_gives_inline_stage_back);
    RUN(successor_wakes_stage_for_work_left);
    return 0;
}
