/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_tun: reads and writes of the TUN.  See mp_tun.h.
 */
#include "mp_tun.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mp_packet.h"

#define GROUPS 256u             /* super-packets of a batch; a further one writes all early */
#define BUCKETS 1024u           /* of the hash by which a packet finds the group of its flow: few flows share one */
#define SUPER_SEGMENTS 64u      /* the kernel takes no more in one super-packet */
#define SUPER_BYTES 65000u      /* below the largest IP length */
#define GSO_UDP_L4 5u           /* VIRTIO_NET_HDR_GSO_UDP_L4; not in Debian 12's headers */
#define NEEDS_CSUM 1u           /* VIRTIO_NET_HDR_F_NEEDS_CSUM */

struct vnet_header {            /* struct virtio_net_hdr, host order */
    uint8_t flags, gso_type;
    uint16_t header_length, gso_size, checksum_start, checksum_offset;
};
_Static_assert(sizeof(struct vnet_header) == MP_VNET_BYTES, "as the kernel's");

int mp_tun_read(int fd, uint8_t *packet, uint32_t size)
{
    ssize_t n = read(fd, packet - MP_VNET_BYTES, size + MP_VNET_BYTES);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    return n > (ssize_t)MP_VNET_BYTES ? (int)(n - (ssize_t)MP_VNET_BYTES) : 0;
}

/* ---- delivery ---- */

static int write_all(int fd, const struct iovec *iov, uint32_t count)
{
    ssize_t n;
    do
        n = writev(fd, iov, (int)count);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static void write_single(int fd, const struct mp_delivery *d, struct mp_counters *c)
{
    struct vnet_header vnet = { 0 };
    struct iovec iov[2] = { { &vnet, sizeof vnet }, { (void *)(uintptr_t)d->packet, d->length } };
    mp_count(c, MP_COUNT_tun_tx_writes, 1);
    if (write_all(fd, iov, 2)) {
        mp_count(c, MP_DROP_tun_write, 1);
        return;
    }
    mp_count(c, MP_COUNT_tun_tx_packets, 1);
    mp_count(c, MP_COUNT_tun_tx_bytes, d->length);
}

/* Packets of one flow that become one super-packet, as a chain through the batch. */
struct group {
    uint16_t first, last;       /* indices in the batch */
    uint16_t count;
    uint16_t closed;            /* the last is shorter: nothing may follow */
    uint32_t bytes;             /* of the super-packet */
    struct mp_udp_packet udp;   /* of the first */
};

/* Groups are written in the order in which they were opened, and a packet joins only the last group of its flow's hash:
 * no flow is reordered. */
struct batch {
    int fd;
    const struct mp_delivery *d;
    struct mp_counters *c;
    uint32_t groups, flows;
    uint16_t next[MP_DELIVERIES_MAX];
    uint16_t last[BUCKETS];     /* 1 + the last group of the hash */
    struct group group[GROUPS];
};

/* Make the header of a super-packet: lengths of the whole; of the UDP checksum only the pseudo-header sum, the kernel
 * adds the rest. */
static void super_header(uint8_t *header, uint32_t header_bytes, uint32_t payload)
{
    uint32_t ip = header_bytes - 8, udp_length = payload + 8, sum;
    if (ip == 20) {
        mp_put16(header + 2, header_bytes + payload);
        mp_put16(header + 10, 0);
        mp_put16(header + 10, ~mp_checksum_add(header, 20, 0));
        sum = mp_checksum_add(header + 12, 8, 17 + udp_length);
    } else {
        mp_put16(header + 4, udp_length);
        sum = mp_checksum_add(header + 8, 32, 17 + udp_length);
    }
    mp_put16(header + ip + 4, udp_length);
    mp_put16(header + ip + 6, sum);
}

static int write_super(const struct batch *b, const struct group *g)
{
    uint8_t header[48];
    struct iovec iov[2 + SUPER_SEGMENTS];
    uint32_t payload = 0, count = 2;
    for (uint32_t n = 0, i = g->first; n < g->count; n++, i = b->next[i]) {
        uint32_t length = b->d[i].length - g->udp.header;
        iov[count++] = (struct iovec){ (void *)(uintptr_t)(b->d[i].packet + g->udp.header), length };
        payload += length;
    }
    memcpy(header, b->d[g->first].packet, g->udp.header);
    super_header(header, g->udp.header, payload);
    struct vnet_header vnet = { .flags = NEEDS_CSUM, .gso_type = GSO_UDP_L4, .header_length = (uint16_t)g->udp.header,
                                .gso_size = (uint16_t)g->udp.payload,
                                .checksum_start = (uint16_t)(g->udp.header - 8), .checksum_offset = 6 };
    iov[0] = (struct iovec){ &vnet, sizeof vnet };
    iov[1] = (struct iovec){ header, g->udp.header };
    mp_count(b->c, MP_COUNT_tun_tx_writes, 1);
    int error = write_all(b->fd, iov, count);
    if (error)
        return error;
    mp_count(b->c, MP_COUNT_tun_tx_packets, g->count);
    mp_count(b->c, MP_COUNT_tun_tx_bytes, payload + g->count * g->udp.header);
    return 0;
}

static void write_groups(struct batch *b)
{
    for (uint32_t k = 0; k < b->groups; k++) {
        const struct group *g = &b->group[k];
        if (g->count > 1 && !write_super(b, g))
            continue;
        for (uint32_t n = 0, i = g->first; n < g->count; n++, i = b->next[i])
            write_single(b->fd, &b->d[i], b->c);
    }
    b->groups = 0;
    memset(b->last, 0, sizeof b->last);
}

/* Hash the group address and the ports, in which the flows of one super-buffer differ. */
static uint32_t flow_hash(const uint8_t *packet, uint32_t header)
{
    uint32_t address, ports;
    memcpy(&address, packet + header - 12, 4);
    memcpy(&ports, packet + header - 8, 4);
    return (address * 0x9e3779b1u ^ ports * 0x85ebca6bu) >> 22;
}

static void gather(struct batch *b, uint16_t i, const struct mp_udp_packet *udp)
{
    const struct mp_delivery *d = &b->d[i];
    uint16_t *last = &b->last[flow_hash(d->packet, udp->header)];
    struct group *g = *last ? &b->group[*last - 1] : NULL;
    if (g && !g->closed && udp->payload <= g->udp.payload && udp->header == g->udp.header &&
        g->count < SUPER_SEGMENTS && g->bytes + udp->payload <= SUPER_BYTES &&
        mp_packet_same_flow(b->d[g->first].packet, d->packet, udp->header)) {
        b->next[g->last] = i;
        g->last = i;
        g->count++;
        g->bytes += udp->payload;
        g->closed = udp->payload < g->udp.payload;
        return;
    }
    if (b->groups == GROUPS)
        write_groups(b);
    b->flows += !*last;
    b->group[b->groups++] = (struct group){ .first = i, .last = i, .count = 1, .bytes = d->length, .udp = *udp };
    *last = (uint16_t)b->groups;
}

uint32_t mp_tun_deliver(int fd, const struct mp_delivery *d, uint32_t count, int super, struct mp_counters *c)
{
    struct batch b;
    b.fd = fd;
    b.d = d;
    b.c = c;
    b.groups = b.flows = 0;
    memset(b.last, 0, sizeof b.last);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_udp_packet udp;
        if (super && !d[i].alone && mp_packet_is_udp(d[i].packet, d[i].length, &udp) && udp.payload) {
            gather(&b, (uint16_t)i, &udp);
        } else {                /* a fragment must neither be overtaken by later packets of its flow nor overtake any */
            write_groups(&b);
            write_single(fd, &d[i], c);
        }
    }
    write_groups(&b);
    return b.flows;
}
