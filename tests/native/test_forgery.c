/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: a node learns from its peers that another member has sealed numbers in its name, whichever windows that fills,
 * and replays of its own datagrams do not make it believe so.
 * Method: the network of network.h.  Node 2 has the keys of all nodes, and seals in the name of node 0 and of node 1.
 * A proof is a punt of node 0.
 */
#include "network.h"
#include "mp_forgery.h"
#include "mp_seal.h"

#define FAR (UINT64_C(1) << 30)
#define BODY 20u               /* not the length of a probe: nothing but the window takes note of it */

static struct mp_gcm *gcm;

/* Send a datagram in the name of a node from the socket of node 2. */
static void forge(uint32_t origin, uint32_t to, int sealed, uint8_t type, uint64_t sequence)
{
    uint8_t datagram[MP_HEADER_BYTES + BODY + MP_TAG_BYTES] = { 0 }, key[MP_KEY_BYTES];
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(nodes[to].endpoint.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct mp_header h = { .type = type, .flags = sealed ? MP_FLAG_SEALED : 0, .hop_limit = 9, .epoch = KEY_EPOCH,
                           .origin = origin_of(origin), .sequence = sequence };
    mp_header_write(datagram, &h);
    make_key(key, origin);
    struct mp_cipher *cipher = mp_cipher_new(gcm, key, 1);
    if (sealed)
        CHECK_EQUAL(mp_seal(cipher, datagram, BODY), 0);
    mp_cipher_free(cipher);
    size_t length = sizeof datagram - (sealed ? 0 : MP_TAG_BYTES);
    CHECK(sendto(nodes[2].udp, datagram, length, 0, (struct sockaddr *)&at, sizeof at) == (ssize_t)length);
}

/* Fill all words of one window with numbers far ahead: 131 kB of datagrams. */
static void poison(uint32_t origin, uint32_t to, int sealed, int probes)
{
    for (uint64_t i = 0; i < MP_WINDOW_WORDS; i++) {
        forge(origin, to, sealed, probes ? MP_TYPE_ECHO : MP_TYPE_DATA, mp_space(0, probes) + FAR + i * 32);
        if (i % 64 == 63)
            mp_worker_run(nodes[to].worker, 1000000);
    }
}

static void open_two_members(int sealed)
{
    gcm = mp_gcm_new();
    open_network(sealed, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    run_all(6);
}

static void close_two_members(void)
{
    close_network();
    mp_gcm_free(gcm);
}

static void send_packets(uint32_t count)
{
    uint8_t packet[2048];
    for (uint32_t i = 0; i < count; i++)
        write_host(0, packet, make_packet(packet, GROUP, 1316, i));
    run_all(6);
}

static uint32_t delivered(uint32_t node)
{
    uint8_t got[70000], vnet[MP_VNET_BYTES];
    uint32_t count = 0;
    while (read_host(node, got, vnet))
        count++;
    return count;
}

/* Return the number of proofs that a node has for its control. */
static uint32_t proofs(uint32_t node)
{
    uint32_t kind = 0, count = 0, link = 0;
    uint8_t punt[2048];
    while (mp_punt_take(nodes[node].worker, &kind, punt, sizeof punt))
        if (kind == MP_PUNT_FORGERY) {
            memcpy(&link, punt, sizeof link);
            CHECK_EQUAL(link, 1);
            count++;
        }
    return count;
}

static void poisoned_data_window_is_reported(int sealed)
{
    open_two_members(sealed);
    send_packets(5);
    CHECK_EQUAL(delivered(1), 5);
    CHECK_EQUAL(proofs(0), 0);
    poison(0, 1, sealed, 0);
    send_packets(5);
    CHECK_EQUAL(delivered(1), 0);
    CHECK(counted(1, MP_DROP_replay) >= 5);
    CHECK(proofs(0) >= 1);
    CHECK_EQUAL(proofs(1) + proofs(2), 0);
    close_two_members();
}

/* All four windows between two nodes: neither accepts a probe of the other. */
static void poisoned_probe_windows_keep_no_report_out(int sealed)
{
    open_two_members(sealed);
    poison(0, 1, sealed, 1);
    poison(1, 0, sealed, 1);
    poison(1, 0, sealed, 0);
    poison(0, 1, sealed, 0);
    uint64_t answered = atomic_load(&mp_link_rx(nodes[0].region, 0)[1].answered);
    send_packets(5);
    CHECK_EQUAL(delivered(1), 0);
    CHECK(proofs(0) >= 1);
    CHECK_EQUAL(atomic_load(&mp_link_rx(nodes[0].region, 0)[1].answered), answered);
    close_two_members();
}

/* A number that will be used soon is marked before it is. */
static void numbers_taken_in_advance_are_reported(void)
{
    open_two_members(1);
    for (uint32_t i = 0; i < 400; i++)
        forge(0, 1, 1, MP_TYPE_DATA, mp_space(0, 0) + i);
    mp_worker_run(nodes[1].worker, 1000000);
    send_packets(5);
    CHECK_EQUAL(delivered(1), 0);
    CHECK(proofs(0) >= 1);
    close_two_members();
}

/* Genuine datagrams again, in any order and however old, are refused, reported, and no proof. */
static void replays_prove_nothing(void)
{
    uint8_t datagram[256][2048];
    ssize_t length[256];
    uint32_t count = 0;
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = 0, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    open_two_members(1);
    to.sin_port = htons(nodes[1].endpoint.port);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1 | 1 << 2, 0);
    int off = 0;
    setsockopt(nodes[2].udp, IPPROTO_UDP, 104, &off, sizeof off);
    uint8_t packet[2048];
    for (uint32_t i = 0; i < 50; i++)
        write_host(0, packet, make_packet(packet, GROUP, 1316, i));
    for (int i = 0; i < 4; i++) {
        mp_worker_run(nodes[0].worker, 1000000);
        mp_worker_run(nodes[1].worker, 1000000);
    }
    while (count < 256 && (length[count] = recv(nodes[2].udp, datagram[count], 2048, MSG_DONTWAIT)) > 0)
        count++;
    CHECK(count >= 50);
    CHECK_EQUAL(delivered(1), 50);
    uint64_t refused = counted(1, MP_DROP_replay), probes = atomic_load(&mp_link_rx(nodes[1].region, 0)[0].probes);
    for (uint32_t i = count; i-- > 0;)
        sendto(nodes[2].udp, datagram[i], (size_t)length[i], 0, (struct sockaddr *)&to, sizeof to);
    run_all(6);
    CHECK(counted(1, MP_DROP_replay) >= refused + 50);
    CHECK(atomic_load(&mp_link_rx(nodes[1].region, 0)[0].probes) > probes);
    CHECK_EQUAL(proofs(0), 0);
    close_two_members();
}

/* The check of a report, at the edges. */
static void report_is_compared_with_own_numbers(void)
{
    static const struct { uint8_t form, epoch, space; uint32_t block; int is_proven; } cases[] = {
        { 1, KEY_EPOCH, 0, 100, 0 }, { 1, KEY_EPOCH, 0, 101, 1 }, { 1, KEY_EPOCH, 0, 99, 0 },
        { 1, KEY_EPOCH, 0, 100 + 0x7fffffffu, 1 }, { 1, KEY_EPOCH, 0, 100 + 0x80000000u, 0 },
        { 1, KEY_EPOCH, MP_LANES_MAX, 101, 1 }, { 1, KEY_EPOCH, MP_LANES_MAX, 7, 0 },
        { 1, KEY_EPOCH, 1, 101, 0 }, { 1, KEY_EPOCH, MP_LANES_MAX + 1, 101, 0 }, { 1, KEY_EPOCH, 255, 101, 0 },
        { 1, KEY_EPOCH + 1, 0, 101, 0 }, { 0, KEY_EPOCH, 0, 101, 0 }, { 2, KEY_EPOCH, 0, 101, 0 },
    };
    open_two_members(1);
    struct mp_rx_peers *peers = mp_rx_peers_new(nodes[0].worker);
    mp_rx_peers_refresh(peers);
    atomic_store(&mp_lane(nodes[0].region, 0)->data_sequence.at, 3200);
    atomic_store(&mp_lane(nodes[0].region, 0)->probe_sequence.at, 7 * 32 + 31);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t report[MP_FORGERY_BYTES] = { cases[i].form, cases[i].epoch, cases[i].space };
        mp_put16(report + 4, cases[i].block >> 16);
        mp_put16(report + 6, cases[i].block);
        CHECK_EQUAL(mp_forgery_is_proven(peers, report), cases[i].is_proven);
    }
    mp_rx_peers_free(peers);
    close_two_members();
}

static void sealed_poisoned_data_window_is_reported(void) { poisoned_data_window_is_reported(1); }
static void insecure_poisoned_data_window_is_reported(void) { poisoned_data_window_is_reported(0); }
static void sealed_poisoned_probe_windows_keep_no_report_out(void) { poisoned_probe_windows_keep_no_report_out(1); }
static void insecure_poisoned_probe_windows_keep_no_report_out(void) { poisoned_probe_windows_keep_no_report_out(0); }

int main(void)
{
    RUN(sealed_poisoned_data_window_is_reported);
    RUN(insecure_poisoned_data_window_is_reported);
    RUN(sealed_poisoned_probe_windows_keep_no_report_out);
    RUN(insecure_poisoned_probe_windows_keep_no_report_out);
    RUN(numbers_taken_in_advance_are_reported);
    RUN(replays_prove_nothing);
    RUN(report_is_compared_with_own_numbers);
    return 0;
}
