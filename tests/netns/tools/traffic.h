// SPDX-License-Identifier: GPL-3.0-or-later
//
// The declarations that the parts of `traffic` share: the datagram, the options, and a few functions.  traffic.c
// describes the program.

#ifndef TRAFFIC_H
#define TRAFFIC_H

#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define MAGIC 0x4d435450u
#define SIZE_MAX_BYTES 65000
#define STREAMS_MAX 64          // ids 0 … 63: more than any test has senders
#define GROUPS_MAX 65536
#define SOURCES_MAX 64
#define FLOWS_MAX 1024          // one socket each, within the usual limit of open files
#define SIZES_MAX 64
#define LATENCY_BUCKETS (64 * 16)
#define TABLE_PERIOD 251        // prime, so that neighbours in any usual ring have different bodies
#define NS_PER_S 1000000000LL

struct head {
	uint32_t magic;
	uint16_t stream;
	uint16_t is_end;
	uint64_t number;        // of this datagram in its stream, from 0; in an ending, the number of datagrams sent
	int64_t sent_ns;
	uint32_t length;        // of the whole payload
	uint32_t group;         // index into the sender's list
};
_Static_assert(sizeof(struct head) == 32, "no padding");
#define SIZE_MIN_BYTES (sizeof(struct head) + sizeof(uint64_t))

struct stream {
	uint64_t received, unique, duplicates, reordered, bytes;
	uint64_t highest, expected;     // highest number received + 1; number sent, from an ending
	int64_t first_ns, last_ns, gap_ns, gap_at_ns;
	uint8_t *seen;                  // one bit a number
	uint64_t seen_bits;
	uint64_t groups_seen;
	uint8_t *group_seen;            // one byte a group
	bool used, ended;
};

struct options {
	const char *interface;
	unsigned ifindex;
	int family;
	uint16_t port;
	struct sockaddr_storage *groups;
	uint32_t group_count;
	struct sockaddr_storage sources[SOURCES_MAX];
	int source_count;
	bool blocks;                    // the sources are excluded
	int stream, streams, ttl, loop, buffer, burst;
	int sizes[SIZES_MAX], size_count, flows;
	bool gro;
	double mbit, pps, seconds;
	uint64_t count;
};

struct account {
	struct stream streams[STREAMS_MAX];
	uint64_t corrupt, foreign, wrong_group, socket_drops;
	uint64_t latency[LATENCY_BUCKETS], latency_count;
	int64_t latency_max_ns;
	int ended;
};

extern volatile sig_atomic_t stopped;   // set by a signal
extern uint8_t table[SIZE_MAX_BYTES + TABLE_PERIOD + 8];

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
void check(int result, const char *what);
int64_t now_ns(void);
double cpu_s(void);
void set_port(struct sockaddr_storage *address, uint16_t port);

int send_stream(const struct options *o);
int receive_streams(const struct options *o);

// Count one datagram that arrived at `arrived_ns`; `to` is its destination group, if the socket reports it.
void account(struct account *a, const struct options *o, const uint8_t *data, size_t length, const void *to,
	     int64_t arrived_ns);
void print_account(const struct account *a, double cpu);

#endif
