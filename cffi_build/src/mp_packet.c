/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_packet: parsers of inner packets, and the overlay header.  See mp_packet.h.
 */
#include "mp_packet.h"

#include <endian.h>

enum { PROTO_HOPOPTS = 0, PROTO_IGMP = 2, PROTO_ROUTING = 43, PROTO_FRAGMENT = 44, PROTO_OPTIONS = 60 };

#define EXTENSIONS_MAX 8u       /* extension headers of IPv6: one of each kind (RFC 8200 §4.1), and some more */

uint32_t mp_checksum_add(const uint8_t *p, uint32_t length, uint32_t sum)
{
    uint64_t total = sum;
    for (; length >= 2; p += 2, length -= 2)
        total += mp_get16(p);
    if (length)
        total += (uint32_t)p[0] << 8;
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint32_t)total;
}

/* ---- inner packets ---- */

static void map_v4(uint8_t out[16], const uint8_t *address)
{
    memset(out, 0, 10);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, address, 4);
}

/* Unicast as in RFC 1122 §3.2.1.3: not multicast, loopback or "this network", and not class E or broadcast. */
static int is_v4_source(const uint8_t *a)
{
    return a[0] != 0 && a[0] != 127 && a[0] < 224;
}

static int parse_v4(const uint8_t *p, uint32_t available, struct mp_packet *out)
{
    if (available < 20)
        return MP_DROP_truncated;
    uint32_t header = (uint32_t)(p[0] & 15) * 4, total = mp_get16(p + 2);
    const uint8_t *to = p + 16;
    if (header < 20 || header > available)
        return MP_DROP_ip_header;
    if (total < header || total > available)
        return MP_DROP_ip_length;
    if (mp_checksum_add(p, header, 0) != 0xffff)
        return MP_DROP_ip_checksum;
    out->version = 4;
    out->length = total;
    map_v4(out->source, p + 12);
    map_v4(out->destination, to);
    if (p[9] == PROTO_IGMP) {   /* before the source is checked: a report may come from 0.0.0.0 (RFC 9776 §4.2.13) */
        out->class = MP_CLASS_MEMBERSHIP;
        return 0;
    }
    if (!is_v4_source(p + 12))
        return MP_DROP_ip_source;
    if (to[0] >> 4 != 0xe)
        out->class = MP_CLASS_UNICAST;
    else if (to[0] == 224 && to[1] == 0 && to[2] == 0)
        out->class = MP_CLASS_FLOOD;
    else
        out->class = MP_CLASS_GROUP;
    return 0;
}

static int is_mld_type(uint8_t type)
{
    return (type >= 130 && type <= 132) || type == 143;
}

/* Return whether the packet is MLD, behind an optional hop-by-hop header.  Without that it is malformed; the querier
 * counts it. */
static int is_mld(const uint8_t *p, uint32_t length)
{
    uint32_t at = 40;
    uint8_t next = p[6];
    if (next == PROTO_HOPOPTS && length >= at + 8) {
        next = p[at];
        at += 8u + 8u * p[at + 1];
    }
    return next == MP_PROTO_ICMPV6 && length > at && is_mld_type(p[at]);
}

static int parse_v6(const uint8_t *p, uint32_t available, struct mp_packet *out)
{
    if (available < 40)
        return MP_DROP_truncated;
    uint32_t total = 40u + mp_get16(p + 4);
    const uint8_t *to = p + 24;
    if (total > available)
        return MP_DROP_ip_length;
    out->version = 6;
    out->length = total;
    memcpy(out->source, p + 8, 16);
    memcpy(out->destination, to, 16);
    if (is_mld(p, total)) {     /* to any address: RFC 9777 §5.2.14 */
        out->class = MP_CLASS_MEMBERSHIP;
        return 0;
    }
    if (p[8] == 0xff || !memcmp(p + 8, (const uint8_t[16]){ [15] = 1 }, 16) ||
        !memcmp(p + 8, (const uint8_t[16]){ 0 }, 16))
        return MP_DROP_ip_source;
    if (to[0] != 0xff)
        out->class = MP_CLASS_UNICAST;
    else if ((to[1] & 15) <= 1)
        return MP_DROP_node_scope;
    else if ((to[1] & 15) == 2)
        out->class = MP_CLASS_FLOOD;
    else
        out->class = MP_CLASS_GROUP;
    return 0;
}

int mp_packet_parse(const uint8_t *bytes, uint32_t available, struct mp_packet *out)
{
    if (!available)
        return MP_DROP_truncated;
    switch (bytes[0] >> 4) {
    case 4: return parse_v4(bytes, available, out);
    case 6: return parse_v6(bytes, available, out);
    default: return MP_DROP_ip_version;
    }
}

/* ---- the upper layer ---- */

static int is_extension(uint8_t protocol)
{
    return protocol == PROTO_HOPOPTS || protocol == PROTO_ROUTING || protocol == PROTO_OPTIONS;
}

/* Pass over the extension headers.  Returns the offset of the upper layer, or 0 if they do not fit, or if one follows
 * the fragment header: then a later fragment could hold other ports. */
static uint32_t pass_extensions(const uint8_t *bytes, uint32_t length, struct mp_transport *out)
{
    uint32_t at = 40;
    out->protocol = bytes[6];
    for (uint32_t i = 0; is_extension(out->protocol); i++) {
        if (i == EXTENSIONS_MAX || at + 8 > length)
            return 0;
        out->protocol = bytes[at];
        at += 8u + 8u * bytes[at + 1];
    }
    if (out->protocol != PROTO_FRAGMENT)
        return at;
    if (at + 8 > length)
        return 0;
    out->protocol = bytes[at];
    out->is_later_fragment = mp_get16(bytes + at + 2) >> 3 != 0;
    return out->is_later_fragment || !is_extension(out->protocol) ? at + 8 : 0;
}

int mp_packet_transport(const uint8_t *bytes, const struct mp_packet *p, struct mp_transport *out)
{
    uint32_t at = 0;
    *out = (struct mp_transport){ 0 };
    if (p->version == 4) {
        at = (uint32_t)(bytes[0] & 15) * 4;
        out->protocol = bytes[9];
        out->is_later_fragment = (mp_get16(bytes + 6) & 0x1fff) != 0;
    } else {
        at = pass_extensions(bytes, p->length, out);
    }
    if (!at || out->is_later_fragment)
        return at != 0;
    if (at + 4 > p->length)
        return 0;
    if (out->protocol == MP_PROTO_UDP || out->protocol == MP_PROTO_TCP) {
        out->source_port = mp_get16(bytes + at);
        out->destination_port = mp_get16(bytes + at + 2);
    } else if (out->protocol == (p->version == 4 ? MP_PROTO_ICMP : MP_PROTO_ICMPV6)) {
        out->icmp_type = bytes[at];
    }
    return 1;
}

/* ---- segmentation ---- */

int mp_packet_is_udp(const uint8_t *p, uint32_t length, struct mp_udp_packet *out)
{
    uint32_t ip = p[0] == 0x45 ? 20 : p[0] >> 4 == 6 ? 40 : 0;
    if (!ip || length < ip + 8 || p[ip == 20 ? 9 : 6] != MP_PROTO_UDP)
        return 0;
    if (ip == 20 && (mp_get16(p + 6) & 0x3fff))                    /* a fragment */
        return 0;
    if (mp_get16(p + ip + 4) != length - ip || !mp_get16(p + ip + 6)) /* wrong length, or no checksum */
        return 0;
    out->header = ip + 8;
    out->payload = length - ip - 8;
    return 1;
}

int mp_packet_same_flow(const uint8_t *a, const uint8_t *b, uint32_t header)
{
    if (header == 28)           /* version, TOS | fragment word, TTL, protocol | addresses, ports */
        return !memcmp(a, b, 2) && !memcmp(a + 6, b + 6, 4) && !memcmp(a + 12, b + 12, 12);
    return !memcmp(a, b, 4) && !memcmp(a + 6, b + 6, 38);
}

/* ---- overlay header ---- */

void mp_header_write(uint8_t *out, const struct mp_header *h)
{
    uint32_t origin = htobe32(h->origin), stream = htobe32(h->stream_sequence);
    uint64_t sequence = htobe64(h->sequence);
    out[0] = (uint8_t)(MP_WIRE_VERSION << 4 | h->type);
    out[1] = h->flags;
    out[2] = h->hop_limit;
    out[3] = h->epoch;
    memcpy(out + 4, &origin, 4);
    memcpy(out + 8, &sequence, 8);
    memcpy(out + 16, &stream, 4);
}

int mp_header_read(const uint8_t *bytes, uint32_t available, struct mp_header *out)
{
    uint32_t origin, stream;
    uint64_t sequence;
    if (available < MP_HEADER_BYTES || bytes[0] >> 4 != MP_WIRE_VERSION)
        return MP_DROP_wire_header;
    memcpy(&origin, bytes + 4, 4);
    memcpy(&sequence, bytes + 8, 8);
    memcpy(&stream, bytes + 16, 4);
    *out = (struct mp_header){ .type = bytes[0] & 15, .flags = bytes[1], .hop_limit = bytes[2], .epoch = bytes[3],
                               .origin = be32toh(origin), .sequence = be64toh(sequence),
                               .stream_sequence = be32toh(stream) };
    if (out->type < MP_TYPE_DATA || out->type > MP_TYPE_ECHO)
        return MP_DROP_wire_header;
    return out->origin ? 0 : MP_DROP_unknown_origin;    /* no node has id 0: it marks free records of keys and links */
}
