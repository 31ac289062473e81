/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_unicast: the table of open queries, and the rules.  See mp_unicast.h.
 */
#include "mp_unicast.h"

#define SETS (MP_QUERIES / MP_QUERY_WAYS)
#define TICK_SHIFT 27u          /* ticks of 134 ms: 32 bits of them are 18 years */
#define OPEN_TICKS ((int32_t)(MP_QUERY_NS >> TICK_SHIFT))

/* ---- open queries ---- */

/* A word is name << 32 | tick.  0: unused. */
struct place {
    _Atomic uint64_t *way;      /* the first of MP_QUERY_WAYS */
    uint32_t name;
};

static struct place place_of(const struct mp_region *r, const uint8_t address[16], uint16_t port)
{
    uint64_t high, h;
    memcpy(&high, address, 8);
    memcpy(&h, address + 8, 8);
    h ^= (high << 31 | high >> 33) ^ r->geometry.seed;
    h = (h ^ h >> 32) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t set = ((uint32_t)(h >> 16) ^ port) % SETS;
    return (struct place){ mp_queries(r) + set * MP_QUERY_WAYS, (uint32_t)port >> 10 << 26 | (uint32_t)(h >> 38) };
}

static uint32_t tick_of(uint64_t now_ns)
{
    return (uint32_t)(now_ns >> TICK_SHIFT);
}

/* Return the age in ticks.  It is negative if another process has read the clock later. */
static int32_t age_of(uint64_t word, uint32_t tick)
{
    return word ? (int32_t)(tick - (uint32_t)word) : INT32_MAX;
}

/* Open or renew a query.  Two lanes that take one word at the same instant lose the query of one of them. */
static void open_query(const struct mp_region *r, const uint8_t address[16], uint16_t port, uint64_t now_ns)
{
    struct place at = place_of(r, address, port);
    uint32_t tick = tick_of(now_ns), oldest = 0;
    int32_t age = INT32_MIN;
    for (uint32_t i = 0; i < MP_QUERY_WAYS; i++) {
        uint64_t word = atomic_load_explicit(&at.way[i], memory_order_relaxed);
        int32_t each = age_of(word, tick);
        if (word && word >> 32 == at.name) {
            if (each > 0)
                atomic_store_explicit(&at.way[i], (uint64_t)at.name << 32 | tick, memory_order_relaxed);
            return;
        }
        if (each > age) {
            age = each;
            oldest = i;
        }
    }
    atomic_store_explicit(&at.way[oldest], (uint64_t)at.name << 32 | tick, memory_order_relaxed);
}

static int is_open(const struct mp_region *r, const uint8_t address[16], uint16_t port, uint64_t now_ns)
{
    struct place at = place_of(r, address, port);
    for (uint32_t i = 0; i < MP_QUERY_WAYS; i++) {
        uint64_t word = atomic_load_explicit(&at.way[i], memory_order_relaxed);
        if (word && word >> 32 == at.name)
            return age_of(word, tick_of(now_ns)) < OPEN_TICKS;
    }
    return 0;
}

/* ---- rules ---- */

static int is_listed(const struct mp_policy *policy, uint16_t port)
{
    return policy->unicast_port[port / 8] >> port % 8 & 1;
}

static int has_ports(const struct mp_transport *t)
{
    return t->protocol == MP_PROTO_UDP || t->protocol == MP_PROTO_TCP;
}

/* RFC 792: unreachable, time exceeded, parameter problem; RFC 4443 §2.1: types below 5, packet too big among them. */
static int is_icmp_error(const struct mp_packet *p, uint8_t type)
{
    return p->version == 4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
}

static int is_icmp_echo(const struct mp_packet *p, uint8_t type)
{
    return p->version == 4 ? type == 0 || type == 8 : type == 128 || type == 129;
}

static int is_icmp_allowed(const struct mp_policy *policy, const struct mp_packet *p, uint8_t type)
{
    if (is_icmp_error(p, type) || policy->unicast == MP_UNICAST_ALL)
        return 1;
    return policy->unicast == MP_UNICAST_DISCOVERY && is_icmp_echo(p, type);
}

/* Return whether a packet passes by what it has in place of ports. */
static int passes_without_port(const struct mp_policy *policy, const struct mp_packet *p, const struct mp_transport *t)
{
    if (t->is_later_fragment)
        return policy->unicast != MP_UNICAST_NONE || policy->has_unicast_ports;
    int is_icmp = t->protocol == (p->version == 4 ? MP_PROTO_ICMP : MP_PROTO_ICMPV6);
    return is_icmp && is_icmp_allowed(policy, p, t->icmp_type);
}

uint32_t mp_unicast_sends(const struct mp_policy *policy, const struct mp_region *r, const uint8_t *bytes,
                          const struct mp_packet *p, uint64_t now_ns)
{
    struct mp_transport t;
    int fits = mp_packet_transport(bytes, p, &t), is_first = fits && !t.is_later_fragment;
    if (p->class != MP_CLASS_UNICAST) {
        if (is_first && t.protocol == MP_PROTO_UDP)
            open_query(r, p->source, t.source_port, now_ns);
        return 0;
    }
    if (is_first && has_ports(&t))
        return is_listed(policy, t.source_port) ? 0 : MP_DROP_unicast_denied;
    return fits && passes_without_port(policy, p, &t) ? 0 : MP_DROP_unicast_denied;
}

uint32_t mp_unicast_delivers(const struct mp_policy *policy, const struct mp_region *r, const uint8_t *bytes,
                             const struct mp_packet *p, uint64_t now_ns)
{
    struct mp_transport t;
    if (!mp_packet_transport(bytes, p, &t))
        return MP_DROP_unicast_denied;
    if (t.is_later_fragment || !has_ports(&t))
        return passes_without_port(policy, p, &t) ? 0 : MP_DROP_unicast_denied;
    if (is_listed(policy, t.destination_port))
        return 0;
    int is_reply = policy->unicast == MP_UNICAST_DISCOVERY && t.protocol == MP_PROTO_UDP;
    return is_reply && is_open(r, p->destination, t.destination_port, now_ns) ? 0 : MP_DROP_unicast_denied;
}
