/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: [security] unicast passes what its table (mp_unicast.h) states, and nothing else: by ports, by the ICMP type,
 * as a reply to a query, for its time; and packets that share a datagram each get their own verdict.
 * Method: packets of each kind against each policy, with a clock of the test's own; the stages of network.h.
 */
#include <pthread.h>

#include "network.h"
#include "actor.h"
#include "mp_stage.h"
#include "mp_unicast.h"

#define S UINT64_C(1000000000)
#define HERE_V4 "10.77.0.1"
#define PEER_V4 "10.77.0.7"
#define ICMP_V4 1
#define TCP 6
#define UDP 17
#define ICMP_V6 58
#define SCTP 132

/* A packet in its bytes. */
struct made {
    uint8_t bytes[256];
    uint32_t length;
    struct mp_packet packet;
};

static struct made finished(struct made m, uint32_t length)
{
    m.length = length;
    if (m.bytes[0] >> 4 == 4) {
        mp_put16(m.bytes + 2, length);
        mp_put16(m.bytes + 10, 0);
        mp_put16(m.bytes + 10, ~mp_checksum_add(m.bytes, (uint32_t)(m.bytes[0] & 15) * 4, 0));
    } else {
        mp_put16(m.bytes + 4, length - 40);
    }
    CHECK_EQUAL(mp_packet_parse(m.bytes, length, &m.packet), 0);
    return m;
}

/* Make a packet whose upper layer begins with two ports; an ICMP type is the high byte of the first. */
static struct made make(const char *from, const char *to, uint8_t protocol, uint32_t first, uint32_t second)
{
    struct made m = { 0 };
    int is_v6 = strchr(to, ':') != NULL;
    uint32_t header = is_v6 ? 40 : 20;
    m.bytes[0] = is_v6 ? 0x60 : 0x45;
    m.bytes[is_v6 ? 6 : 9] = protocol;
    CHECK_EQUAL(inet_pton(is_v6 ? AF_INET6 : AF_INET, from, m.bytes + (is_v6 ? 8 : 12)), 1);
    CHECK_EQUAL(inet_pton(is_v6 ? AF_INET6 : AF_INET, to, m.bytes + (is_v6 ? 24 : 16)), 1);
    mp_put16(m.bytes + header, first);
    mp_put16(m.bytes + header + 2, second);
    return finished(m, header + 20);
}

/* Insert an IPv6 extension header of `bytes` behind the fixed header. */
static struct made extended(struct made m, uint8_t kind, uint32_t bytes, uint16_t fragment)
{
    memmove(m.bytes + 40 + bytes, m.bytes + 40, m.length - 40);
    memset(m.bytes + 40, 0, bytes);
    m.bytes[40] = m.bytes[6];
    m.bytes[41] = (uint8_t)(kind == 44 ? 0 : bytes / 8 - 1);
    mp_put16(m.bytes + 42, fragment);
    m.bytes[6] = kind;
    return finished(m, m.length + bytes);
}

static struct made fragment_v4(struct made m, uint16_t word)
{
    mp_put16(m.bytes + 6, word);
    return finished(m, m.length);
}

static struct mp_policy policy_of(uint32_t unicast, uint32_t port)
{
    struct mp_policy policy = { .unicast = unicast, .has_unicast_ports = port != 0 };
    if (port)
        policy.unicast_port[port / 8] = (uint8_t)(1 << port % 8);
    return policy;
}

static struct mp_region *region;

static int delivers(const struct mp_policy *policy, struct made m, uint64_t now)
{
    CHECK_EQUAL(m.packet.class, MP_CLASS_UNICAST);
    CHECK_EQUAL(mp_policy_delivers(policy, &m.packet), MP_EACH_PACKET);
    uint32_t verdict = mp_unicast_delivers(policy, region, m.bytes, &m.packet, now);
    CHECK(verdict == 0 || verdict == MP_DROP_unicast_denied);
    return !verdict;
}

static int sends(const struct mp_policy *policy, struct made m, uint64_t now)
{
    uint32_t verdict = mp_policy_sends(policy, region, &m.packet);
    if (verdict == MP_EACH_PACKET)
        verdict = mp_unicast_sends(policy, region, m.bytes, &m.packet, now);
    CHECK(verdict == 0 || verdict == MP_DROP_unicast_denied);
    return !verdict;
}

/* Check a packet to this host, port 80, against the four policies: all with port 80, discovery, discovery with port 80,
 * none, none with port 80.  `expected` has a letter each: y or n. */
static void expect(const char *expected, struct made m)
{
    struct mp_policy policy[] = { policy_of(MP_UNICAST_ALL, 80), policy_of(MP_UNICAST_DISCOVERY, 0),
                                  policy_of(MP_UNICAST_DISCOVERY, 80), policy_of(MP_UNICAST_NONE, 0),
                                  policy_of(MP_UNICAST_NONE, 80) };
    for (uint32_t i = 0; i < 5; i++)
        CHECK_EQUAL(delivers(&policy[i], m, 100 * S), expected[i] == 'y');
}

static void default_policy_looks_at_no_packet(void)
{
    static const struct mp_policy all;
    struct made unicast = make(PEER_V4, HERE_V4, UDP, 1, 80), group = make(HERE_V4, "239.1.2.3", UDP, 1, 80);
    CHECK_EQUAL(mp_policy_delivers(&all, &unicast.packet), 0);
    CHECK_EQUAL(mp_policy_sends(&all, region, &unicast.packet), 0);
    CHECK_EQUAL(mp_policy_sends(&all, region, &group.packet), 0);
    struct mp_policy discovery = policy_of(MP_UNICAST_DISCOVERY, 0), none = policy_of(MP_UNICAST_NONE, 0);
    CHECK_EQUAL(mp_policy_delivers(&discovery, &group.packet), 0);
    CHECK_EQUAL(mp_policy_sends(&discovery, region, &unicast.packet), 0);
    CHECK_EQUAL(mp_policy_sends(&none, region, &group.packet), 0);
}

static void ports_decide_about_services(void)
{
    expect("ynyny", make(PEER_V4, HERE_V4, UDP, 9, 80));
    expect("ynyny", make(PEER_V4, HERE_V4, TCP, 9, 80));
    expect("nnnnn", make(PEER_V4, HERE_V4, UDP, 80, 81));
    expect("nnnnn", make(PEER_V4, HERE_V4, TCP, 80, 79));
    expect("nnnnn", make(PEER_V4, HERE_V4, SCTP, 9, 80));
    expect("ynyny", make("fd77::7", "fd77::1", UDP, 9, 80));
    expect("ynyny", make("fe80::7", "fe80::1", TCP, 9, 80));
    expect("nnnnn", make("fe80::7", "fe80::1", UDP, 9, 81));
    expect("nnnnn", make("fd77::7", "fd77::1", ICMP_V4, 0x0300, 0));    /* ICMP of the other family */
    expect("nnnnn", make(PEER_V4, HERE_V4, ICMP_V6, 0x0100, 0));
}

static void icmp_passes_by_its_type(void)
{
    for (uint32_t type = 0; type < 256; type++) {
        int is_error = type == 3 || type == 11 || type == 12, is_echo = type == 0 || type == 8;
        expect(is_error ? "yyyyy" : is_echo ? "yyynn" : "ynnnn", make(PEER_V4, HERE_V4, ICMP_V4, type << 8, 0));
        if ((type >= 130 && type <= 132) || type == 143)
            continue;           /* MLD is no unicast */
        is_error = type >= 1 && type <= 4, is_echo = type == 128 || type == 129;
        expect(is_error ? "yyyyy" : is_echo ? "yyynn" : "ynnnn", make("fd77::7", "fd77::1", ICMP_V6, type << 8, 0));
    }
}

static void headers_before_the_ports_are_passed_over(void)
{
    struct made open = make("fd77::7", "fd77::1", UDP, 9, 80), closed = make("fd77::7", "fd77::1", UDP, 9, 81);
    static const uint8_t kinds[] = { 0, 43, 60 };
    for (size_t i = 0; i < sizeof kinds; i++)
        for (uint32_t bytes = 8; bytes <= 48; bytes += 8) {
            expect("ynyny", extended(open, kinds[i], bytes, 0));
            expect("nnnnn", extended(closed, kinds[i], bytes, 0));
        }
    for (uint32_t i = 0; i < 8; i++)
        open = extended(open, 60, 8, 0);
    expect("ynyny", open);
    expect("nnnnn", extended(open, 60, 8, 0));          /* too many */
    open = make("fd77::7", "fd77::1", UDP, 9, 80);
    expect("nnnnn", finished(open, 43));                /* half a port */
    open = extended(open, 60, 8, 0);
    open.bytes[41] = 200;                               /* longer than the packet */
    expect("nnnnn", open);
    open = make(PEER_V4, HERE_V4, UDP, 80, 80);
    open.bytes[0] = 0x46;                               /* options where the ports were */
    expect("nnnnn", finished(open, open.length));
    mp_put16(open.bytes + 26, 80);
    expect("ynyny", finished(open, open.length));
}

static void later_fragments_pass_where_first_ones_can(void)
{
    struct made open = make(PEER_V4, HERE_V4, UDP, 9, 80), closed = make(PEER_V4, HERE_V4, UDP, 9, 81);
    expect("ynyny", fragment_v4(open, 0x2000));
    expect("nnnnn", fragment_v4(closed, 0x2000));
    expect("yyyny", fragment_v4(closed, 0x2001));
    expect("yyyny", fragment_v4(closed, 100));
    open = make("fd77::7", "fd77::1", UDP, 9, 80), closed = make("fd77::7", "fd77::1", UDP, 9, 81);
    expect("ynyny", extended(open, 44, 8, 1));
    expect("ynyny", extended(open, 44, 8, 0));          /* an atomic fragment: RFC 6946 */
    expect("nnnnn", extended(closed, 44, 8, 1));
    expect("nnnnn", extended(closed, 44, 8, 0));
    expect("yyyny", extended(closed, 44, 8, 8 | 1));
    expect("ynyny", extended(extended(open, 44, 8, 1), 60, 8, 0));
    expect("nnnnn", extended(extended(open, 60, 8, 0), 44, 8, 1));      /* a later fragment could hold the ports */
    expect("yyyny", extended(extended(closed, 60, 8, 0), 44, 8, 8));
}

static void only_none_limits_what_is_sent(void)
{
    struct mp_policy discovery = policy_of(MP_UNICAST_DISCOVERY, 0), ports = policy_of(MP_UNICAST_ALL, 80);
    struct mp_policy none = policy_of(MP_UNICAST_NONE, 0), few = policy_of(MP_UNICAST_NONE, 80);
    struct made from_port = make(HERE_V4, PEER_V4, TCP, 80, 9), other = make(HERE_V4, PEER_V4, UDP, 81, 80);
    struct made error = make("fd77::1", "fd77::7", ICMP_V6, 0x0200, 0);
    struct made ping = make(HERE_V4, PEER_V4, ICMP_V4, 0x0800, 0);
    struct made later = fragment_v4(other, 2), group = make(HERE_V4, "239.1.2.3", UDP, 81, 80);
    CHECK(sends(&discovery, other, S) && sends(&ports, other, S) && sends(&discovery, ping, S));
    CHECK(!sends(&none, from_port, S) && !sends(&none, other, S) && !sends(&none, ping, S) && !sends(&none, later, S));
    CHECK(sends(&few, from_port, S) && !sends(&few, other, S) && !sends(&few, ping, S) && sends(&few, later, S));
    CHECK(sends(&none, error, S) && sends(&few, error, S) && sends(&none, group, S));
}

static void query_opens_its_port_for_its_time(void)
{
    struct mp_policy discovery = policy_of(MP_UNICAST_DISCOVERY, 0), none = policy_of(MP_UNICAST_NONE, 80);
    static const char *const own[] = { HERE_V4, "fd77::1", "fe80::1" };
    static const char *const peer[] = { PEER_V4, "fd77::7", "fe80::7" };
    static const char *const group[] = { "239.255.255.250", "ff05::c", "ff02::fb" };
    uint64_t now = 1000 * S;
    for (uint32_t i = 0; i < 3; i++, now += 1000 * S) {
        struct made query = make(own[i], group[i], UDP, 40000, 1900), reply = make(peer[i], own[i], UDP, 1900, 40000);
        CHECK(!delivers(&discovery, reply, now));
        CHECK(sends(&discovery, query, now));
        CHECK(delivers(&discovery, reply, now) && delivers(&discovery, reply, now + 29 * S));
        CHECK(delivers(&discovery, reply, now - S / 10));               /* another process has read the clock */
        CHECK(!delivers(&discovery, reply, now + 31 * S));
        CHECK(!delivers(&discovery, make(peer[i], own[i], TCP, 1900, 40000), now));
        CHECK(!delivers(&none, reply, now));
        CHECK(sends(&discovery, query, now + 20 * S));                  /* renewed */
        CHECK(delivers(&discovery, reply, now + 49 * S) && !delivers(&discovery, reply, now + 51 * S));
    }
    struct made later = fragment_v4(make(HERE_V4, "239.1.2.3", UDP, 41000, 9), 2);
    struct made tcp = make(HERE_V4, "239.1.2.3", TCP, 41000, 9);
    CHECK(sends(&discovery, later, now) && sends(&discovery, tcp, now));
    CHECK(!delivers(&discovery, make(PEER_V4, HERE_V4, UDP, 9, 41000), now));
}

static void no_other_port_is_open(void)
{
    struct mp_policy discovery = policy_of(MP_UNICAST_DISCOVERY, 0);
    uint64_t now = 9000 * S;
    for (uint32_t port = 1; port < 65536; port += 1013)
        CHECK(sends(&discovery, make("fd77::2", "ff02::fb", UDP, port, 5353), now));
    for (uint32_t port = 1; port < 65536; port++) {
        CHECK_EQUAL(delivers(&discovery, make("fd77::7", "fd77::2", UDP, 9, port), now), port % 1013 == 1);
        CHECK(!delivers(&discovery, make("fd77::7", "fd77::3", UDP, 9, port), now));
    }
}

/* Ports that differ by 1,024 share the places of a set. */
static void oldest_query_gives_way(void)
{
    struct mp_policy discovery = policy_of(MP_UNICAST_DISCOVERY, 0);
    uint64_t now = 20000 * S;
    for (uint32_t i = 0; i < 4; i++)
        CHECK(sends(&discovery, make(HERE_V4, "239.1.2.3", UDP, 7 + 1024 * i, 9), now + i * S));
    CHECK(sends(&discovery, make(HERE_V4, "239.1.2.3", UDP, 7, 9), now + 5 * S));
    CHECK(sends(&discovery, make(HERE_V4, "239.1.2.3", UDP, 7 + 1024 * 4, 9), now + 6 * S));
    for (uint32_t i = 0; i < 5; i++)
        CHECK_EQUAL(delivers(&discovery, make(PEER_V4, HERE_V4, UDP, 9, 7 + 1024 * i), now + 7 * S), i != 1);
}

static void *open_and_close(void *argument)
{
    struct mp_policy discovery = policy_of(MP_UNICAST_DISCOVERY, 0);
    uint32_t lane = (uint32_t)(uintptr_t)argument, opened = 0;
    for (uint32_t i = 0; i < CHECK_SCALE(200000); i++) {
        uint64_t now = 30000 * S + i * (S / 1000);
        struct made query = make(HERE_V4, "239.1.2.3", UDP, 2000 + lane + i % 64 * 2, 9);
        sends(&discovery, query, now);
        opened += (uint32_t)delivers(&discovery, make(PEER_V4, HERE_V4, UDP, 9, 2000 + lane + i % 64 * 2), now);
        CHECK(!delivers(&discovery, make(PEER_V4, HERE_V4, UDP, 9, 4000 + i % 512), now));
    }
    CHECK(opened == CHECK_SCALE(200000));
    return NULL;
}

/* Two lanes write ports of their own, which never share a set, and read those of both. */
static void lanes_share_the_table(void)
{
    pthread_t thread[2];
    for (uintptr_t i = 0; i < 2; i++)
        CHECK_EQUAL(pthread_create(&thread[i], NULL, open_and_close, (void *)i), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(pthread_join(thread[i], NULL), 0);
}

/* ---- stages ---- */

#define HERE 0x0a4d0001u        /* the source of make_packet() */

/* Send a packet from node 0 to a port of node 1.  Its UDP checksum is left out. */
static void send_to_port(uint32_t port)
{
    uint8_t packet[2048];
    uint32_t length = make_packet(packet, HERE, 40, 0);
    mp_put16(packet + 22, port);
    mp_put16(packet + 26, 0);
    write_host(0, packet, length);
}

static uint32_t port_read(void)
{
    uint8_t got[70000], vnet[MP_VNET_BYTES];
    return read_host(1, got, vnet) ? mp_get16(got + 22) : 0;
}

static void open_nodes(int sealed)
{
    open_network(sealed, 1);
    set_route(0, MP_SIDE_HOST, MP_KIND_UNICAST, HERE, 1 << 1, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_UNICAST, HERE, 0, 1);
    set_route(1, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 0, 0);
}

/* Packets that share a datagram get a verdict each. */
static void stage_drops_what_is_not_allowed(int sealed)
{
    open_nodes(sealed);
    nodes[1].worker->policy = policy_of(MP_UNICAST_DISCOVERY, 80);
    for (uint32_t port = 78; port < 83; port++)
        send_to_port(port);
    run_all(2);
    CHECK_EQUAL(counted(0, MP_COUNT_sealed), 1);
    CHECK_EQUAL(port_read(), 80);
    CHECK_EQUAL(port_read(), 0);
    CHECK_EQUAL(counted(1, MP_DROP_unicast_denied), 4);
    close_network();
}

static void stage_passes_replies_to_queries(void)
{
    uint8_t packet[2048];
    open_nodes(1);
    nodes[1].worker->policy = policy_of(MP_UNICAST_DISCOVERY, 0);
    send_to_port(5000);
    run_all(2);
    CHECK_EQUAL(port_read(), 0);
    write_host(1, packet, make_packet(packet, GROUP, 10, 0));   /* from port 5000 */
    run_all(2);
    send_to_port(5000);
    send_to_port(5001);
    run_all(2);
    CHECK_EQUAL(port_read(), 5000);
    CHECK_EQUAL(port_read(), 0);
    CHECK_EQUAL(counted(1, MP_DROP_unicast_denied), 2);
    close_network();
}

static void stage_sends_nothing_with_none(void)
{
    open_nodes(1);
    nodes[0].worker->policy = policy_of(MP_UNICAST_NONE, 0);
    send_to_port(80);
    run_all(2);
    CHECK_EQUAL(port_read(), 0);
    CHECK_EQUAL(counted(0, MP_DROP_unicast_denied), 1);
    CHECK_EQUAL(counted(0, MP_COUNT_sealed), 0);
    close_network();
}

static void sealed_stage_drops_what_is_not_allowed(void) { stage_drops_what_is_not_allowed(1); }
static void insecure_stage_drops_what_is_not_allowed(void) { stage_drops_what_is_not_allowed(0); }

int main(void)
{
    region = actor_region(&actor_small);
    RUN(default_policy_looks_at_no_packet);
    RUN(ports_decide_about_services);
    RUN(icmp_passes_by_its_type);
    RUN(headers_before_the_ports_are_passed_over);
    RUN(later_fragments_pass_where_first_ones_can);
    RUN(only_none_limits_what_is_sent);
    RUN(query_opens_its_port_for_its_time);
    RUN(no_other_port_is_open);
    RUN(oldest_query_gives_way);
    RUN(lanes_share_the_table);
    RUN(sealed_stage_drops_what_is_not_allowed);
    RUN(insecure_stage_drops_what_is_not_allowed);
    RUN(stage_passes_replies_to_queries);
    RUN(stage_sends_nothing_with_none);
    actor_unmap(region);
    return 0;
}
