// SPDX-License-Identifier: GPL-3.0-or-later
//
// The receiving half of `traffic`: joins the groups, and reads datagrams with as little CPU time as a program can.

#include "traffic.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif

#define MEMBERSHIPS_PER_SOCKET 200   // kernel memory for memberships is bounded per socket (net.core.optmem_max)
#define RECEIVE_BATCH 64
#define CONTROL_BYTES 128

static void join_source(int s, int level, const struct options *o, uint32_t g, int name)
{
	for (int i = 0; i < o->source_count; i++) {
		struct group_source_req r = {.gsr_interface = o->ifindex};
		memcpy(&r.gsr_group, &o->groups[g], sizeof r.gsr_group);
		memcpy(&r.gsr_source, &o->sources[i], sizeof r.gsr_source);
		check(setsockopt(s, level, name, &r, sizeof r), "joining a source");
	}
}

static void join(int s, const struct options *o, uint32_t g)
{
	int level = o->family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	if (o->source_count && !o->blocks) {
		join_source(s, level, o, g, MCAST_JOIN_SOURCE_GROUP);
		return;
	}
	struct group_req r = {.gr_interface = o->ifindex};
	memcpy(&r.gr_group, &o->groups[g], sizeof r.gr_group);
	if (setsockopt(s, level, MCAST_JOIN_GROUP, &r, sizeof r) < 0)
		die("joining group %u of %u: %s", g + 1, o->group_count, strerror(errno));
	if (o->blocks)
		join_source(s, level, o, g, MCAST_BLOCK_SOURCE);
}

// The socket that receives data is bound to the group if there is only one, else to any address.  Memberships of many
// groups are spread over further sockets, which are never read: the first receives the data of all groups joined.
static int open_receiver(const struct options *o)
{
	int s = socket(o->family, SOCK_DGRAM, 0), on = 1, all = o->group_count > 1;
	check(s, "socket");
	check(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
	if (setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &o->buffer, sizeof o->buffer) < 0)
		setsockopt(s, SOL_SOCKET, SO_RCVBUF, &o->buffer, sizeof o->buffer);
	setsockopt(s, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
	if (o->gro)
		check(setsockopt(s, IPPROTO_UDP, UDP_GRO, &on, sizeof on), "UDP_GRO");
	if (o->family == AF_INET) {
		setsockopt(s, IPPROTO_IP, IP_MULTICAST_ALL, &all, sizeof all);
		setsockopt(s, IPPROTO_IP, IP_PKTINFO, &all, sizeof all);
	} else {
		setsockopt(s, IPPROTO_IPV6, IPV6_MULTICAST_ALL, &all, sizeof all);
		setsockopt(s, IPPROTO_IPV6, IPV6_RECVPKTINFO, &all, sizeof all);
	}
	struct sockaddr_storage local = o->groups[0];
	if (all) {
		memset(&local, 0, sizeof local);
		local.ss_family = (sa_family_t)o->family;
		set_port(&local, o->port);
	}
	check(bind(s, (struct sockaddr *)&local, sizeof local), "bind");
	int holder = s;
	for (uint32_t g = 0; g < o->group_count; g++) {
		if (g && g % MEMBERSHIPS_PER_SOCKET == 0 && !o->source_count)
			check(holder = socket(o->family, SOCK_DGRAM, 0), "socket");
		join(holder, o, g);
	}
	return s;
}

struct batch {
	struct mmsghdr messages[RECEIVE_BATCH];
	struct iovec vectors[RECEIVE_BATCH];
	_Alignas(8) uint8_t control[RECEIVE_BATCH][CONTROL_BYTES];
	uint8_t (*data)[65536];
};

static void take(struct account *a, const struct options *o, struct msghdr *m, const uint8_t *data, size_t length,
		 int64_t arrived_ns)
{
	const void *to = NULL;
	size_t segment = length;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
			uint32_t drops;
			memcpy(&drops, CMSG_DATA(c), sizeof drops);
			a->socket_drops = drops;
		} else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
			int size;
			memcpy(&size, CMSG_DATA(c), sizeof size);
			segment = (size_t)size;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			to = &((struct in_pktinfo *)CMSG_DATA(c))->ipi_addr;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			to = &((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_addr;
		}
	}
	if (m->msg_flags & MSG_TRUNC)
		a->corrupt++;
	for (size_t at = 0; at < length || at == 0; at += segment ? segment : 1)
		account(a, o, data + at, length - at < segment ? length - at : segment, to, arrived_ns);
}

static int receive_batch(int s, struct batch *b)
{
	for (int i = 0; i < RECEIVE_BATCH; i++) {
		b->vectors[i] = (struct iovec){b->data[i], sizeof b->data[i]};
		b->messages[i].msg_hdr = (struct msghdr){
			.msg_iov = &b->vectors[i], .msg_iovlen = 1,
			.msg_control = b->control[i], .msg_controllen = CONTROL_BYTES,
		};
	}
	return recvmmsg(s, b->messages, RECEIVE_BATCH, MSG_WAITFORONE, NULL);
}

int receive_streams(const struct options *o)
{
	static struct batch b;
	static struct account a;
	b.data = calloc(RECEIVE_BATCH, sizeof *b.data);
	if (!b.data)
		die("out of memory");
	int s = open_receiver(o);
	printf("{\"ready\": true}\n");
	fflush(stdout);
	if (o->seconds > 0)
		alarm((unsigned)(o->seconds + 0.999));
	while (!stopped && (!o->streams || a.ended < o->streams)) {
		int n = receive_batch(s, &b);
		int64_t arrived_ns = now_ns();
		for (int i = 0; i < n; i++)
			take(&a, o, &b.messages[i].msg_hdr, b.data[i], b.messages[i].msg_len, arrived_ns);
	}
	print_account(&a, cpu_s());
	return 0;
}
