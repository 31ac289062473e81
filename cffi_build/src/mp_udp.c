/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_udp: sendmsg with UDP_SEGMENT, recvmmsg with UDP_GRO.  See mp_udp.h.
 */
#include "mp_udp.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

void mp_target_set(struct mp_target *t, const struct mp_endpoint *e)
{
    memset(t, 0, sizeof *t);
    if (e->family == AF_INET) {
        t->address.v4.sin_family = AF_INET;
        t->address.v4.sin_port = htons(e->port);
        memcpy(&t->address.v4.sin_addr, e->address, 4);
        t->length = sizeof t->address.v4;
    } else if (e->family == AF_INET6) {
        t->address.v6.sin6_family = AF_INET6;
        t->address.v6.sin6_port = htons(e->port);
        t->address.v6.sin6_scope_id = e->scope;
        memcpy(&t->address.v6.sin6_addr, e->address, 16);
        t->length = sizeof t->address.v6;
    }
}

void mp_endpoint_from(struct mp_endpoint *e, const union mp_address *a)
{
    memset(e, 0, sizeof *e);
    e->family = a->any.sa_family;
    if (a->any.sa_family == AF_INET) {
        e->port = ntohs(a->v4.sin_port);
        memcpy(e->address, &a->v4.sin_addr, 4);
    } else if (a->any.sa_family == AF_INET6) {
        e->port = ntohs(a->v6.sin6_port);
        e->scope = a->v6.sin6_scope_id;
        memcpy(e->address, &a->v6.sin6_addr, 16);
    }
}

int mp_endpoint_is(const struct mp_endpoint *one, const struct mp_endpoint *other)
{
    return one->port == other->port && one->family == other->family &&
           !memcmp(one->address, other->address, sizeof one->address);
}

/* ---- send ---- */

/* Wait after EAGAIN.  Returns 1 once there is room, 0 after MP_BLOCKED_MS without. */
static int wait_for_room(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    return poll(&p, 1, MP_BLOCKED_MS) > 0;
}

static int send_whole(int fd, struct mp_target *t, struct iovec *iov, uint32_t count, uint32_t total, uint32_t segment,
                      uint64_t *calls)
{
    char control[CMSG_SPACE(sizeof(uint16_t))] = { 0 };
    struct msghdr m = { .msg_name = &t->address, .msg_namelen = t->length, .msg_iov = iov, .msg_iovlen = count };
    if (total > segment) {
        m.msg_control = control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        uint16_t size = (uint16_t)segment;
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof size);
        memcpy(CMSG_DATA(c), &size, sizeof size);
    }
    for (;;) {
        ++*calls;
        if (sendmsg(fd, &m, 0) >= 0)
            return 0;
        if (errno != EINTR && (errno != EAGAIN || !wait_for_room(fd)))
            return errno;
    }
}

/* Split the run into one iovec a datagram.  Returns how many (≤ MP_SEGMENTS_MAX). */
static uint32_t split(const struct iovec *iov, uint32_t count, uint32_t total, uint32_t segment, struct iovec *out)
{
    if (count > 1 || total <= segment) {        /* one iovec a datagram already */
        memcpy(out, iov, count * sizeof *out);
        return count;
    }
    uint32_t n = 0;
    for (uint32_t at = 0; at < total && n < MP_SEGMENTS_MAX; at += segment)
        out[n++] = (struct iovec){ (char *)iov->iov_base + at, total - at < segment ? total - at : segment };
    return n;
}

static uint32_t send_singly(int fd, struct mp_target *t, const struct iovec *iov, uint32_t count, uint32_t total,
                            uint32_t segment, uint64_t *calls, int *error)
{
    struct iovec each[MP_SEGMENTS_MAX];
    struct mmsghdr m[MP_SEGMENTS_MAX];
    uint32_t n = split(iov, count, total, segment, each), sent = 0;
    for (uint32_t i = 0; i < n; i++)
        m[i] = (struct mmsghdr){ .msg_hdr = { .msg_name = &t->address, .msg_namelen = t->length, .msg_iov = &each[i],
                                              .msg_iovlen = 1 } };
    while (sent < n) {
        ++*calls;
        int got = sendmmsg(fd, m + sent, n - sent, 0);
        if (got > 0) {
            sent += (uint32_t)got;
        } else if (errno != EINTR && (errno != EAGAIN || !wait_for_room(fd))) {
            *error = errno;
            break;
        }
    }
    return sent;
}

uint32_t mp_udp_send(int fd, struct mp_target *t, struct iovec *iov, uint32_t count, uint32_t total,
                     uint32_t segment, uint64_t *calls, int *error)
{
    *error = 0;
    if (!t->single || total <= segment) {
        *error = send_whole(fd, t, iov, count, total, segment, calls);
        if (!*error)
            return (total + segment - 1) / segment;
        /* EINVAL: no UDP_SEGMENT, or a segment above the path MTU; EIO: no checksum offload; EMSGSIZE: above the MTU */
        if (total <= segment || (*error != EINVAL && *error != EIO && *error != EMSGSIZE))
            return 0;
        t->single = 1;
        *error = 0;
    }
    return send_singly(fd, t, iov, count, total, segment, calls, error);
}

/* ---- receive ---- */

static uint32_t segment_size(struct msghdr *m, uint32_t length)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            if (size > 0)
                return (uint32_t)size;
        }
    return length;
}

uint32_t mp_udp_receive(int fd, struct mp_received *out, uint32_t count)
{
    struct mmsghdr m[MP_RECEIVE_BURST];
    struct iovec iov[MP_RECEIVE_BURST];
    char control[MP_RECEIVE_BURST][CMSG_SPACE(sizeof(int))];
    if (count > MP_RECEIVE_BURST)
        count = MP_RECEIVE_BURST;
    for (uint32_t i = 0; i < count; i++) {
        iov[i] = (struct iovec){ out[i].data, MP_SUPER_BYTES };
        m[i] = (struct mmsghdr){ .msg_hdr = { .msg_name = &out[i].from, .msg_namelen = sizeof out[i].from,
                                              .msg_iov = &iov[i], .msg_iovlen = 1, .msg_control = control[i],
                                              .msg_controllen = sizeof control[i] } };
    }
    int got = recvmmsg(fd, m, count, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) {
        out[i].length = m[i].msg_len;
        out[i].segment = segment_size(&m[i].msg_hdr, m[i].msg_len);
    }
    return got > 0 ? (uint32_t)got : 0;
}
