/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_tun: inner packets from and to a TUN queue with a vnet header (IFF_VNET_HDR).
 *
 * Delivery puts packets of a UDP flow together into one super-packet, which the kernel takes apart again in the
 * listeners' sockets; all else is one write a packet.  Flows keep their order, each for itself.
 */
#ifndef MP_TUN_H
#define MP_TUN_H

#include <stdint.h>

#include "mp_counter.h"

#define MP_VNET_BYTES 10u       /* struct virtio_net_hdr, the TUN's default */

/* Reads one packet to `packet`, which has MP_VNET_BYTES writable bytes before it and room for `size`.
 * Returns its length, 0 if none is waiting, -errno (-EBADFD: the interface is down or gone). */
int mp_tun_read(int fd, uint8_t *packet, uint32_t size);

struct mp_delivery {
    const uint8_t *packet;
    uint32_t length;
    uint32_t alone;             /* never part of a super-packet: who sniffs discovery protocols sees each packet */
};

#define MP_DELIVERIES_MAX 1024u /* packets in one call: a super-buffer of small packets that share datagrams */

/* Writes up to MP_DELIVERIES_MAX packets.  `super`: the kernel takes UDP super-packets (USO, Linux ≥ 6.2).  Counts
 * into `c`.  Returns how many flows it made super-packets of: what has to be written at the least. */
uint32_t mp_tun_deliver(int fd, const struct mp_delivery *d, uint32_t count, int super, struct mp_counters *c);

#endif
