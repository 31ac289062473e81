// SPDX-License-Identifier: GPL-3.0-or-later
//
// The sending half of `traffic`: plain send() at a rate or at full speed, as any program would.

#include "traffic.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define ENDINGS 5               // datagrams that mark the end of a stream: at least one arrives
#define ENDING_GAP_NS 20000000

static int open_sender(const struct options *o, const struct sockaddr_storage *group)
{
	int s = socket(o->family, SOCK_DGRAM, 0);
	check(s, "socket");
	int buffer = 4 << 20;
	setsockopt(s, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	if (o->family == AF_INET) {
		struct ip_mreqn via = {.imr_ifindex = (int)o->ifindex};
		check(setsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, &via, sizeof via), "IP_MULTICAST_IF");
		check(setsockopt(s, IPPROTO_IP, IP_MULTICAST_TTL, &o->ttl, sizeof o->ttl), "IP_MULTICAST_TTL");
		check(setsockopt(s, IPPROTO_IP, IP_MULTICAST_LOOP, &o->loop, sizeof o->loop), "IP_MULTICAST_LOOP");
	} else {
		check(setsockopt(s, IPPROTO_IPV6, IPV6_MULTICAST_IF, &o->ifindex, sizeof o->ifindex),
		      "IPV6_MULTICAST_IF");
		check(setsockopt(s, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &o->ttl, sizeof o->ttl),
		      "IPV6_MULTICAST_HOPS");
		check(setsockopt(s, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &o->loop, sizeof o->loop),
		      "IPV6_MULTICAST_LOOP");
	}
	if (group)
		check(connect(s, (const struct sockaddr *)group, sizeof *group), "connect");
	return s;
}

static void fill(uint8_t *datagram, const struct head *head, size_t size)
{
	memcpy(datagram, head, sizeof *head);
	memcpy(datagram + sizeof *head, table + head->number % TABLE_PERIOD, size - SIZE_MIN_BYTES);
	memcpy(datagram + size - sizeof(uint64_t), &head->number, sizeof(uint64_t));
}

// Sleep until `due`.  A short wait is no sleep: a wake-up alone takes some tens of microseconds.
static void sleep_until(int64_t due)
{
	if (due - now_ns() < 20000)
		return;
	struct timespec t = {.tv_sec = due / NS_PER_S, .tv_nsec = due % NS_PER_S};
	while (!stopped && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

struct pace {
	double interval_ns;     // 0: full speed
	int64_t start_ns, slipped_ns, burst_ns;
};

// Wait until datagram `number` is due.  A sender that was not scheduled for longer than --burst datagrams take does not
// catch up in one burst: no real program does, and the queue of the interface would overflow.
static void pace(struct pace *p, uint64_t number)
{
	if (p->interval_ns <= 0)
		return;
	int64_t due = p->start_ns + p->slipped_ns + (int64_t)((double)number * p->interval_ns);
	int64_t late = now_ns() - due;
	if (late > p->burst_ns)
		p->slipped_ns += late - p->burst_ns;
	else if (late < 0)
		sleep_until(due);
}

static double mean_size(const struct options *o)
{
	double sum = 0;
	for (int i = 0; i < o->size_count; i++)
		sum += o->sizes[i];
	return sum / o->size_count;
}

static ssize_t send_one(const struct options *o, int s, const struct head *head)
{
	static uint8_t datagram[SIZE_MAX_BYTES];
	fill(datagram, head, head->length);
	if (o->group_count == 1)
		return send(s, datagram, head->length, 0);
	const struct sockaddr *to = (const struct sockaddr *)&o->groups[head->group];
	return sendto(s, datagram, head->length, 0, to, sizeof o->groups[head->group]);
}

int send_stream(const struct options *o)
{
	static int sockets[FLOWS_MAX];
	for (int i = 0; i < o->flows; i++)
		sockets[i] = open_sender(o, o->group_count == 1 ? &o->groups[0] : NULL);
	uint64_t flows = (uint64_t)o->flows, sizes = (uint64_t)o->size_count;
	double pps = o->mbit > 0 ? o->mbit * 1e6 / 8 / mean_size(o) : o->pps;
	struct pace p = {.interval_ns = pps > 0 ? 1e9 / pps : 0, .start_ns = now_ns()};
	p.burst_ns = (int64_t)(p.interval_ns * o->burst);
	int64_t end_ns = o->seconds > 0 ? p.start_ns + (int64_t)(o->seconds * 1e9) : INT64_MAX;
	uint64_t errors = 0;
	struct head head = {.magic = MAGIC, .stream = (uint16_t)o->stream};

	while (!stopped && (!o->count || head.number < o->count)) {
		pace(&p, head.number);
		head.sent_ns = now_ns();
		if (head.sent_ns >= end_ns)
			break;
		head.group = (uint32_t)(head.number % o->group_count);
		head.length = (uint32_t)o->sizes[head.number / flows % sizes];   // each flow sends every size
		if (send_one(o, sockets[head.number % flows], &head) < 0) {
			if (errno == EINTR)
				continue;
			errors++;
		}
		head.number++;
	}
	int64_t elapsed_ns = now_ns() - p.start_ns;
	double cpu = cpu_s();
	head.is_end = 1;
	head.group = 0;
	head.length = (uint32_t)o->sizes[0];
	for (int i = 0; i < ENDINGS; i++) {
		sleep_until(now_ns() + ENDING_GAP_NS);
		send_one(o, sockets[0], &head);
	}
	printf("{\"sent\": %llu, \"errors\": %llu, \"seconds\": %.6f, \"slipped_ms\": %.3f, \"cpu_s\": %.4f}\n",
	       (unsigned long long)head.number, (unsigned long long)errors, (double)elapsed_ns / 1e9,
	       (double)p.slipped_ns / 1e6, cpu);
	return 0;
}
