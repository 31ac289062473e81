/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * network: three nodes of one worker each (all four stages) in one process, for tests and measurements of the stages.
 *
 * A socket pair replaces the TUN queue of a node: one message a packet, vnet header included.  UDP sockets on loopback
 * carry the datagrams.  Forwarding entries, links and keys are written by hand.
 */
#ifndef NETWORK_H
#define NETWORK_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "mp_fib.h"
#include "mp_punt.h"
#include "mp_worker.h"
#include "links.h"
#include "mp_tun.h"

#define NODES 3
#define KEY_EPOCH 4

struct node {
    struct mp_region *region;
    struct mp_fib_writer *fib;
    struct mp_worker *worker;
    int host;                   /* the end of the TUN that programs use */
    int tun, udp, bell[MP_STAGES], wake[2];
    struct mp_endpoint endpoint;
};

static struct node nodes[NODES];

/* ---- nodes ---- */

static inline void open_descriptors(struct node *n)
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

static inline void make_key(uint8_t key[MP_KEY_BYTES], uint32_t node)
{
    for (uint32_t i = 0; i < MP_KEY_BYTES; i++)
        key[i] = (uint8_t)(node * 37 + i);
}

static inline uint32_t origin_of(uint32_t node)
{
    return 0x1000 + node;
}

static inline void open_node(uint32_t which, int sealed, uint32_t super)
{
    struct node *n = &nodes[which];
    struct mp_geometry g = { .lanes = 1, .host_slots = 256, .host_slot_bytes = 2048, .overlay_slots = 64,
                             .fib_entries = 1024, .fib_buckets = 1024, .mtu = 1436, .seed = 7,
                             .probe_secret = { 3 + which, 5 } };
    uint8_t key[MP_KEY_BYTES];
    n->region = mmap(NULL, mp_region_size(&g), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(n->region != MAP_FAILED);
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

static inline void link_nodes(int sealed)
{
    for (uint32_t i = 0; i < NODES; i++)
        for (uint32_t k = 0; k < NODES; k++) {
            uint8_t key[MP_KEY_BYTES];
            if (i == k)
                continue;
            make_key(key, k);
            CHECK(set_link(nodes[i].region, k, origin_of(k), 1, &nodes[k].endpoint, NULL) == 0);
            CHECK(mp_key_set(nodes[i].region, k, origin_of(k), KEY_EPOCH, (uint8_t)sealed, 1, 2 * k, key) == 0);
        }
}

static inline void open_network(int sealed, uint32_t super)
{
    for (uint32_t i = 0; i < NODES; i++)
        open_node(i, sealed, super);
    link_nodes(sealed);
}

static inline void close_network(void)
{
    for (uint32_t i = 0; i < NODES; i++) {
        struct node *n = &nodes[i];
        mp_worker_free(n->worker);
        mp_fib_writer_free(n->fib);
        munmap(n->region, n->region->size);
        int fds[] = { n->tun, n->host, n->udp, n->wake[0], n->wake[1], n->bell[0], n->bell[1], n->bell[2], n->bell[3] };
        for (size_t k = 0; k < sizeof fds / sizeof *fds; k++)
            close(fds[k]);
    }
}

static inline void run_all(int rounds)
{
    for (int round = 0; round < rounds; round++)
        for (uint32_t i = 0; i < NODES; i++)
            mp_worker_run(nodes[i].worker, 1000000);
}

static inline void map_v4(uint8_t out[16], uint32_t address)
{
    uint32_t be = htonl(address);
    memset(out, 0, 16);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, &be, 4);
}

static inline void set_stripe(uint32_t node, uint8_t side, uint32_t group, uint32_t stripe, uint32_t stripes,
                              uint64_t links, uint8_t flags)
{
    struct mp_fib_key key = { .side = side, .via = MP_NO_LINK };
    key.kind = (uint8_t)(MP_KIND_GROUP | stripe << MP_STRIPE_SHIFT);
    struct mp_fib_value value = { .stream = 1, .flags = flags, .stripes = (uint8_t)stripes,
                                  .words = links ? 1 : 0, .links = { links } };
    map_v4(key.group, group);
    CHECK(mp_fib_set(nodes[node].fib, &key, &value) == 0);
}

static inline void set_route(uint32_t node, uint8_t side, uint8_t kind, uint32_t group, uint64_t links, int local)
{
    struct mp_fib_key key = { .side = side, .kind = kind, .via = MP_NO_LINK };
    struct mp_fib_value value = { .stream = 1, .flags = local ? MP_ENTRY_LOCAL : 0,
                                  .words = links ? 1 : 0, .links = { links } };
    map_v4(key.group, group);
    CHECK(mp_fib_set(nodes[node].fib, &key, &value) == 0);
}

/* ---- packets ---- */

#define GROUP 0xef010203u       /* 239.1.2.3 */

/* Return the length in the header of a packet; 0 if it exceeds `available`. */
static inline uint32_t packet_length(const uint8_t *bytes, uint32_t available)
{
    uint32_t length = 0;
    if (available >= 20 && bytes[0] >> 4 == 4)
        length = mp_get16(bytes + 2) >= 20 ? mp_get16(bytes + 2) : 0;
    else if (available >= 40 && bytes[0] >> 4 == 6)
        length = 40u + mp_get16(bytes + 4);
    return length <= available ? length : 0;
}

/* Make an IPv4 UDP packet with `payload` bytes.  Returns its length. */
static inline uint32_t make_packet(uint8_t *p, uint32_t to, uint32_t payload, uint32_t number)
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

static inline void write_host(uint32_t node, const uint8_t *packet, uint32_t length)
{
    uint8_t message[MP_VNET_BYTES + 2048] = { 0 };
    memcpy(message + MP_VNET_BYTES, packet, length);
    CHECK(send(nodes[node].host, message, length + MP_VNET_BYTES, 0) == (ssize_t)(length + MP_VNET_BYTES));
}

/* Read the next packet that a node delivered, and its vnet header.  Returns 0 if there is none. */
static inline uint32_t read_host(uint32_t node, uint8_t *packet, uint8_t *vnet)
{
    uint8_t message[70000];
    ssize_t n = recv(nodes[node].host, message, sizeof message, MSG_DONTWAIT);
    if (n <= 0)
        return 0;
    memcpy(vnet, message, MP_VNET_BYTES);
    memcpy(packet, message + MP_VNET_BYTES, (size_t)n - MP_VNET_BYTES);
    return (uint32_t)n - MP_VNET_BYTES;
}

static inline uint64_t counted(uint32_t node, uint32_t which)
{
    return mp_counter_sum(nodes[node].region, which, UINT32_MAX, UINT32_MAX);
}

#endif
