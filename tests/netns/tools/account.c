// SPDX-License-Identifier: GPL-3.0-or-later
//
// The fate of each datagram: lost, doubled, reordered, damaged, late.

#include "traffic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void grow(struct stream *s, uint64_t number)
{
	uint64_t bits = s->seen_bits ? s->seen_bits : 1 << 16;
	while (bits <= number)
		bits *= 2;
	if (bits == s->seen_bits)
		return;
	s->seen = realloc(s->seen, bits / 8);
	if (!s->seen)
		die("out of memory");
	memset(s->seen + s->seen_bits / 8, 0, (bits - s->seen_bits) / 8);
	s->seen_bits = bits;
}

static void count_latency(struct account *a, int64_t ns)
{
	uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
	unsigned power = us < 16 ? 0 : 63 - (unsigned)__builtin_clzll(us) - 3;
	a->latency[power ? power * 16 + (us >> (power - 1) & 15) : us]++;
	a->latency_count++;
	if (ns > a->latency_max_ns)
		a->latency_max_ns = ns;
}

static uint64_t bucket_top_us(unsigned bucket)
{
	unsigned power = bucket / 16;
	return power ? ((uint64_t)(bucket % 16 + 16 + 1) << (power - 1)) - 1 : bucket;
}

static uint64_t percentile_us(const struct account *a, double share)
{
	uint64_t wanted = (uint64_t)((double)a->latency_count * share), passed = 0;
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		passed += a->latency[i];
		if (passed > wanted)
			return bucket_top_us(i);
	}
	return (uint64_t)a->latency_max_ns / 1000;
}

static void count_arrival(struct account *a, struct stream *s, const struct head *head, int64_t arrived_ns)
{
	uint64_t n = head->number;
	s->received++;
	s->bytes += head->length;
	grow(s, n);
	if (s->seen[n / 8] & 1 << n % 8) {
		s->duplicates++;
		return;
	}
	s->seen[n / 8] |= (uint8_t)(1 << n % 8);
	s->unique++;
	if (n < s->highest)
		s->reordered++;
	else
		s->highest = n + 1;
	if (!s->first_ns)
		s->first_ns = arrived_ns;
	else if (arrived_ns - s->last_ns > s->gap_ns) {
		s->gap_ns = arrived_ns - s->last_ns;
		s->gap_at_ns = s->last_ns;
	}
	s->last_ns = arrived_ns;
	count_latency(a, arrived_ns - head->sent_ns);
}

static void count_group(struct account *a, const struct options *o, struct stream *s, uint32_t group, const void *to)
{
	if (group >= o->group_count) {
		a->wrong_group++;
		return;
	}
	const struct sockaddr_storage *g = &o->groups[group];
	bool right = o->family == AF_INET
		? !memcmp(to, &((const struct sockaddr_in *)g)->sin_addr, 4)
		: !memcmp(to, &((const struct sockaddr_in6 *)g)->sin6_addr, 16);
	if (!right) {
		a->wrong_group++;
		return;
	}
	if (!s->group_seen && !(s->group_seen = calloc(o->group_count, 1)))
		die("out of memory");
	s->groups_seen += !s->group_seen[group];
	s->group_seen[group] = 1;
}

void account(struct account *a, const struct options *o, const uint8_t *data, size_t length, const void *to,
	     int64_t arrived_ns)
{
	struct head head;
	if (length < SIZE_MIN_BYTES) {
		a->foreign++;
		return;
	}
	memcpy(&head, data, sizeof head);
	if (head.magic != MAGIC || head.stream >= STREAMS_MAX) {
		a->foreign++;
		return;
	}
	if (head.length != length || head.number >> 32 ||
	    memcmp(data + sizeof head, table + head.number % TABLE_PERIOD, length - SIZE_MIN_BYTES) ||
	    memcmp(data + length - sizeof(uint64_t), &head.number, sizeof(uint64_t))) {
		a->corrupt++;
		return;
	}
	struct stream *s = &a->streams[head.stream];
	s->used = true;
	if (head.is_end) {
		s->expected = head.number;
		a->ended += !s->ended;
		s->ended = true;
		return;
	}
	count_arrival(a, s, &head, arrived_ns);
	if (to)
		count_group(a, o, s, head.group, to);
}

void print_account(const struct account *a, double cpu)
{
	printf("{\"streams\": {");
	const char *separator = "";
	for (int i = 0; i < STREAMS_MAX; i++) {
		const struct stream *s = &a->streams[i];
		if (!s->used)
			continue;
		uint64_t expected = s->ended ? s->expected : s->highest;
		printf("%s\"%d\": {\"received\": %llu, \"unique\": %llu, \"expected\": %llu, \"lost\": %lld, "
		       "\"duplicates\": %llu, \"reordered\": %llu, \"bytes\": %llu, \"ended\": %s, \"groups\": %llu, "
		       "\"gap_ms\": %.3f, \"gap_at_s\": %.6f, \"first_s\": %.6f, \"last_s\": %.6f}",
		       separator, i, (unsigned long long)s->received, (unsigned long long)s->unique,
		       (unsigned long long)expected, (long long)(expected - s->unique),
		       (unsigned long long)s->duplicates, (unsigned long long)s->reordered,
		       (unsigned long long)s->bytes, s->ended ? "true" : "false", (unsigned long long)s->groups_seen,
		       (double)s->gap_ns / 1e6, (double)s->gap_at_ns / 1e9, (double)s->first_ns / 1e9,
		       (double)s->last_ns / 1e9);
		separator = ", ";
	}
	printf("}, \"corrupt\": %llu, \"foreign\": %llu, \"wrong_group\": %llu, \"socket_drops\": %llu, "
	       "\"latency_us\": {\"p50\": %llu, \"p90\": %llu, \"p99\": %llu, \"p999\": %llu, \"max\": %lld}, "
	       "\"cpu_s\": %.4f}\n",
	       (unsigned long long)a->corrupt, (unsigned long long)a->foreign, (unsigned long long)a->wrong_group,
	       (unsigned long long)a->socket_drops, (unsigned long long)percentile_us(a, 0.5),
	       (unsigned long long)percentile_us(a, 0.9), (unsigned long long)percentile_us(a, 0.99),
	       (unsigned long long)percentile_us(a, 0.999), (long long)a->latency_max_ns / 1000, cpu);
}
