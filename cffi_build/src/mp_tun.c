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

#define SUPER_SEGMENTS 64u      /* the kernel takes no more in one super-packet */
#define SUPER_BYTES 65000u      /* below what the IP length field can say */
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

/* How many packets from d[0] on make one super-packet: same flow, same payload length, only the last may be shorter. */
static uint32_t flow_run(const struct mp_delivery *d, uint32_t count, struct mp_udp_packet *first)
{
    if (!mp_packet_is_udp(d[0].packet, d[0].length, first) || !first->payload)
        return 1;
    uint32_t n = 1, bytes = d[0].length;
    while (n < count && n < SUPER_SEGMENTS) {
        struct mp_udp_packet next;
        if (d[n].length > d[0].length || bytes + d[n].length > SUPER_BYTES ||
            !mp_packet_is_udp(d[n].packet, d[n].length, &next) || !next.payload || next.header != first->header ||
            !mp_packet_same_flow(d[0].packet, d[n].packet, first->header))
            break;
        bytes += next.payload;
        n++;
        if (next.payload < first->payload)
            break;
    }
    return n;
}

/* The header of a super-packet: lengths of the whole, UDP checksum left to the kernel (pseudo-header sum only). */
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

static int write_super(int fd, const struct mp_delivery *d, uint32_t count, const struct mp_udp_packet *first,
                       struct mp_counters *c)
{
    uint8_t header[48];
    struct iovec iov[2 + SUPER_SEGMENTS];
    uint32_t payload = 0, bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = d[i].length - first->header;
        iov[2 + i] = (struct iovec){ (void *)(uintptr_t)(d[i].packet + first->header), length };
        payload += length;
        bytes += d[i].length;
    }
    memcpy(header, d[0].packet, first->header);
    super_header(header, first->header, payload);
    struct vnet_header vnet = { .flags = NEEDS_CSUM, .gso_type = GSO_UDP_L4, .header_length = (uint16_t)first->header,
                                .gso_size = (uint16_t)first->payload, .checksum_start = (uint16_t)(first->header - 8),
                                .checksum_offset = 6 };
    iov[0] = (struct iovec){ &vnet, sizeof vnet };
    iov[1] = (struct iovec){ header, first->header };
    mp_count(c, MP_COUNT_tun_tx_writes, 1);
    int error = write_all(fd, iov, 2 + count);
    if (error)
        return error;
    mp_count(c, MP_COUNT_tun_tx_packets, count);
    mp_count(c, MP_COUNT_tun_tx_bytes, bytes);
    return 0;
}

void mp_tun_deliver(int fd, const struct mp_delivery *d, uint32_t count, int super, struct mp_counters *c)
{
    for (uint32_t i = 0; i < count;) {
        struct mp_udp_packet first;
        uint32_t n = super ? flow_run(d + i, count - i, &first) : 1;
        if (n == 1 || write_super(fd, d + i, n, &first, c))
            for (uint32_t j = i; j < i + n; j++)
                write_single(fd, d + j, c);
        i += n;
    }
}
