/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: data goes to an endpoint only after an echo of a probe has come from exactly that endpoint, and endpoints that
 * do not answer get few probes.
 * Method: three nodes in one process, sealed and insecure; a fourth socket is the stranger whose endpoint stands in a
 * link; echoes are also made by hand.
 */
#include "network.h"

#include "mp_probe.h"
#include "mp_seal.h"
#include "mp_siphash.h"

static struct mp_endpoint endpoint_of(int fd)
{
    struct sockaddr_in a;
    socklen_t length = sizeof a;
    struct mp_endpoint e = { .family = AF_INET };
    CHECK(getsockname(fd, (struct sockaddr *)&a, &length) == 0);
    e.port = ntohs(a.sin_port);
    memcpy(e.address, &a.sin_addr, 4);
    return e;
}

static int open_stranger(struct mp_endpoint *e)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) == 0);
    *e = endpoint_of(fd);
    return fd;
}

/* Drain a socket.  Returns the datagrams of this type; the last one is copied. */
static uint32_t drain(int fd, int type, uint8_t *last, ssize_t *length)
{
    uint8_t datagram[2048];
    uint32_t count = 0;
    ssize_t n;
    while ((n = recv(fd, datagram, sizeof datagram, MSG_DONTWAIT)) > 0)
        if ((datagram[0] & 15) == type) {
            count++;
            memcpy(last, datagram, (size_t)n);
            *length = n;
        }
    return count;
}

/* Take a punt of node 0.  Returns its kind, 0 if there is none. */
static uint32_t take_punt(uint32_t *link, struct mp_endpoint *e)
{
    uint8_t bytes[MP_PUNT_BYTES];
    uint32_t kind = 0;
    if (!mp_punt_take(nodes[0].worker, &kind, bytes, sizeof bytes))
        return 0;
    memcpy(link, bytes, sizeof *link);
    memcpy(e, bytes + sizeof *link, sizeof *e);
    return kind;
}

static void candidate_becomes_known_by_its_echo_only(int sealed)
{
    struct mp_endpoint e;
    uint32_t link;
    open_network(sealed, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1u << 1, 0);
    CHECK(set_link(nodes[0].region, 1, origin_of(1), 1, NULL, &nodes[1].endpoint) == 0);
    run_all(3);
    uint8_t packet[2048];
    write_host(0, packet, make_packet(packet, GROUP, 100, 1));
    CHECK_EQUAL(atomic_load(&mp_link_tx(nodes[0].region, 0)[1].datagrams), 0);
    CHECK_EQUAL(take_punt(&link, &e), MP_PUNT_ENDPOINT);
    CHECK(link == 1 && mp_endpoint_is(&e, &nodes[1].endpoint));
    CHECK(set_link(nodes[0].region, 1, origin_of(1), 1, &e, NULL) == 0);
    write_host(0, packet, make_packet(packet, GROUP, 100, 2));
    run_all(5);
    CHECK(atomic_load(&mp_link_tx(nodes[0].region, 0)[1].datagrams) >= 1);
    close_network();
}

static void stranger_gets_few_probes_and_no_data(void)
{
    struct mp_endpoint e;
    uint8_t last[2048], packet[2048];
    ssize_t length = 0;
    open_network(1, 0);
    int stranger = open_stranger(&e);
    CHECK(set_link(nodes[0].region, 1, origin_of(1), 1, NULL, &e) == 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1u << 1, 0);
    for (uint32_t i = 0; i < 20; i++)
        write_host(0, packet, make_packet(packet, GROUP, 100, i));
    run_all(10);
    CHECK_EQUAL(drain(stranger, MP_TYPE_PROBE, last, &length), 1);
    CHECK_EQUAL(drain(stranger, MP_TYPE_DATA, last, &length), 0);
    for (int i = 0; i < 150; i++, usleep(10000))
        run_all(1);
    CHECK_EQUAL(drain(stranger, MP_TYPE_PROBE, last, &length), MP_PROBE_FIRST - 1);
    CHECK_EQUAL(atomic_load(&mp_link_tx(nodes[0].region, 0)[1].datagrams), 0);
    close(stranger);
    close_network();
}

static void echo_of_another_endpoint_or_number_counts_for_nothing(void)
{
    struct mp_endpoint e, from;
    uint8_t last[2048];
    ssize_t length = 0;
    uint32_t link;
    open_network(0, 0);
    int stranger = open_stranger(&e);
    CHECK(set_link(nodes[0].region, 1, origin_of(1), 1, NULL, &e) == 0);
    run_all(3);
    CHECK_EQUAL(drain(stranger, MP_TYPE_PROBE, last, &length), 1);
    struct mp_header h = { .type = MP_TYPE_ECHO, .hop_limit = 1, .epoch = KEY_EPOCH, .origin = origin_of(1),
                           .sequence = mp_space(0, 1) | 1000 };
    mp_header_write(last, &h);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(nodes[0].endpoint.port) };
    memcpy(&to.sin_addr, nodes[0].endpoint.address, 4);
    uint64_t before = counted(0, MP_DROP_stray_echo);
    CHECK(sendto(nodes[2].udp, last, (size_t)length, 0, (struct sockaddr *)&to, sizeof to) == length);
    run_all(2);
    CHECK_EQUAL(counted(0, MP_DROP_stray_echo), before + 1);    /* the right number from another endpoint */
    h.sequence++;
    mp_header_write(last, &h);
    last[MP_HEADER_BYTES + 9] ^= 1;
    CHECK(sendto(stranger, last, (size_t)length, 0, (struct sockaddr *)&to, sizeof to) == length);
    run_all(2);
    CHECK_EQUAL(counted(0, MP_DROP_stray_echo), before + 2);    /* a wrong number from the endpoint */
    CHECK_EQUAL(take_punt(&link, &from), 0);
    h.sequence++;
    mp_header_write(last, &h);
    last[MP_HEADER_BYTES + 9] ^= 1;
    CHECK(sendto(stranger, last, (size_t)length, 0, (struct sockaddr *)&to, sizeof to) == length);
    run_all(2);
    CHECK_EQUAL(take_punt(&link, &from), MP_PUNT_ENDPOINT);
    CHECK(link == 1 && mp_endpoint_is(&from, &e));
    close(stranger);
    close_network();
}

/* Set link `index` of a node to another one, with probe keys of the two. */
static void set_keyed_link(uint32_t node, uint32_t index, uint32_t peer, const struct mp_endpoint *candidate)
{
    struct mp_link link = { .node = origin_of(peer), .up = 1, .has_probe_keys = 1, .candidate = *candidate };
    memset(link.probe_seal, (int)(100 + 10 * node + peer), sizeof link.probe_seal);
    memset(link.probe_open, (int)(100 + 10 * peer + node), sizeof link.probe_open);
    CHECK(mp_link_set(nodes[node].region, index, &link) == 0);
}

static void send_as(uint32_t from, const struct mp_header *h, const uint8_t body[16], int sealed)
{
    uint8_t datagram[MP_HEADER_BYTES + 16 + MP_TAG_BYTES], key[MP_KEY_BYTES];
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(nodes[0].endpoint.port) };
    memcpy(&to.sin_addr, nodes[0].endpoint.address, 4);
    mp_header_write(datagram, h);
    memcpy(datagram + MP_HEADER_BYTES, body, 16);
    make_key(key, 1);
    struct mp_cipher *cipher = mp_cipher_new(nodes[from].worker->gcm, key, 1);
    CHECK(cipher && (!sealed || mp_seal(cipher, datagram, 16) == 0));
    mp_cipher_free(cipher);
    size_t length = MP_HEADER_BYTES + 16 + (sealed ? MP_TAG_BYTES : 0);
    CHECK(sendto(nodes[from].udp, datagram, length, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)length);
    run_all(2);
}

/* Node 2 has the sender key of node 1.  It seals a probe, an echo and a report of a forgery in its name for node 0. */
static void third_member_cannot_probe_or_answer(int sealed)
{
    struct mp_endpoint e;
    uint32_t link;
    uint8_t probe[16] = { 1 }, report[16] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, KEY_EPOCH, 0, 0, 0, 1, 0, 0 };
    open_network(sealed, 0);
    set_keyed_link(0, 1, 1, &nodes[1].endpoint);
    set_keyed_link(1, 0, 0, &nodes[0].endpoint);
    run_all(6);
    CHECK_EQUAL(take_punt(&link, &e), MP_PUNT_ENDPOINT);        /* the peer itself answers */
    CHECK(link == 1 && mp_endpoint_is(&e, &nodes[1].endpoint));
    while (take_punt(&link, &e))
        continue;
    uint64_t before = counted(0, MP_DROP_authentication);
    struct mp_header h = { .type = MP_TYPE_PROBE, .flags = sealed ? MP_FLAG_SEALED : 0, .hop_limit = 1,
                           .epoch = KEY_EPOCH, .origin = origin_of(1), .sequence = mp_space(0, 1) | 5000 };
    send_as(2, &h, probe, sealed);
    h.sequence++;
    send_as(2, &h, report, sealed);
    h.type = MP_TYPE_ECHO;
    h.sequence++;
    send_as(2, &h, probe, sealed);
    CHECK_EQUAL(counted(0, MP_DROP_authentication), before + 3);
    CHECK_EQUAL(take_punt(&link, &e), 0);
    close_network();
}

static void third_member_cannot_probe_or_answer_sealed(void) { third_member_cannot_probe_or_answer(1); }
static void third_member_cannot_probe_or_answer_insecure(void) { third_member_cannot_probe_or_answer(0); }

static void candidates_share_a_budget(void)
{
    struct mp_endpoint e;
    uint8_t last[2048];
    ssize_t length = 0;
    open_network(1, 0);
    int stranger = open_stranger(&e);
    for (uint32_t i = 100; i < 1000; i++)
        CHECK(set_link(nodes[0].region, i, 0x9000 + i, 1, NULL, &e) == 0);
    run_all(50);
    uint32_t probes = drain(stranger, MP_TYPE_PROBE, last, &length);
    CHECK(probes >= MP_PROBE_BURST && probes <= MP_PROBE_BURST + 2);
    CHECK(counted(0, MP_DROP_probe_budget) >= 900 - MP_PROBE_BURST - 2);
    close(stranger);
    close_network();
}

/* The vector of the SipHash paper's reference code: key 00..0f, message 00..07. */
static void siphash_has_its_published_value(void)
{
    uint64_t key[2] = { UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908) };
    uint64_t word = UINT64_C(0x0706050403020100);
    CHECK_EQUAL(mp_siphash(key, &word, 1), UINT64_C(0x93f5f5799a932462));
}

static void sealed_candidate_becomes_known_by_its_echo_only(void) { candidate_becomes_known_by_its_echo_only(1); }
static void insecure_candidate_becomes_known_by_its_echo_only(void) { candidate_becomes_known_by_its_echo_only(0); }

int main(void)
{
    RUN(siphash_has_its_published_value);
    RUN(sealed_candidate_becomes_known_by_its_echo_only);
    RUN(insecure_candidate_becomes_known_by_its_echo_only);
    RUN(stranger_gets_few_probes_and_no_data);
    RUN(echo_of_another_endpoint_or_number_counts_for_nothing);
    RUN(third_member_cannot_probe_or_answer_sealed);
    RUN(third_member_cannot_probe_or_answer_insecure);
    RUN(candidates_share_a_budget);
    return 0;
}
