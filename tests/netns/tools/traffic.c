// SPDX-License-Identifier: GPL-3.0-or-later
//
// traffic: sends numbered datagrams to multicast groups, and counts exactly the fate of each.
//
//   traffic send    --group LIST --port N --interface IF [--stream ID] [--size B,B,…] [--mbit X | --pps X]
//                   [--seconds S | --count N] [--ttl N] [--no-loop] [--burst N] [--flows N]
//   traffic receive --group LIST --port N --interface IF [--source A,B | --block A,B] [--streams N] [--seconds S]
//                   [--gro] [--buffer BYTES]
//
// LIST is GROUP[+COUNT],…: 239.1.0.1+100 is a hundred consecutive groups.  The sender sends one datagram to each group
// in turn by plain send(), at a rate or at full speed, and ends with a few datagrams that carry the number sent.  The
// receiver prints {"ready": true} once it has joined, receives by recvmmsg() until --streams streams have ended (or
// SIGTERM, SIGINT, or --seconds), and prints one JSON object.  Several sizes are sent in turn.  --flows is the number
// of sockets, and so of source ports, that send in turn.
//
// It does not know the carrier of the datagrams.  Latency is the difference of CLOCK_MONOTONIC at both ends, so it is
// valid only between programs on one machine.
//
// A datagram is struct head, a body whose bytes depend on its number, and the number again as its last 8 bytes, so that
// a mixture of two datagrams is detected.

#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

volatile sig_atomic_t stopped;
uint8_t table[SIZE_MAX_BYTES + TABLE_PERIOD + 8];

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

void die(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fputs("traffic: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(2);
}

void check(int result, const char *what)
{
	if (result < 0)
		die("%s: %s", what, strerror(errno));
}

int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

double cpu_s(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void fill_table(void)
{
	uint64_t state = 0x9e3779b97f4a7c15u;
	for (size_t i = 0; i < sizeof table; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		table[i] = (uint8_t)(state >> 32);
	}
}

// ---------------------------------------------------------------- options

static void parse_address(const char *text, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
	memset(out, 0, sizeof *out);
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
		v4->sin_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
		v6->sin6_family = AF_INET6;
	else
		die("no address: %s", text);
}

static void add_to_address(struct sockaddr_storage *address, uint32_t n)
{
	if (address->ss_family == AF_INET) {
		struct in_addr *a = &((struct sockaddr_in *)address)->sin_addr;
		a->s_addr = htonl(ntohl(a->s_addr) + n);
	} else {
		uint32_t *words = ((struct sockaddr_in6 *)address)->sin6_addr.s6_addr32;
		words[3] = htonl(ntohl(words[3]) + n);
	}
}

void set_port(struct sockaddr_storage *address, uint16_t port)
{
	if (address->ss_family == AF_INET)
		((struct sockaddr_in *)address)->sin_port = htons(port);
	else
		((struct sockaddr_in6 *)address)->sin6_port = htons(port);
}

static void parse_groups(struct options *o, char *list)
{
	o->groups = calloc(GROUPS_MAX, sizeof *o->groups);
	if (!o->groups)
		die("out of memory");
	for (char *rest = list, *item; (item = strsep(&rest, ","));) {
		char *plus = strchr(item, '+');
		unsigned long n = plus ? strtoul(plus + 1, NULL, 10) : 1;
		if (plus)
			*plus = 0;
		if (n < 1 || o->group_count + n > GROUPS_MAX)
			die("at most %d groups", GROUPS_MAX);
		for (unsigned long i = 0; i < n; i++) {
			struct sockaddr_storage *g = &o->groups[o->group_count++];
			parse_address(item, g);
			add_to_address(g, (uint32_t)i);
		}
	}
	o->family = o->groups[0].ss_family;
}

static void parse_sources(struct options *o, char *list)
{
	for (char *rest = list, *item; (item = strsep(&rest, ","));) {
		if (o->source_count == SOURCES_MAX)
			die("at most %d sources", SOURCES_MAX);
		parse_address(item, &o->sources[o->source_count++]);
	}
}

static void parse_sizes(struct options *o, char *list)
{
	o->size_count = 0;
	for (char *rest = list, *item; (item = strsep(&rest, ","));) {
		if (o->size_count == SIZES_MAX)
			die("at most %d sizes", SIZES_MAX);
		int size = atoi(item);
		if (size < (int)SIZE_MIN_BYTES || size > SIZE_MAX_BYTES)
			die("--size %zu to %d", SIZE_MIN_BYTES, SIZE_MAX_BYTES);
		o->sizes[o->size_count++] = size;
	}
}

static void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option known[] = {
		{"group", 1, 0, 'g'}, {"port", 1, 0, 'p'}, {"interface", 1, 0, 'i'}, {"stream", 1, 0, 'I'},
		{"size", 1, 0, 'l'}, {"mbit", 1, 0, 'r'}, {"pps", 1, 0, 'P'}, {"seconds", 1, 0, 't'},
		{"count", 1, 0, 'n'}, {"ttl", 1, 0, 'T'}, {"no-loop", 0, 0, 'L'}, {"burst", 1, 0, 'b'},
		{"source", 1, 0, 's'}, {"block", 1, 0, 'S'}, {"streams", 1, 0, 'e'}, {"gro", 0, 0, 'G'},
		{"buffer", 1, 0, 'B'}, {"flows", 1, 0, 'f'}, {0, 0, 0, 0},
	};
	*o = (struct options){
		.stream = 1, .sizes = {1316}, .size_count = 1, .flows = 1, .ttl = 1, .loop = 1, .buffer = 64 << 20,
		.burst = 64,
	};
	for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
		switch (c) {
		case 'g': parse_groups(o, optarg); break;
		case 'p': o->port = (uint16_t)atoi(optarg); break;
		case 'i': o->interface = optarg; break;
		case 'I': o->stream = atoi(optarg); break;
		case 'l': parse_sizes(o, optarg); break;
		case 'r': o->mbit = atof(optarg); break;
		case 'P': o->pps = atof(optarg); break;
		case 't': o->seconds = atof(optarg); break;
		case 'n': o->count = strtoull(optarg, NULL, 10); break;
		case 'T': o->ttl = atoi(optarg); break;
		case 'L': o->loop = 0; break;
		case 'b': o->burst = atoi(optarg); break;
		case 's': parse_sources(o, optarg); break;
		case 'S': parse_sources(o, optarg); o->blocks = true; break;
		case 'e': o->streams = atoi(optarg); break;
		case 'G': o->gro = true; break;
		case 'B': o->buffer = atoi(optarg); break;
		case 'f': o->flows = atoi(optarg); break;
		default: exit(2);
		}
	if (!o->groups || !o->port || !o->interface)
		die("--group, --port and --interface are needed");
	o->ifindex = if_nametoindex(o->interface);
	if (!o->ifindex)
		die("no interface %s", o->interface);
	if (o->flows < 1 || o->flows > FLOWS_MAX)
		die("--flows 1 to %d", FLOWS_MAX);
	if (o->stream < 0 || o->stream >= STREAMS_MAX)
		die("--stream 0 to %d", STREAMS_MAX - 1);
	for (uint32_t i = 0; i < o->group_count; i++)
		set_port(&o->groups[i], o->port);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		die("send or receive");
	struct options o;
	struct sigaction action = {.sa_handler = stop};     // no SA_RESTART: a signal ends the blocking call
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	fill_table();
	parse_options(&o, argc - 1, argv + 1);
	if (!strcmp(argv[1], "send"))
		return send_stream(&o);
	if (!strcmp(argv[1], "receive"))
		return receive_streams(&o);
	die("send or receive, not %s", argv[1]);
}
