/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_packet: parses inner packets, reads and writes the overlay header.
 *
 * Each parser gets the bytes that exist (`available`) and never reads past them.  Its result is 0 or a drop counter.
 * It knows no table and no socket.
 */
#ifndef MP_PACKET_H
#define MP_PACKET_H

#include <stdint.h>
#include <string.h>

#include "mp_counter.h"

/* ---- inner packets ---- */

enum mp_class {
    MP_CLASS_GROUP,             /* forwarded to nodes with members */
    MP_CLASS_FLOOD,             /* link scope: forwarded to every node */
    MP_CLASS_UNICAST,
    MP_CLASS_MEMBERSHIP,        /* IGMP and MLD: punted to control, never forwarded */
};

struct mp_packet {
    uint32_t length;            /* by its own header; bytes behind that are not part of the packet */
    uint8_t version;
    uint8_t class;
    uint8_t reserved[2];
    uint8_t source[16];         /* IPv4 as ::ffff:a.b.c.d */
    uint8_t destination[16];
};

/* Parse an inner packet.  Returns 0 and fills `out`, or returns a drop counter (enum mp_counter_id). */
int mp_packet_parse(const uint8_t *bytes, uint32_t available, struct mp_packet *out);

/* The upper layer of a packet. */
struct mp_transport {
    uint8_t protocol;           /* MP_PROTO_UDP and others */
    uint8_t is_later_fragment;  /* not the first one: the other fields are unknown */
    uint8_t icmp_type;          /* of ICMP and ICMPv6 */
    uint16_t source_port, destination_port;     /* of UDP and TCP */
};

enum mp_protocol { MP_PROTO_ICMP = 1, MP_PROTO_TCP = 6, MP_PROTO_UDP = 17, MP_PROTO_ICMPV6 = 58 };

/* Find the upper layer of a packet of mp_packet_parse().  Returns 1 and fills `out`, or 0 if its headers do not fit. */
int mp_packet_transport(const uint8_t *bytes, const struct mp_packet *p, struct mp_transport *out);

/* An unfragmented UDP packet without options, which segmentation may merge with others.  Sizes in bytes. */
struct mp_udp_packet {
    uint32_t header;            /* IP and UDP header */
    uint32_t payload;
};

/* Return 1 and fill `out` if the packet of `length` bytes is one; else 0. */
int mp_packet_is_udp(const uint8_t *bytes, uint32_t length, struct mp_udp_packet *out);

/* Return whether two packets of mp_packet_is_udp() differ only in IPv4 identification, lengths, checksums and
 * payload. */
int mp_packet_same_flow(const uint8_t *a, const uint8_t *b, uint32_t header);

/* ---- overlay header ----
 *
 *   0       1        2           3       4            8              16             20
 *   | ver,type | flags | hop limit | epoch | origin u32 | sequence u64 | stream sequence u32 | sealed ... | tag |
 *
 * All fields in network byte order.  The sealed part holds whole inner packets, one behind the other. */

#define MP_WIRE_VERSION 1u
#define MP_HEADER_BYTES 20u
#define MP_TAG_BYTES 16u
#define MP_HOP_LIMIT 32u        /* relays of a datagram: far above the depth of any useful tree */

enum mp_type { MP_TYPE_DATA = 1, MP_TYPE_PROBE = 2, MP_TYPE_ECHO = 3 };
enum mp_header_flag { MP_FLAG_SEALED = 1 };

struct mp_header {
    uint8_t type, flags, hop_limit, epoch;
    uint32_t origin;
    uint64_t sequence;          /* top byte: the origin's sequence space, see mp_space() */
    uint32_t stream_sequence;
};

void mp_header_write(uint8_t *out, const struct mp_header *h);

/* Read a header.  Returns 0 and fills `out`, or returns a drop counter: MP_DROP_wire_header, or
 * MP_DROP_unknown_origin for origin 0. */
int mp_header_read(const uint8_t *bytes, uint32_t available, struct mp_header *out);

/* Return a sequence space of an origin, as the top byte of a sequence number: data of a lane, or its probes and
 * echoes. */
static inline uint64_t mp_space(uint32_t lane, int probes)
{
    return (uint64_t)(lane + (probes ? MP_LANES_MAX : 0u)) << 56;
}

/* ---- helpers ---- */

static inline uint16_t mp_get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline void mp_put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* Return the one's complement sum of 16-bit words, folded; `sum` is the sum of other parts. */
uint32_t mp_checksum_add(const uint8_t *p, uint32_t length, uint32_t sum);

#endif
