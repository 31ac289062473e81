/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: lists, sources and rates admit the packets that they should, and no others.
 * Method: prefixes of each length around their edges; entries of the forwarding table as control writes them; buckets
 * with a clock of the test's own, also from several threads.
 */
#include <arpa/inet.h>
#include <pthread.h>

#include "actor.h"
#include "mp_fib.h"
#include "mp_policy.h"

static void put_v4(uint8_t out[16], const char *text)
{
    memset(out, 0, 16);
    out[10] = out[11] = 0xff;
    CHECK_EQUAL(inet_pton(AF_INET, text, out + 12), 1);
}

static void put(uint8_t out[16], const char *text)
{
    if (strchr(text, ':'))
        CHECK_EQUAL(inet_pton(AF_INET6, text, out), 1);
    else
        put_v4(out, text);
}

static void add(struct mp_prefixes *list, const char *text, uint8_t bits)
{
    struct mp_prefix *p = &list->prefix[list->count++];
    put(p->address, text);
    p->bits = (uint8_t)(bits + (strchr(text, ':') ? 0 : 96));
}

static struct mp_packet packet(const char *from, const char *to, uint8_t class)
{
    struct mp_packet p = { .class = class, .version = strchr(to, ':') ? 6 : 4 };
    put(p.source, from);
    put(p.destination, to);
    return p;
}

static uint32_t delivers(const struct mp_policy *policy, const char *group)
{
    struct mp_packet p = packet("10.77.0.1", group, MP_CLASS_GROUP);
    return mp_policy_delivers(policy, &p);
}

static void empty_lists_allow_all(void)
{
    static const struct mp_policy policy;
    CHECK_EQUAL(delivers(&policy, "239.1.2.3"), 0);
    CHECK_EQUAL(delivers(&policy, "ff15::1"), 0);
}

static void lists_deny_before_they_allow(void)
{
    static struct mp_policy policy;
    add(&policy.receive_allow, "239.1.0.0", 16);
    add(&policy.receive_allow, "ff15::", 16);
    add(&policy.receive_allow, "224.0.0.251", 32);
    add(&policy.receive_deny, "239.1.2.4", 30);
    CHECK_EQUAL(delivers(&policy, "239.1.2.3"), 0);
    CHECK_EQUAL(delivers(&policy, "239.1.2.4"), MP_DROP_group_denied);
    CHECK_EQUAL(delivers(&policy, "239.1.2.7"), MP_DROP_group_denied);
    CHECK_EQUAL(delivers(&policy, "239.1.2.8"), 0);
    CHECK_EQUAL(delivers(&policy, "239.0.255.255"), MP_DROP_group_denied);
    CHECK_EQUAL(delivers(&policy, "239.2.0.0"), MP_DROP_group_denied);
    CHECK_EQUAL(delivers(&policy, "224.0.0.251"), 0);
    CHECK_EQUAL(delivers(&policy, "224.0.0.250"), MP_DROP_group_denied);
    CHECK_EQUAL(delivers(&policy, "ff15::ffff"), 0);
    CHECK_EQUAL(delivers(&policy, "ff05::1"), MP_DROP_group_denied);
    struct mp_packet unicast = packet("10.77.0.1", "10.77.0.2", MP_CLASS_UNICAST);
    CHECK_EQUAL(mp_policy_delivers(&policy, &unicast), 0);
}

static void prefixes_match_at_each_length(void)
{
    for (uint32_t bits = 0; bits <= 128; bits++) {
        static struct mp_policy policy;
        memset(&policy, 0, sizeof policy);
        policy.receive_deny.count = 1;
        policy.receive_deny.prefix[0].bits = (uint8_t)bits;
        struct mp_packet p = { .class = MP_CLASS_GROUP };
        for (uint32_t bit = 0; bit <= 128; bit++) {      /* 128: an equal address */
            memset(p.destination, 0, sizeof p.destination);
            if (bit < 128)
                p.destination[bit / 8] = (uint8_t)(0x80 >> bit % 8);
            CHECK_EQUAL(mp_policy_delivers(&policy, &p), bit < bits ? 0 : MP_DROP_group_denied);
        }
    }
}

static void sources_belong_to_their_nodes(void)
{
    static const struct mp_policy open, bound = { .bound_sources = 1 };
    struct mp_region *r = actor_region(&actor_small);
    struct mp_fib_writer *w = mp_fib_writer_new(r);
    struct mp_fib_key key = { .via = MP_NO_LINK, .side = MP_SIDE_OVERLAY, .kind = MP_KIND_SOURCE, .origin = 7 };
    struct mp_fib_value value = { 0 };
    put(key.group, "10.77.0.7");
    CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    key.side = MP_SIDE_HOST;
    key.origin = 0;
    put(key.group, "10.77.0.1");
    CHECK_EQUAL(mp_fib_set(w, &key, &value), 0);
    struct mp_packet theirs = packet("10.77.0.7", "239.1.2.3", MP_CLASS_GROUP);
    struct mp_packet ours = packet("10.77.0.1", "239.1.2.3", MP_CLASS_GROUP);
    struct mp_packet local = packet("fe80::1", "ff02::fb", MP_CLASS_FLOOD);
    CHECK_EQUAL(mp_policy_passes(&bound, r, &theirs, 7), 0);
    CHECK_EQUAL(mp_policy_passes(&bound, r, &theirs, 8), MP_DROP_foreign_source);
    CHECK_EQUAL(mp_policy_passes(&bound, r, &ours, 7), MP_DROP_foreign_source);
    CHECK_EQUAL(mp_policy_passes(&open, r, &ours, 7), 0);
    CHECK_EQUAL(mp_policy_passes(&bound, r, &local, 7), 0);
    CHECK_EQUAL(mp_policy_sends(&bound, r, &ours), 0);
    CHECK_EQUAL(mp_policy_sends(&bound, r, &theirs), MP_DROP_foreign_source);
    /* entries of sources cause no further look-up of groups */
    CHECK_EQUAL(atomic_load(&mp_fib(r)->specific[MP_SIDE_OVERLAY]), 0);
    mp_fib_writer_free(w);
    actor_unmap(r);
}

#define S UINT64_C(1000000000)

static uint32_t passed(struct mp_region *r, uint32_t slot, uint32_t pps, uint64_t from, uint64_t until, uint64_t step)
{
    uint32_t n = 0;
    for (uint64_t now = from; now < until; now += step)
        n += (uint32_t)mp_rate_take(r, MP_RATE_RECEIVE, slot, pps, now);
    return n;
}

static void rates_pass_bursts_of_one_second(void)
{
    struct mp_region *r = actor_region(&actor_small);
    uint64_t t = 1000 * S;
    CHECK_EQUAL(passed(r, 1, 0, t, t + S, S / 1000), 1000);                 /* no limit */
    CHECK_EQUAL(passed(r, 2, 100, t, t + S, S / 100), 100);                 /* exactly the rate */
    uint32_t flood = passed(r, 3, 100, t, t + 10 * S, S / 10000);           /* a hundred times the rate */
    CHECK(flood >= 1000 && flood <= 1101);
    CHECK(passed(r, 3, 100, t + 10 * S, t + 11 * S, S / 10000) <= 101);     /* no burst after a flood */
    CHECK(passed(r, 3, 100, t + 20 * S, t + 20 * S + 1, 1) == 1);
    CHECK_EQUAL(passed(r, 4, 1, t, t + 10 * S, S / 100), 10 + 0);           /* one a second: a burst of one */
    CHECK_EQUAL(passed(r, 5, 100, t, t + S, S / 100), 100);                 /* other slots are not affected */
    CHECK(mp_rate_take(r, MP_RATE_PEER, 3, 100, t + 10 * S));
    actor_unmap(r);
}

/* Neighbouring groups, the usual case, have rates of their own. */
static void neighbouring_groups_have_own_slots(void)
{
    static uint8_t used[MP_RATE_SLOTS];
    struct mp_region *r = actor_region(&actor_small);
    uint32_t distinct = 0;
    uint8_t group[16];
    for (uint32_t i = 0; i < 4096; i++) {
        put_v4(group, "239.1.0.0");
        group[14] = (uint8_t)(i >> 8);
        group[15] = (uint8_t)i;
        uint32_t slot = mp_rate_slot(r, group);
        CHECK(slot < MP_RATE_SLOTS);
        distinct += !used[slot];
        used[slot] = 1;
    }
    CHECK(distinct > 3400);     /* random ones: 3,624 */
    actor_unmap(r);
}

struct share {
    struct mp_region *r;
    uint32_t passed;
};

static void *take_many(void *argument)
{
    struct share *s = argument;
    for (uint32_t i = 0; i < 100000; i++)
        s->passed += (uint32_t)mp_rate_take(s->r, MP_RATE_SEND, 9, 5000, 77 * S);
    return NULL;
}

static void lanes_share_a_rate(void)
{
    struct mp_region *r = actor_region(&actor_small);
    struct share share[2] = { { .r = r }, { .r = r } };
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(pthread_create(&thread[i], NULL, take_many, &share[i]), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(pthread_join(thread[i], NULL), 0);
    CHECK_EQUAL(share[0].passed + share[1].passed, 5000);
    actor_unmap(r);
}

int main(void)
{
    RUN(empty_lists_allow_all);
    RUN(lists_deny_before_they_allow);
    RUN(prefixes_match_at_each_length);
    RUN(sources_belong_to_their_nodes);
    RUN(rates_pass_bursts_of_one_second);
    RUN(neighbouring_groups_have_own_slots);
    RUN(lanes_share_a_rate);
    return 0;
}
