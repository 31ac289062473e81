/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_udp: datagrams in bursts.  Sends a run of datagrams of one length to one peer in one call (UDP_SEGMENT), receives
 * super-buffers (UDP_GRO).  It does not know the overlay header.
 */
#ifndef MP_UDP_H
#define MP_UDP_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/uio.h>

#include "mp_layout.h"

#define MP_SEGMENTS_MAX 64u     /* each kernel with UDP_SEGMENT takes so many in one call */
#define MP_RUN_BYTES_MAX 65000u /* below the 65,507 of a UDP payload, whatever headers a tunnel adds */
#define MP_BLOCKED_MS 20        /* time that a full socket buffer may block a stage before it drops and counts */

union mp_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* The address of a link's peer, process-local. */
struct mp_target {
    union mp_address address;
    socklen_t length;           /* 0: no such link */
    uint32_t single;            /* the kernel or path refuses UDP_SEGMENT: one datagram a message */
};

/* Convert an endpoint of the tables for sendmsg(). */
void mp_target_set(struct mp_target *t, const struct mp_endpoint *e);

/* Convert an address of the socket to an endpoint of the tables. */
void mp_endpoint_from(struct mp_endpoint *e, const union mp_address *a);

/* Return whether two endpoints are one: the scope does not count. */
int mp_endpoint_is(const struct mp_endpoint *one, const struct mp_endpoint *other);

/* Send iov[0..count), `total` bytes, as datagrams of `segment` bytes; the last may be shorter.  Each iovec is a
 * datagram, or one iovec is the whole run.  Returns the datagrams sent.  *calls grows by the number of system calls.
 * *error is 0, or the errno that stopped it (EAGAIN: the buffer stayed full). */
uint32_t mp_udp_send(int fd, struct mp_target *t, struct iovec *iov, uint32_t count, uint32_t total,
                     uint32_t segment, uint64_t *calls, int *error);

/* A received super-buffer: up to MP_SUPER_BYTES of datagrams of `segment` bytes; the last may be shorter. */
struct mp_received {
    uint8_t *data;              /* in: the buffer */
    uint32_t length;
    uint32_t segment;
    union mp_address from;
};

#define MP_RECEIVE_BURST 8u

/* Receive up to `count` (≤ MP_RECEIVE_BURST) without waiting.  Returns how many. */
uint32_t mp_udp_receive(int fd, struct mp_received *out, uint32_t count);

#endif
