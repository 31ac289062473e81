/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: stages that are run now by their own process and now by a borrower lose, double and reorder nothing, nobody
 * oversleeps, and only a stage's own process punts.
 * Method: node 1 of network.h runs as four workers, each an actor; it sends packets of its own host and relays those of
 * node 0 to node 2, so that two producers meet at overlay_egress.  Packets come in bursts and in pauses of many lengths.
 */
#include "actor.h"
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
        atomic_store(&mp_lane(nodes[1].region, 0)->bell[stage].runner, 0);  /* it ended in peace */
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

/* An IGMPv2 report, as far as the stages look at it. */
static void report(void)
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

static void two_producers(void)
{
    struct actor actor[PARTS];
    uint32_t next[2] = { 0 }, reports = 0;
    uint8_t packet[2048];
    open_parts();
    for (uintptr_t stage = 0; stage < PARTS; stage++)
        actor_start(&actor[stage], run_part, (void *)stage);
    for (uint32_t i = 0; i < PACKETS; i++) {
        uint64_t dice = check_mix(i);
        write_host(1, packet, make_packet(packet, GROUP, 100 + (uint32_t)(dice >> 8) % 1000, i));
        write_host(0, packet, make_packet(packet, RELAYED, 700, i));
        if (dice % 97 == 0) {
            report();
            reports++;
        }
        if (dice % 11 == 0)
            usleep((useconds_t)(dice >> 20) % 400);
        while (i > next[0] + 40 || i > next[1] + 40 || dice % 5 == 0) {
            mp_worker_run(nodes[0].worker, 20000);
            mp_worker_run(nodes[2].worker, 20000);
            take_delivered(next);
            dice = 1;
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

/* tun_ingress died in the middle of a borrowed classify: its successor gives the stage back and says what is lost. */
static void borrower_died(void)
{
    uint8_t packet[2048];
    open_parts();
    struct mp_lane *lane = mp_lane(nodes[1].region, 0);
    for (uint32_t i = 0; i < 5; i++)
        write_host(1, packet, make_packet(packet, GROUP, 100, i));
    atomic_store(&lane->bell[MP_CLASSIFY].runner, 1 + MP_CLASSIFY);     /* awake elsewhere: not to be borrowed */
    CHECK_EQUAL(mp_worker_run(part[MP_TUN_INGRESS], 1000000), 0);
    CHECK_EQUAL(mp_ready(&lane->host[0], &lane->host[1]), 5);
    atomic_store(&lane->bell[MP_CLASSIFY].runner, 1 + MP_TUN_INGRESS);
    CHECK_EQUAL(mp_worker_run(part[MP_CLASSIFY], 1000000), 0);
    CHECK_EQUAL(mp_ready(&lane->host[0], &lane->host[1]), 5);           /* its own process leaves them alone */
    mp_worker_free(part[MP_TUN_INGRESS]);
    open_part(MP_TUN_INGRESS, 1u << MP_CLASSIFY | 1u << MP_OVERLAY_EGRESS);
    CHECK_EQUAL(counted(1, MP_DROP_restart_skip), 5);
    CHECK_EQUAL(mp_runner(&lane->bell[MP_CLASSIFY]), 0);
    write_host(1, packet, make_packet(packet, GROUP, 100, 5));
    mp_bell_arm(&lane->bell[MP_CLASSIFY]);
    mp_bell_arm(&lane->bell[MP_OVERLAY_EGRESS]);
    CHECK_EQUAL(mp_worker_run(part[MP_TUN_INGRESS], 1000000), 0);       /* both sleep: borrowed, one after the other */
    CHECK_EQUAL(mp_ready(&lane->host[0], &lane->host[2]), 0);
    CHECK_EQUAL(counted(1, MP_COUNT_borrowed), 2);
    close_parts();
}

int main(void)
{
    RUN(two_producers);
    RUN(borrower_died);
    return 0;
}
