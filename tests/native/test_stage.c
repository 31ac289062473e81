/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: a packet written into one node's TUN comes out of another's, unchanged, once, by every way there is.
 * Method: nodes of one worker each (all four stages) in this process; a socket pair stands for the TUN queue (a message a packet,
 * vnet header included), UDP sockets on loopback carry the datagrams; the forwarding tables are written by hand.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "mp_fib.h"
#include "mp_stage.h"
#include "mp_tables.h"
#include "mp_tun.h"

#define NODES 3
#define KEY_EPOCH 4

struct node {
    struct mp_region *region;
    struct mp_fib_writer *fib;
    struct mp_worker *worker;
    int host;                   /* the programs' end of the TUN */
    int tun, udp, bell[MP_STAGES], wake[2];
    struct mp_endpoint endpoint;
};

static struct node nodes[NODES];

/* ---- a network of nodes ---- */

static void open_descriptors(struct node *n)
{
    int pair[2], size = 4 << 20;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof a;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
    for (int i = 0; i < 2; i++)
        setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    n->tun = pair[0];
    n->host = pair[1];
    n->udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    CHECK(bind(n->udp, (struct sockaddr *)&a, sizeof a) == 0);
    setsockopt(n->udp, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    int gro = 1;
    setsockopt(n->udp, IPPROTO_UDP, 104, &gro, sizeof gro);
    CHECK(getsockname(n->udp, (struct sockaddr *)&a, &length) == 0);
    n->endpoint = (struct mp_endpoint){ .family = AF_INET, .port = ntohs(a.sin_port) };
    memcpy(n->endpoint.address, &a.sin_addr, 4);
    CHECK(pipe2(n->wake, O_NONBLOCK) == 0);
    for (int i = 0; i < MP_STAGES; i++)
        n->bell[i] = eventfd(0, EFD_NONBLOCK);
}

static void make_key(uint8_t key[MP_KEY_BYTES], uint32_t node)
{
    for (uint32_t i = 0; i < MP_KEY_BYTES; i++)
        key[i] = (uint8_t)(node * 37 + i);
}

static uint32_t origin_of(uint32_t node)
{
    return 0x1000 + node;
}

static void open_node(uint32_t which, int sealed, uint32_t super)
{
    struct node *n = &nodes[which];
    struct mp_geometry g = { .lanes = 1, .host_slots = 256, .host_slot_bytes = 2048, .overlay_slots = 16,
                             .fib_entries = 1024, .fib_buckets = 1024, .mtu = 1436, .seed = 7 };
    uint8_t key[MP_KEY_BYTES];
    n->region = aligned_alloc(4096, (mp_region_size(&g) + 4095) & ~UINT64_C(4095));
    memset(n->region, 0, mp_region_size(&g));
    CHECK(mp_region_format(n->region, &g) == 0);
    open_descriptors(n);
    n->fib = mp_fib_writer_new(n->region);
    make_key(key, which);
    CHECK(mp_sender_set(n->region, origin_of(which), (uint32_t)sealed, KEY_EPOCH, KEY_EPOCH, key, 1, NULL) == 0);
    struct mp_worker_config config = { .stages = 15, .idle = MP_IDLE_SLEEP, .super = super, .tun = n->tun,
                                       .udp = n->udp, .wake = n->wake[0] };
    memcpy(config.bell, n->bell, sizeof config.bell);
    n->worker = mp_worker_new(n->region, &config);
    CHECK(n->worker != NULL);
}

static void link_nodes(int sealed)
{
    for (uint32_t i = 0; i < NODES; i++)
        for (uint32_t k = 0; k < NODES; k++) {
            uint8_t key[MP_KEY_BYTES];
            const struct mp_endpoint *e = &nodes[k].endpoint;
            if (i == k)
                continue;
            make_key(key, k);
            CHECK(mp_link_set(nodes[i].region, k, origin_of(k), 1, e->family, e->address, e->port, 0) == 0);
            CHECK(mp_key_set(nodes[i].region, k, origin_of(k), KEY_EPOCH, (uint8_t)sealed, 1, 2 * k, key) == 0);
        }
}

static void open_network(int sealed, uint32_t super)
{
    for (uint32_t i = 0; i < NODES; i++)
        open_node(i, sealed, super);
    link_nodes(sealed);
}

static void close_network(void)
{
    for (uint32_t i = 0; i < NODES; i++) {
        struct node *n = &nodes[i];
        mp_worker_free(n->worker);
        mp_fib_writer_free(n->fib);
        free(n->region);
        int fds[] = { n->tun, n->host, n->udp, n->wake[0], n->wake[1], n->bell[0], n->bell[1], n->bell[2], n->bell[3] };
        for (size_t k = 0; k < sizeof fds / sizeof *fds; k++)
            close(fds[k]);
    }
}

static void run_all(int rounds)
{
    for (int round = 0; round < rounds; round++)
        for (uint32_t i = 0; i < NODES; i++)
            mp_worker_run(nodes[i].worker, 1000000);
}

static void map_v4(uint8_t out[16], uint32_t address)
{
    uint32_t be = htonl(address);
    memset(out, 0, 16);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, &be, 4);
}

static void set_route(uint32_t node, uint8_t side, uint8_t kind, uint32_t group, uint64_t links, int local)
{
    struct mp_fib_key key = { .side = side, .kind = kind, .via = MP_NO_LINK };
    struct mp_fib_value value = { .stream = 1, .flags = local ? MP_ENTRY_LOCAL : 0, .epoch = KEY_EPOCH,
                                  .words = links ? 1 : 0, .links = { links } };
    map_v4(key.group, group);
    CHECK(mp_fib_set(nodes[node].fib, &key, &value) == 0);
}

/* ---- packets ---- */

#define GROUP 0xef010203u       /* 239.1.2.3 */

/* An IPv4 UDP packet with that much payload; returns its length. */
static uint32_t make_packet(uint8_t *p, uint32_t to, uint32_t payload, uint32_t number)
{
    uint32_t length = 28 + payload, source = htonl(0x0a4d0001), destination = htonl(to), sum;
    memset(p, 0, 28);
    p[0] = 0x45;
    mp_put16(p + 2, length);
    mp_put16(p + 4, number);
    p[8] = 1;
    p[9] = 17;
    memcpy(p + 12, &source, 4);
    memcpy(p + 16, &destination, 4);
    mp_put16(p + 10, ~mp_checksum_add(p, 20, 0));
    mp_put16(p + 20, 5000);
    mp_put16(p + 22, 5001);
    mp_put16(p + 24, 8 + payload);
    for (uint32_t i = 0; i < payload; i++)
        p[28 + i] = (uint8_t)(number * 13 + i);
    sum = mp_checksum_add(p + 12, 8, 17 + 8 + payload);
    sum = mp_checksum_add(p + 20, 8 + payload, sum);
    mp_put16(p + 26, ~sum);
    return length;
}

static void write_host(uint32_t node, const uint8_t *packet, uint32_t length)
{
    uint8_t message[70000] = { 0 };
    memcpy(message + MP_VNET_BYTES, packet, length);
    CHECK(send(nodes[node].host, message, length + MP_VNET_BYTES, 0) == (ssize_t)(length + MP_VNET_BYTES));
}

/* The next packet that a node delivered; 0 if there is none.  `vnet` is its vnet header. */
static uint32_t read_host(uint32_t node, uint8_t *packet, uint8_t *vnet)
{
    uint8_t message[70000];
    ssize_t n = recv(nodes[node].host, message, sizeof message, MSG_DONTWAIT);
    if (n <= 0)
        return 0;
    memcpy(vnet, message, MP_VNET_BYTES);
    memcpy(packet, message + MP_VNET_BYTES, (size_t)n - MP_VNET_BYTES);
    return (uint32_t)n - MP_VNET_BYTES;
}

static uint64_t counted(uint32_t node, uint32_t which)
{
    return mp_counter_sum(nodes[node].region, which, UINT32_MAX, UINT32_MAX);
}

/* ---- tests ---- */

static void expect_packets(uint32_t node, uint32_t count, uint32_t payload)
{
    uint8_t want[70000], got[70000], vnet[MP_VNET_BYTES];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = make_packet(want, GROUP, payload, i);
        CHECK_EQUAL(read_host(node, got, vnet), length);
        CHECK(!memcmp(want, got, length));
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

static void super_packets(void)
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

static void relay(void)
{
    uint8_t packet[2048];
    open_network(1, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 1 << 0 | 1 << 2, 1);  /* back to node 0 too: not sent there */
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

static void drops(void)
{
    uint8_t packet[2048];
    open_network(1, 0);
    uint32_t length = make_packet(packet, GROUP, 100, 0);
    write_host(0, packet, length);              /* nobody wants it: counted and punted */
    make_packet(packet, 0x08080808, 100, 0);
    write_host(0, packet, length);              /* not ours */
    make_packet(packet, GROUP, 100, 0);
    packet[10] ^= 1;
    write_host(0, packet, length);
    write_host(0, packet, 12);
    packet[0] = 0xf5;
    write_host(0, packet, length);
    run_all(2);
    CHECK_EQUAL(counted(0, MP_DROP_no_member), 1);
    CHECK_EQUAL(counted(0, MP_DROP_not_overlay), 1);
    CHECK_EQUAL(counted(0, MP_DROP_ip_checksum), 1);
    CHECK_EQUAL(counted(0, MP_DROP_truncated), 1);
    CHECK_EQUAL(counted(0, MP_DROP_ip_version), 1);
    CHECK_EQUAL(counted(0, MP_COUNT_punted), 1);
    uint32_t kind = 0;
    uint8_t punt[2048];
    CHECK_EQUAL(mp_worker_punt(nodes[0].worker, &kind, punt, sizeof punt), 64);
    CHECK_EQUAL(kind, MP_PUNT_SOURCE);
    close_network();
}

/* Sends one datagram from node 0 to a socket of ours, then to node 1: as it is, again, and with every byte changed. */
static void hostile_datagrams(void)
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
        if (i == 2)             /* the hop limit changes on the way */
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

static void probes(void)
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

static void sealed_members(void) { deliver_to_members(1); }
static void insecure_members(void) { deliver_to_members(0); }

int main(void)
{
    RUN(sealed_members);
    RUN(insecure_members);
    RUN(super_packets);
    RUN(relay);
    RUN(drops);
    RUN(hostile_datagrams);
    RUN(probes);
    return 0;
}
