/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: between two nodes with probe keys a third member, which has the sender keys of both, can neither probe, answer,
 * report forgeries nor move an endpoint in a peer's name; a peer without such keys is probed as before.
 * Method: three nodes in one process, sealed and insecure.  Nodes 0 and 1 have probe keys; node 2 seals by hand in the
 * name of node 1, with its sender key.
 */
#include "network.h"

#include "mp_forgery.h"
#include "mp_probe.h"
#include "mp_seal.h"

#define AHEAD (UINT64_C(1) << 30)
#define BODY 16u

static struct mp_gcm *gcm;

static void make_probe_key(uint8_t key[MP_KEY_BYTES], uint32_t from, uint32_t to)
{
    memset(key, (int)(0x80 + from * 16 + to), MP_KEY_BYTES);
}

/* Link two nodes of which the first has the probe keys of both directions. */
static void set_link_with_keys(uint32_t node, uint32_t peer, const struct mp_endpoint *endpoint,
                               const struct mp_endpoint *candidate)
{
    struct mp_link link = { .node = origin_of(peer), .up = 1, .has_probe_keys = 1 };
    if (endpoint)
        link.endpoint = *endpoint;
    if (candidate)
        link.candidate = *candidate;
    make_probe_key(link.probe_seal, node, peer);
    make_probe_key(link.probe_open, peer, node);
    CHECK_EQUAL(mp_link_set(nodes[node].region, peer, &link), 0);
}

static void open_pair(int sealed)
{
    gcm = mp_gcm_new();
    open_network(sealed, 0);
    set_link_with_keys(0, 1, &nodes[1].endpoint, NULL);
    set_link_with_keys(1, 0, &nodes[0].endpoint, NULL);
}

static void close_pair(void)
{
    close_network();
    mp_gcm_free(gcm);
}

static struct sockaddr_in address_of(uint32_t node)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(nodes[node].endpoint.port) };
    memcpy(&at.sin_addr, nodes[node].endpoint.address, 4);
    return at;
}

static void send_bytes(int fd, const uint8_t *datagram, uint32_t length)
{
    struct sockaddr_in at = address_of(0);
    CHECK(sendto(fd, datagram, length, 0, (struct sockaddr *)&at, sizeof at) == (ssize_t)length);
}

/* Send a datagram in the name of node 1 to node 0: sealed with this key, or with none. */
static void forge(int fd, const uint8_t *key, struct mp_header h, const uint8_t *body, uint32_t length)
{
    uint8_t datagram[2048];
    h.hop_limit = 1;
    h.epoch = KEY_EPOCH;
    h.origin = origin_of(1);
    mp_header_write(datagram, &h);
    memcpy(datagram + MP_HEADER_BYTES, body, length);
    length += MP_HEADER_BYTES;
    if (key) {
        struct mp_cipher *c = mp_cipher_new(gcm, key, 1);
        CHECK(c && mp_seal(c, datagram, length - MP_HEADER_BYTES) == 0);
        mp_cipher_free(c);
        length += MP_TAG_BYTES;
    }
    send_bytes(fd, datagram, length);
}

/* Forge with what every member has: the sender key of node 1, or nothing with --insecure. */
static void forge_as_member(int fd, int sealed, uint8_t type, uint8_t flags, uint64_t sequence, const uint8_t *body,
                            uint32_t length)
{
    uint8_t key[MP_KEY_BYTES];
    make_key(key, 1);
    struct mp_header h = { .type = type, .flags = (uint8_t)(flags | (sealed ? MP_FLAG_SEALED : 0)),
                           .sequence = sequence };
    forge(fd, sealed ? key : NULL, h, body, length);
}

static uint64_t figure(uint32_t node, uint32_t link, int echoes)
{
    struct mp_link_rx *rx = &mp_link_rx(nodes[node].region, 0)[link];
    return atomic_load(echoes ? &rx->echoes : &rx->answered);
}

/* Count the punts of a kind of node 0, and drop all others. */
static uint32_t punts(uint32_t wanted)
{
    uint8_t bytes[MP_PUNT_BYTES];
    uint32_t kind = 0, count = 0;
    while (mp_punt_take(nodes[0].worker, &kind, bytes, sizeof bytes))
        count += kind == wanted;
    return count;
}

static int open_socket(struct mp_endpoint *e)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof a;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && getsockname(fd, (struct sockaddr *)&a, &length) == 0);
    *e = (struct mp_endpoint){ .family = AF_INET, .port = ntohs(a.sin_port) };
    memcpy(e->address, &a.sin_addr, 4);
    return fd;
}

static void pair_answers_its_probes(int sealed)
{
    open_pair(sealed);
    run_all(6);
    for (uint32_t node = 0; node < 2; node++) {
        CHECK(figure(node, 1 - node, 1) >= 1);
        CHECK(figure(node, 1 - node, 0) >= 1);
        CHECK(figure(node, 2, 1) >= 1);     /* node 2 has no probe keys, and answers as well */
    }
    CHECK_EQUAL(counted(0, MP_DROP_authentication) + counted(1, MP_DROP_authentication), 0);
    CHECK_EQUAL(counted(2, MP_DROP_authentication), 0);
    close_pair();
}

static void member_cannot_probe_in_a_peers_name(int sealed)
{
    static const uint8_t body[BODY];
    open_pair(sealed);
    run_all(6);
    punts(0);
    uint64_t answered = figure(0, 1, 0), dropped = counted(0, MP_DROP_authentication);
    forge_as_member(nodes[2].udp, sealed, MP_TYPE_PROBE, 0, mp_space(0, 1) | AHEAD, body, BODY);
    forge_as_member(nodes[2].udp, sealed, MP_TYPE_PROBE, MP_FLAG_SEALED, mp_space(0, 1) | (AHEAD + 1), body, BODY);
    run_all(2);
    CHECK_EQUAL(figure(0, 1, 0), answered);
    CHECK_EQUAL(counted(0, MP_DROP_authentication) + counted(0, MP_DROP_wire_header), dropped + 2);
    CHECK_EQUAL(punts(MP_PUNT_CANDIDATE), 0);
    close_pair();
}

static void member_cannot_answer_in_a_peers_name(int sealed)
{
    struct mp_endpoint e;
    uint8_t probe[2048], key[MP_KEY_BYTES], plain[2048];
    open_pair(sealed);
    int fd = open_socket(&e);
    set_link_with_keys(0, 1, NULL, &e);
    run_all(3);
    ssize_t length = recv(fd, probe, sizeof probe, MSG_DONTWAIT);
    CHECK_EQUAL(length, MP_HEADER_BYTES + BODY + MP_TAG_BYTES);
    CHECK_EQUAL(probe[1], MP_FLAG_SEALED);
    make_key(key, 0);
    struct mp_cipher *c = mp_cipher_new(gcm, key, 0);
    CHECK(mp_open(c, probe, BODY, plain) != 0);     /* the number in it is not readable by a member */
    mp_cipher_free(c);
    punts(0);
    uint64_t echoes = figure(0, 1, 1);
    /* Even the plain text, which it does not have, is of no use without the key. */
    make_probe_key(key, 0, 1);
    c = mp_cipher_new(gcm, key, 0);
    CHECK_EQUAL(mp_open(c, probe, BODY, plain), 0);
    mp_cipher_free(c);
    forge_as_member(fd, sealed, MP_TYPE_ECHO, 0, mp_space(0, 1) | AHEAD, plain, BODY);
    forge_as_member(fd, sealed, MP_TYPE_ECHO, MP_FLAG_SEALED, mp_space(0, 1) | (AHEAD + 1), plain, BODY);
    probe[0] = (uint8_t)((probe[0] & 0xf0) | MP_TYPE_ECHO);
    send_bytes(fd, probe, (uint32_t)length);        /* its own probe, turned around */
    run_all(2);
    CHECK_EQUAL(figure(0, 1, 1), echoes);
    CHECK_EQUAL(punts(MP_PUNT_ENDPOINT), 0);
    make_probe_key(key, 1, 0);
    struct mp_header h = { .type = MP_TYPE_ECHO, .flags = MP_FLAG_SEALED,
                           .sequence = mp_space(0, 1) | AHEAD };
    forge(fd, key, h, plain, BODY);
    run_all(2);
    CHECK_EQUAL(punts(MP_PUNT_ENDPOINT), 1);        /* the peer can */
    close(fd);
    close_pair();
}

static void member_cannot_report_in_a_peers_name(int sealed)
{
    uint8_t body[BODY] = { 0 }, key[MP_KEY_BYTES];
    body[8] = 1;                                    /* the form of a report */
    body[9] = KEY_EPOCH;
    mp_put16(body + 12, 0x4000);
    open_pair(sealed);
    run_all(6);
    punts(0);
    forge_as_member(nodes[2].udp, sealed, MP_TYPE_PROBE, 0, mp_space(0, 1) | AHEAD, body, BODY);
    run_all(2);
    CHECK_EQUAL(punts(MP_PUNT_FORGERY), 0);
    make_probe_key(key, 1, 0);
    struct mp_header h = { .type = MP_TYPE_PROBE, .flags = MP_FLAG_SEALED,
                           .sequence = mp_space(0, 1) | AHEAD };
    forge(nodes[1].udp, key, h, body, BODY);
    run_all(2);
    CHECK_EQUAL(punts(MP_PUNT_FORGERY), 1);         /* the peer can */
    close_pair();
}

/* Neither probes of a member nor data with numbers of probes mark the window of the peer's probes. */
static void member_cannot_keep_a_peers_probes_out(int sealed)
{
    static const uint8_t body[BODY];
    open_pair(sealed);
    run_all(6);
    for (uint64_t i = 0; i < MP_WINDOW_WORDS; i++) {
        uint64_t number = mp_space(0, 1) | (AHEAD + i * 32);
        forge_as_member(nodes[2].udp, sealed, MP_TYPE_ECHO, 0, number, body, BODY);
        forge_as_member(nodes[2].udp, sealed, MP_TYPE_DATA, 0, number, body, BODY);
        if (i % 64 == 63)
            mp_worker_run(nodes[0].worker, 1000000);
    }
    uint64_t answered = figure(0, 1, 0);
    usleep(1100000);
    run_all(6);
    CHECK(figure(0, 1, 0) > answered);
    CHECK_EQUAL(counted(0, MP_DROP_replay), 0);
    close_pair();
}

static void replayed_probe_is_not_answered(int sealed)
{
    uint8_t body[BODY] = { 0 }, key[MP_KEY_BYTES];
    open_pair(sealed);
    run_all(6);
    make_probe_key(key, 1, 0);
    struct mp_header h = { .type = MP_TYPE_PROBE, .flags = MP_FLAG_SEALED,
                           .sequence = mp_space(0, 1) | AHEAD };
    uint64_t answered = figure(0, 1, 0);
    for (int i = 0; i < 3; i++)
        forge(nodes[1].udp, key, h, body, BODY);
    run_all(2);
    CHECK_EQUAL(figure(0, 1, 0), answered + 1);
    CHECK_EQUAL(counted(0, MP_DROP_replay), 2);
    close_pair();
}

/* Data of node 1 from an unknown address moves nothing; a probe asks the known endpoint, once a second. */
static void data_moves_no_endpoint(int sealed)
{
    struct mp_endpoint e;
    uint8_t packet[2048];
    uint32_t length = make_packet(packet, GROUP, 100, 1);
    open_pair(sealed);
    int fd = open_socket(&e);
    run_all(6);
    punts(0);
    uint64_t probes = atomic_load(&mp_link_rx(nodes[0].region, 0)[1].probes);
    for (uint64_t i = 0; i < 20; i++)
        forge_as_member(fd, sealed, MP_TYPE_DATA, 0, AHEAD + i, packet, length);
    run_all(4);
    CHECK(counted(0, MP_COUNT_overlay_rx_datagrams) >= 20);
    CHECK_EQUAL(atomic_load(&mp_link_rx(nodes[0].region, 0)[1].probes), probes + 1);
    CHECK_EQUAL(recv(fd, packet, sizeof packet, MSG_DONTWAIT), -1);
    uint8_t bytes[MP_PUNT_BYTES];
    uint32_t kind;
    while (mp_punt_take(nodes[0].worker, &kind, bytes, sizeof bytes))
        CHECK(kind != MP_PUNT_CANDIDATE && kind != MP_PUNT_ENDPOINT);
    close(fd);
    close_pair();
}

/* A probe to a peer of protocol 1: the header and the length of that version. */
static void peer_without_keys_is_probed_as_before(int sealed)
{
    struct mp_endpoint e;
    uint8_t probe[2048];
    open_pair(sealed);
    int fd = open_socket(&e);
    CHECK(set_link(nodes[0].region, 1, origin_of(1), 1, NULL, &e) == 0);
    run_all(3);
    ssize_t length = recv(fd, probe, sizeof probe, MSG_DONTWAIT);
    CHECK_EQUAL(length, MP_HEADER_BYTES + BODY + (sealed ? MP_TAG_BYTES : 0));
    CHECK_EQUAL(probe[1], sealed ? MP_FLAG_SEALED : 0);
    close(fd);
    close_pair();
}

static void keys_are_wiped(void)
{
    open_pair(1);
    mp_keys_wipe(nodes[0].region);
    const uint8_t *bytes = (const uint8_t *)mp_links(nodes[0].region);
    for (size_t i = 0; i < MP_LINKS_MAX * sizeof(struct mp_link); i++)
        CHECK_EQUAL(bytes[i], 0);
    close_pair();
}

#define BOTH(name)                                                                                                     \
    static void sealed_##name(void) { name(1); }                                                                       \
    static void insecure_##name(void) { name(0); }
BOTH(pair_answers_its_probes)
BOTH(member_cannot_probe_in_a_peers_name)
BOTH(member_cannot_answer_in_a_peers_name)
BOTH(member_cannot_report_in_a_peers_name)
BOTH(member_cannot_keep_a_peers_probes_out)
BOTH(replayed_probe_is_not_answered)
BOTH(data_moves_no_endpoint)
BOTH(peer_without_keys_is_probed_as_before)

int main(void)
{
    RUN(sealed_pair_answers_its_probes);
    RUN(insecure_pair_answers_its_probes);
    RUN(sealed_member_cannot_probe_in_a_peers_name);
    RUN(insecure_member_cannot_probe_in_a_peers_name);
    RUN(sealed_member_cannot_answer_in_a_peers_name);
    RUN(insecure_member_cannot_answer_in_a_peers_name);
    RUN(sealed_member_cannot_report_in_a_peers_name);
    RUN(insecure_member_cannot_report_in_a_peers_name);
    RUN(sealed_member_cannot_keep_a_peers_probes_out);
    RUN(insecure_member_cannot_keep_a_peers_probes_out);
    RUN(sealed_replayed_probe_is_not_answered);
    RUN(insecure_replayed_probe_is_not_answered);
    RUN(sealed_data_moves_no_endpoint);
    RUN(insecure_data_moves_no_endpoint);
    RUN(sealed_peer_without_keys_is_probed_as_before);
    RUN(insecure_peer_without_keys_is_probed_as_before);
    RUN(keys_are_wiped);
    return 0;
}
