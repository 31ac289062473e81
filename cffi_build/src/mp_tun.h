/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_tun: reads and writes inner packets of a TUN queue with a vnet header (IFF_VNET_HDR).
 *
 * Delivery merges packets of a UDP flow into one super-packet, which the kernel splits again for the receiving sockets.
 * All other packets take one write each.  The packets of each flow keep their order.
 */
#ifndef MP_TUN_H
#define MP_TUN_H

#include <stdint.h>

#include "mp_counter.h"

#define MP_VNET_BYTES 10u       /* struct virtio_net_hdr, the TUN's default */

/* Read one packet to `packet`, which has MP_VNET_BYTES writable bytes before it and room for `size`.
 * Returns its length, 0 if the queue is empty, -errno (-EBADFD: the interface is down or gone). */
int mp_tun_read(int fd, uint8_t *packet, uint32_t size);

struct mp_delivery {
    const uint8_t *packet;
    uint32_t length;
    uint32_t alone;             /* not merged: programs that capture discovery protocols see each packet */
};

#define MP_DELIVERIES_MAX 1024u /* packets of one call: a super-buffer of small packets that share datagrams */

/* Write up to MP_DELIVERIES_MAX packets.  `super`: the kernel takes UDP super-packets (USO, Linux ≥ 6.2).  Counts into
 * `c`.  Returns the number of flows that were merged: the least number of writes. */
uint32_t mp_tun_deliver(int fd, const struct mp_delivery *d, uint32_t count, int super, struct mp_counters *c);

#endif
