/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: a packet written into the TUN of one node comes out of another node's unchanged and once, on every path.
 * Method: the network of network.h: three nodes in this process, with tables written by hand.
 */
#include "network.h"
#include "mp_unresolved.h"
#include "mp_clock.h"
#include "mp_stage.h"

static void expect_packets(uint32_t node, uint32_t count, uint32_t payload)
{
    uint8_t expected[70000], got[70000], vnet[MP_VNET_BYTES];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = make_packet(expected, GROUP, payload, i);
        CHECK_EQUAL(read_host(node, got, vnet), length);
        CHECK(!memcmp(expected, got, length));
    }
    CHECK_EQUAL(read_host(node, got, vnet), 0);
}

static void deliver_to_members(int sealed)
{
    static const uint32_t sizes[] = { 0, 1, 64, 500, 1316, 1408 };
    uint8_t packet[2048];
    open_network(sealed, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1 | 1 << 2, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    set_route(2, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (uint32_t i = 0; i < 100; i++)
            write_host(0, packet, make_packet(packet, GROUP, sizes[s], i));
        run_all(6);
        expect_packets(1, 100, sizes[s]);
        expect_packets(2, 100, sizes[s]);
    }
    CHECK_EQUAL(counted(0, MP_COUNT_tun_rx_packets), 600);
    CHECK(counted(0, MP_COUNT_packed) > 200);
    CHECK(counted(0, MP_COUNT_overlay_tx_calls) < 200);
    close_network();
}

static void packets_of_a_flow_become_a_super_packet(void)
{
    uint8_t packet[2048], got[70000], vnet[MP_VNET_BYTES];
    open_network(1, 1);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    for (uint32_t i = 0; i < 10; i++)
        write_host(0, packet, make_packet(packet, GROUP, i < 9 ? 1316 : 700, i));
    run_all(4);
    uint32_t length = read_host(1, got, vnet);
    CHECK_EQUAL(length, 28 + 9 * 1316 + 700);
    CHECK(vnet[0] == 1 && vnet[1] == 5);
    CHECK_EQUAL(vnet[4] | vnet[5] << 8, 1316);
    CHECK_EQUAL(mp_get16(got + 2), length);
    CHECK_EQUAL(mp_checksum_add(got, 20, 0), 0xffff);
    close_network();
}

/* Two interleaved flows of different sizes, and one flow of changing sizes: few calls, and each flow in order. */
static void mixed_sizes_leave_in_order(void)
{
    uint8_t packet[2048], got[70000], vnet[MP_VNET_BYTES];
    uint32_t next[3] = { 0 };
    open_network(1, 0);
    for (uint32_t flow = 0; flow < 3; flow++) {
        set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP + flow, 1 << 1, 0);
        set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP + flow, 0, 1);
    }
    for (uint32_t i = 0; i < 20; i++) {
        write_host(0, packet, make_packet(packet, GROUP, 1316, i));
        write_host(0, packet, make_packet(packet, GROUP + 1, 800, i));
    }
    run_all(3);
    CHECK(counted(0, MP_COUNT_overlay_tx_calls) <= 2 + 2);
    for (uint32_t i = 0; i < 20; i++)
        write_host(0, packet, make_packet(packet, GROUP + 2, 720 + (uint32_t)(check_mix(i) % 600), i));
    run_all(3);
    for (uint32_t length; (length = read_host(1, got, vnet));) {
        uint32_t flow = got[19] - (GROUP & 0xff);
        CHECK_EQUAL(mp_get16(got + 4), next[flow]++);
    }
    CHECK(next[0] == 20 && next[1] == 20 && next[2] == 20);
    close_network();
}

/* Send `each` packets of two flows, interleaved, as one super-buffer to the socket of node 1. */
static void send_two_flows(uint32_t each, uint32_t first)
{
    uint8_t packet[2048];
    for (uint32_t i = 0; i < each; i++)
        for (uint32_t flow = 0; flow < 2; flow++)
            write_host(0, packet, make_packet(packet, GROUP + flow, 1316, first + i));
    mp_worker_run(nodes[0].worker, 1000000);
}

static void expect_supers(uint32_t count, uint32_t packets)
{
    uint8_t got[70000], vnet[MP_VNET_BYTES];
    for (uint32_t i = 0; i < count; i++)
        CHECK_EQUAL(read_host(1, got, vnet), 28 + packets * 1316);
    CHECK_EQUAL(read_host(1, got, vnet), 0);
}

/* While there are several flows, packets are merged across all received super-buffers; under load node 1 waits for
 * more. */
static void several_flows_are_merged_across_super_buffers(void)
{
    open_network(1, 1);
    for (uint32_t flow = 0; flow < 2; flow++) {
        set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP + flow, 1 << 1, 0);
        set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP + flow, 0, 1);
    }
    send_two_flows(5, 0);
    mp_worker_run(nodes[1].worker, 1000000);
    expect_supers(2, 5);
    for (uint32_t again = 0; again < 3; again++) {
        for (uint32_t buffer = 0; buffer < 4; buffer++)
            send_two_flows(10, buffer * 10);
        mp_worker_run(nodes[1].worker, 1000000);
        expect_supers(2, 40);
    }
    CHECK_EQUAL(counted(1, MP_COUNT_tun_tx_writes), 2 + 3 * 2);

    nodes[1].worker->config.moderation_us = 400000;
    nodes[1].worker->schedule.loaded = 1;
    send_two_flows(10, 0);
    mp_worker_run(nodes[1].worker, 1000000);
    expect_supers(2, 10);
    send_two_flows(10, 10);
    mp_worker_run(nodes[1].worker, 1000000);
    expect_supers(0, 0);
    send_two_flows(10, 20);
    mp_worker_run(nodes[1].worker, 300000000);
    expect_supers(2, 20);
    close_network();
}

static void relay_reaches_other_members_once(void)
{
    uint8_t packet[2048];
    open_network(1, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 1 << 0 | 1 << 2, 1);  /* node 0 gets no copy of its own */
    set_route(2, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    for (uint32_t i = 0; i < 50; i++)
        write_host(0, packet, make_packet(packet, GROUP, 1316, i));
    run_all(6);
    expect_packets(1, 50, 1316);
    expect_packets(2, 50, 1316);
    CHECK_EQUAL(counted(1, MP_COUNT_relayed), 50);
    CHECK_EQUAL(counted(0, MP_DROP_own_origin), 0);
    close_network();
}

/* Even datagrams of the stream go 0 → 1 → 2, odd ones 0 → 2 → 1: each node gets each once, and relays one half. */
static void stripes_take_two_trees(void)
{
    uint8_t packet[2048], got[70000], vnet[MP_VNET_BYTES];
    open_network(1, 0);
    for (uint32_t stripe = 0; stripe < 2; stripe++) {
        set_stripe(0, MP_SIDE_HOST, GROUP, stripe, stripe ? 1 : 2, 1u << (1 + stripe), 0);
        set_stripe(1, MP_SIDE_OVERLAY, GROUP, stripe, stripe ? 1 : 2, stripe ? 0 : 1 << 2, MP_ENTRY_LOCAL);
        set_stripe(2, MP_SIDE_OVERLAY, GROUP, stripe, stripe ? 1 : 2, stripe ? 1 << 1 : 0, MP_ENTRY_LOCAL);
    }
    for (uint32_t i = 0; i < 51; i++)
        write_host(0, packet, make_packet(packet, GROUP, 1316, i));
    run_all(6);
    CHECK_EQUAL(counted(1, MP_COUNT_relayed), 26);
    CHECK_EQUAL(counted(2, MP_COUNT_relayed), 25);
    for (uint32_t node = 1; node < NODES; node++) {
        uint64_t seen = 0;
        for (uint32_t length; (length = read_host(node, got, vnet));)
            seen |= UINT64_C(1) << mp_get16(got + 4);
        CHECK(seen == (UINT64_C(1) << 51) - 1);
        CHECK_EQUAL(counted(node, MP_DROP_replay) + counted(node, MP_DROP_not_wanted), 0);
    }
    close_network();
}

static void bad_packets_are_dropped_and_counted(void)
{
    uint8_t packet[2048];
    open_network(1, 0);
    uint32_t length = make_packet(packet, GROUP, 100, 0);
    write_host(0, packet, length);              /* no member: counted and punted */
    make_packet(packet, 0x08080808, 100, 0);
    write_host(0, packet, length);              /* to no node of the overlay */
    make_packet(packet, GROUP, 100, 0);
    packet[10] ^= 1;
    write_host(0, packet, length);
    write_host(0, packet, 12);
    packet[0] = 0xf5;
    write_host(0, packet, length);
    run_all(2);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 0);      /* the packet waits for a route */
    for (uint64_t end = mp_now_ns() + MP_UNRESOLVED_NS; mp_now_ns() < end;)
        mp_worker_run(nodes[0].worker, 1000000);
    run_all(2);                                         /* a busy machine may have taken the last round's time */
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 1);
    CHECK_EQUAL(counted(0, MP_DROP_not_overlay), 1);
    CHECK_EQUAL(counted(0, MP_DROP_ip_checksum), 1);
    CHECK_EQUAL(counted(0, MP_DROP_truncated), 1);
    CHECK_EQUAL(counted(0, MP_DROP_ip_version), 1);
    CHECK_EQUAL(counted(0, MP_COUNT_punted), 1);
    uint32_t kind = 0;
    uint8_t punt[2048];
    CHECK_EQUAL(mp_punt_take(nodes[0].worker, &kind, punt, sizeof punt), 64);
    CHECK_EQUAL(kind, MP_PUNT_SOURCE);
    close_network();
}

/* Capture a datagram of node 0, then send it to node 1 with each byte changed, cut short, as it is, and again. */
static void changed_and_replayed_datagrams_are_dropped(void)
{
    uint8_t packet[2048], datagram[2048], got[2048], vnet[MP_VNET_BYTES];
    open_network(1, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 2, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    write_host(0, packet, make_packet(packet, GROUP, 300, 0));
    mp_worker_run(nodes[0].worker, 1000000);
    struct pollfd p = { .fd = nodes[2].udp, .events = POLLIN };
    ssize_t length = 0;
    while (poll(&p, 1, 200) > 0 && (length = recv(nodes[2].udp, datagram, sizeof datagram, 0)) > 0)
        if (datagram[0] == (MP_WIRE_VERSION << 4 | MP_TYPE_DATA))
            break;
    CHECK_EQUAL(length, 20 + 328 + 16);
    CHECK(memmem(datagram, (size_t)length, packet + 28, 32) == NULL);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(nodes[1].endpoint.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    for (ssize_t i = 0; i < length; i++) {
        if (i == 2)             /* the hop limit changes at each relay */
            continue;
        datagram[i] ^= 0x55;
        sendto(nodes[2].udp, datagram, (size_t)length, 0, (struct sockaddr *)&to, sizeof to);
        datagram[i] ^= 0x55;
        if (i % 16 == 0)
            mp_worker_run(nodes[1].worker, 1000000);
    }
    for (size_t cut = 0; cut < (size_t)length; cut += 7)
        sendto(nodes[2].udp, datagram, cut, 0, (struct sockaddr *)&to, sizeof to);
    run_all(3);
    CHECK_EQUAL(read_host(1, got, vnet), 0);
    for (int i = 0; i < 3; i++)
        sendto(nodes[2].udp, datagram, (size_t)length, 0, (struct sockaddr *)&to, sizeof to);
    run_all(3);
    CHECK_EQUAL(read_host(1, got, vnet), 328);
    CHECK(!memcmp(got, packet, 328));
    CHECK_EQUAL(read_host(1, got, vnet), 0);
    CHECK(counted(1, MP_DROP_replay) >= 2);
    CHECK(counted(1, MP_DROP_authentication) > 300);
    close_network();
}

/* Sends a sealed datagram of origin 0 from node 2's socket to node 1.  Its tag is wrong: only the header matters. */
static void send_origin_zero(uint32_t number)
{
    uint8_t datagram[MP_HEADER_BYTES + 100 + MP_TAG_BYTES] = { 0 };
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(nodes[1].endpoint.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct mp_header h = { .type = MP_TYPE_DATA, .flags = MP_FLAG_SEALED, .hop_limit = 9, .epoch = KEY_EPOCH,
                           .origin = 0, .sequence = 1000 + number };
    mp_header_write(datagram, &h);
    CHECK(sendto(nodes[2].udp, datagram, sizeof datagram, 0, (struct sockaddr *)&to, sizeof to) == sizeof datagram);
    mp_worker_run(nodes[1].worker, 1000000);
}

/* Origin 0 marks a key record as free.  While control writes the record of the last sender, the stage's copy of it has
 * origin 0 and no cipher: a datagram of origin 0 must not be opened with it. */
static void origin_zero_is_refused_while_key_is_written(void)
{
    uint8_t packet[2048];
    open_network(1, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    write_host(0, packet, make_packet(packet, GROUP, 100, 0));
    mp_worker_run(nodes[0].worker, 1000000);
    mp_worker_run(nodes[1].worker, 1000000);            /* the key of node 0 is now the last one used */
    expect_packets(1, 1, 100);
    send_origin_zero(0);
    CHECK_EQUAL(counted(1, MP_DROP_unknown_origin), 1);
    atomic_fetch_add(&mp_keys(nodes[1].region)[0].generation, 1);
    atomic_fetch_add(&mp_published(nodes[1].region)->keys_version, 1);
    send_origin_zero(1);
    CHECK_EQUAL(counted(1, MP_DROP_unknown_origin), 2);
    close_network();
}

static void probes_measure_links(void)
{
    open_network(1, 0);
    run_all(5);
    for (uint32_t k = 1; k < NODES; k++) {
        struct mp_link_rx *rx = mp_link_rx(nodes[0].region, 0) + k;
        CHECK(atomic_load(&rx->echoes) >= 1);
        CHECK(atomic_load(&rx->rtt_ns) > 0);
    }
    close_network();
}

static void sealed_packets_reach_members(void) { deliver_to_members(1); }
static void insecure_packets_reach_members(void) { deliver_to_members(0); }

int main(void)
{
    RUN(sealed_packets_reach_members);
    RUN(insecure_packets_reach_members);
    RUN(packets_of_a_flow_become_a_super_packet);
    RUN(mixed_sizes_leave_in_order);
    RUN(several_flows_are_merged_across_super_buffers);
    RUN(relay_reaches_other_members_once);
    RUN(stripes_take_two_trees);
    RUN(bad_packets_are_dropped_and_counted);
    RUN(changed_and_replayed_datagrams_are_dropped);
    RUN(origin_zero_is_refused_while_key_is_written);
    RUN(probes_measure_links);
    return 0;
}
