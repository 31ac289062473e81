/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: what a stream lacks is seen, reported once it has been missing for a while, and sent once more out of the slots that
 * a peer has kept; nothing is seen missing that is not, and no slot that is kept is overwritten.
 * Method: bit maps by hand and against a naive model (seeded), from two actors at once; orders until the ring is full; and
 * the three nodes of network.h, where a datagram is "lost" by a route that leaves a node out.
 */
#include "actor.h"
#include "network.h"

#include "mp_repair_gaps.h"
#include "mp_repair_track.h"
#include "mp_repair_buffer.h"
#include "mp_repair_requests.h"

#define STREAM 1u               /* of network.h's entries */

static struct mp_region *region;

static struct mp_repair_track *find(uint32_t origin, uint32_t stream, uint8_t epoch, uint32_t sequence)
{
    return mp_repair_track_find(region, mp_repair_track_name(origin, stream, epoch), sequence);
}

static int note(struct mp_repair_track *h, uint32_t sequence)
{
    return mp_repair_track_mark(h, sequence, 1);
}

static uint32_t missing(const struct mp_repair_track *h, uint32_t *out, uint32_t most)
{
    return mp_repair_track_missing(h, atomic_load(&h->highest), out, most);
}

/* ---- what has come ---- */

static void gaps_by_hand(void)
{
    static const uint32_t starts[] = { 0, 31, 32, 1000, UINT32_MAX - 100, UINT32_MAX };
    uint32_t out[MP_REPAIR_TRACK_NUMBERS];
    region = actor_region(&actor_small);
    for (uint32_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        uint32_t at = starts[i];
        struct mp_repair_track *h = find(7, 1 + i, 3, at);
        CHECK(h == find(7, 1 + i, 3, at) && mp_repair_track_is(h, mp_repair_track_name(7, 1 + i, 3)));
        CHECK_EQUAL(note(h, at), 0);
        CHECK_EQUAL(missing(h, out, 99), 0);
        CHECK_EQUAL(note(h, at + 1), 0);
        CHECK_EQUAL(note(h, at + 5), 1);
        CHECK(missing(h, out, 99) == 3 && out[0] == at + 2 && out[1] == at + 3 && out[2] == at + 4);
        CHECK(missing(h, out, 2) == 2 && out[0] == at + 3 && out[1] == at + 4);
        CHECK(mp_repair_track_missing(h, at + 3, out, 99) == 2 && out[1] == at + 3);
        CHECK_EQUAL(note(h, at + 3), 1);
        CHECK(missing(h, out, 99) == 2 && out[0] == at + 2 && out[1] == at + 4);
        CHECK(note(h, at + 2) && note(h, at + 4));
        CHECK_EQUAL(missing(h, out, 99), 0);
        CHECK_EQUAL(note(h, at + 5 + 3 * MP_REPAIR_TRACK_NUMBERS), 1);     /* an outage: as far back as is remembered */
        CHECK_EQUAL(missing(h, out, MP_REPAIR_TRACK_NUMBERS), MP_REPAIR_TRACK_NUMBERS - 33);
        CHECK_EQUAL(note(h, at + 6), 0);                            /* too old to matter */
    }
    actor_unmap(region);
}

static void new_lives_and_new_keys(void)
{
    uint32_t out[8];
    region = actor_region(&actor_small);
    struct mp_repair_track *h = find(7, 1, 3, 90000);
    note(h, 90000);
    note(h, 90002);
    CHECK(find(7, 1, 4, 90003) == h && missing(h, out, 8) == 1);    /* the key rotates: the stream goes on */
    CHECK(find(7, 1, 5, 2) == h && missing(h, out, 8) == 0);        /* the origin has restarted */
    CHECK(note(h, 2) == 0 && note(h, 4) == 1 && missing(h, out, 8) == 1 && out[0] == 3);
    CHECK(find(7, 2, 5, 2) != h && find(8, 1, 5, 2) != h);
    actor_unmap(region);
}

static void the_oldest_gives_way(void)
{
    region = actor_region(&actor_small);
    for (uint32_t i = 0; i < 20 * MP_REPAIR_TRACKS; i++) {
        struct mp_repair_track *h = find(i, 1 + i % 100, 0, i);
        mp_repair_track_mark(h, i, i + 1);
        CHECK(mp_repair_track_is(h, mp_repair_track_name(i, 1 + i % 100, 0)) && atomic_load(&h->highest) == i);
    }
    struct mp_repair_track *last = find(20 * MP_REPAIR_TRACKS - 1, 1 + (20 * MP_REPAIR_TRACKS - 1) % 100, 0, 5);
    CHECK_EQUAL(atomic_load(&last->highest), 20 * MP_REPAIR_TRACKS - 1);
    actor_unmap(region);
}

static void streams_are_listed(void)
{
    struct mp_tracked_stream out[MP_REPAIR_TRACKS];
    uint32_t sum = 0;
    region = actor_region(&actor_small);
    CHECK_EQUAL(mp_repair_track_list(region, out), 0);
    for (uint32_t i = 1; i <= 20; i++)
        note(find(UINT32_MAX - i, i, 3, UINT32_MAX), i);
    CHECK_EQUAL(mp_repair_track_list(region, out), 20);
    for (uint32_t i = 0; i < 20; i++) {
        CHECK(out[i].origin == UINT32_MAX - out[i].stream && out[i].highest == out[i].stream);
        sum += out[i].stream;
    }
    CHECK_EQUAL(sum, 210);
}

static void as_a_naive_model(void)
{
    enum { LENGTH = 20000 };
    static uint8_t come[LENGTH];
    uint32_t out[MP_REPAIR_TRACK_NUMBERS], next = 1;
    uint64_t seed = 5;
    region = actor_region(&actor_small);
    memset(come, 0, sizeof come);
    struct mp_repair_track *h = find(1, 1, 1, 0);
    come[0] = 1;
    note(h, 0);
    while (next < LENGTH) {
        uint32_t late = check_random(&seed, 4) ? 0 : check_random(&seed, 300);
        uint32_t n = late < next ? next - late : next;
        if (check_random(&seed, 50) == 0)
            next += check_random(&seed, 40);
        next += n == next;
        if (n >= LENGTH || come[n])
            continue;
        come[n] = 1;
        note(h, n);
        uint32_t highest = atomic_load(&h->highest), count = missing(h, out, MP_REPAIR_TRACK_NUMBERS), at = 0;
        uint32_t oldest = highest < MP_REPAIR_TRACK_NUMBERS - 33 ? 0 : highest - (MP_REPAIR_TRACK_NUMBERS - 33);
        for (uint32_t k = oldest; k <= highest; k++)
            if (!come[k])
                CHECK(at < count && out[at++] == k);
        CHECK_EQUAL(at, count);
    }
    actor_unmap(region);
}

struct half {
    struct mp_repair_track *heard;
    uint32_t parity;
};

static void note_half(void *argument)
{
    struct half *half = argument;
    for (uint32_t n = half->parity; n < CHECK_SCALE(400000u); n += 2)
        mp_repair_track_mark(half->heard, n, n);
}

/* Two lanes that each get every other datagram of a stream, in any rhythm: the last ones are all marked. */
static void from_two_lanes(void)
{
    struct actor actors[2];
    struct half halves[2];
    uint32_t out[MP_REPAIR_TRACK_NUMBERS];
    region = actor_region(&actor_small);
    struct mp_repair_track *h = find(1, 1, 1, 0);
    for (uint32_t i = 0; i < 2; i++) {
        halves[i] = (struct half){ h, i };
        actor_start(&actors[i], note_half, &halves[i]);
    }
    for (uint32_t i = 0; i < 2; i++)
        actor_join(&actors[i]);
    CHECK_EQUAL(atomic_load(&h->highest), CHECK_SCALE(400000u) - 1);
    CHECK_EQUAL(missing(h, out, MP_REPAIR_TRACK_NUMBERS), 0);
    actor_unmap(region);
}

/* ---- orders ---- */

static void orders(void)
{
    uint32_t numbers[MP_REPAIR_REQUEST_NUMBERS + 1] = { 5, 6 };
    region = actor_region(&actor_small);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 1, numbers, MP_REPAIR_REQUEST_NUMBERS + 1), -EINVAL);
    CHECK_EQUAL(mp_repair_request_add(region, MP_LINKS_MAX, 7, 1, numbers, 1), -EINVAL);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 0, numbers, 1), -EINVAL);    /* the shared stream is nobody's */
    for (uint32_t i = 0; i < MP_REPAIR_REQUESTS; i++)
        CHECK_EQUAL(mp_repair_request_add(region, i, 7, 1, numbers, 2), 0);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 1, numbers, 2), -ENOSPC);
    CHECK_EQUAL(mp_counter_sum(region, MP_COUNT_resend_asked, UINT32_MAX, UINT32_MAX), 2 * MP_REPAIR_REQUESTS + 2);
    CHECK_EQUAL(mp_counter_sum(region, MP_COUNT_resend_refused, UINT32_MAX, UINT32_MAX), 2);
    CHECK_EQUAL(mp_counter_sum(region, MP_COUNT_resend_refused, 0, UINT32_MAX), 0);
    CHECK_EQUAL(mp_repair_requests_ready(region, 3), MP_REPAIR_REQUESTS - 3);
    CHECK(mp_repair_requests(region)[3].link == 3 && mp_repair_requests(region)[3].count == 2 && mp_repair_requests(region)[3].number[1] == 6);
    atomic_store(&mp_lane(region, 0)->requests.at, 1);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 1, numbers, 2), 0);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 1, numbers, 2), -ENOSPC);
    actor_unmap(region);
}

#if !ACTORS_ARE_THREADS
/* ---- three nodes ---- */

/* Node 0 sends to both others; each is to keep what comes. */
static void open_repairing(uint64_t to)
{
    set_stripe(0, MP_SIDE_HOST, GROUP, 0, 1, to, MP_ENTRY_REPAIR);
    for (uint32_t node = 1; node < NODES; node++)
        set_stripe(node, MP_SIDE_OVERLAY, GROUP, 0, 1, 0, MP_ENTRY_LOCAL | MP_ENTRY_REPAIR);
}

static void send_packets(uint32_t first, uint32_t count)
{
    uint8_t packet[2048];
    for (uint32_t i = 0; i < count; i++)
        write_host(0, packet, make_packet(packet, GROUP, 1316, first + i));
    run_all(3);
}

/* What the node has delivered, as a bit set of packet numbers below 64. */
static uint64_t delivered(uint32_t node)
{
    uint8_t got[70000], vnet[MP_VNET_BYTES];
    uint64_t seen = 0;
    for (uint32_t length; (length = read_host(node, got, vnet));) {
        uint64_t bit = UINT64_C(1) << mp_get16(got + 4);
        CHECK(!(seen & bit));
        seen |= bit;
    }
    return seen;
}

/* Runs until the node has punted a gap. */
static void wait_gap(uint32_t node, struct mp_repair_gap *gap)
{
    for (double end = check_now_s() + 5; check_now_s() < end;) {
        uint32_t kind = 0;
        uint8_t bytes[2048];
        run_all(1);
        uint32_t length = mp_punt_take(nodes[node].worker, &kind, bytes, sizeof bytes);
        if (length && kind == MP_PUNT_GAP) {
            CHECK_EQUAL(length, sizeof *gap);
            memcpy(gap, bytes, sizeof *gap);
            return;
        }
    }
    CHECK(!"a gap is reported");
}

static void order(uint32_t node, uint32_t link, const struct mp_repair_gap *gap)
{
    CHECK_EQUAL(mp_repair_request_add(nodes[node].region, link, gap->origin, STREAM, gap->number, gap->count), 0);
    run_all(3);
}

static void sent_once_more(int sealed, uint32_t helper)
{
    struct mp_repair_gap gap;
    open_network(sealed, 0);
    open_repairing(1 << 1 | 1 << 2);
    send_packets(0, 10);
    open_repairing(1 << 2);
    send_packets(10, 3);        /* node 1 does not get these */
    CHECK_EQUAL(counted(1, MP_COUNT_gaps_told), 0);
    open_repairing(1 << 1 | 1 << 2);
    send_packets(13, 10);
    uint64_t first = delivered(1);      /* the rest waits for those that are missing, unless this machine is very slow */
    CHECK((first == (1 << 10) - 1 || first == ((1 << 23) - 1) - (7 << 10)) && delivered(2) == (1 << 23) - 1);
    wait_gap(1, &gap);
    CHECK(gap.origin == origin_of(0) && gap.stream == STREAM && gap.via == 0 && gap.count == 3);
    CHECK(gap.number[0] == 10 && gap.number[1] == 11 && gap.number[2] == 12);
    order(helper, 1, &gap);
    uint64_t then = delivered(1);
    CHECK((first & then) == 0 && (first | then) == (1 << 23) - 1);
    CHECK_EQUAL(counted(helper, MP_COUNT_resent), 3);
    CHECK_EQUAL(counted(helper, MP_COUNT_resent_bytes), 3 * (20 + 28 + 1316 + (sealed ? 16 : 0)));
    wait_gap(1, &gap);
    CHECK(gap.count == 0 && gap.via == helper);
    order(helper, 1, &(struct mp_repair_gap){ .origin = origin_of(0), .count = 2, .number = { 5, 999 } });
    CHECK_EQUAL(counted(helper, MP_COUNT_resent), 4);               /* it had 5, and nobody has 999 */
    CHECK(delivered(1) == 0 && counted(1, MP_DROP_replay) == 1);
    CHECK_EQUAL(counted(2, MP_COUNT_gaps_told), 0);
    close_network();
}

static void by_a_peer(void) { sent_once_more(1, 2); }
static void by_the_origin(void) { sent_once_more(0, 0); }

/* As many packets as fill the ring many times: the history is its last three quarters, whole and in place. */
static void history_is_bounded(void)
{
    uint32_t kept = 192, total = 5000;  /* of 256 slots */
    open_network(1, 0);
    open_repairing(1 << 1);
    for (uint32_t i = 0; i < total; i += 50) {
        send_packets(i, 50);
        uint8_t got[70000], vnet[MP_VNET_BYTES];
        while (read_host(1, got, vnet))
            ;
    }
    struct mp_repair_request order = { .origin = origin_of(0), .stream = STREAM };
    struct iovec iov[MP_REPAIR_REQUEST_NUMBERS];
    for (uint32_t n = 0; n < total; n += order.count) {
        for (order.count = 0; order.count < 50; order.count++)
            order.number[order.count] = n + order.count;
        uint32_t found = mp_repair_buffer_find(nodes[0].region, 0, &order, iov);
        uint32_t wanted = n + 50 <= total - kept ? 0 : n >= total - kept ? 50 : n + 50 - (total - kept);
        CHECK_EQUAL(found, wanted);
        for (uint32_t i = 0; i < found; i++) {
            struct mp_header h;
            CHECK_EQUAL(mp_header_read(iov[i].iov_base, (uint32_t)iov[i].iov_len, &h), 0);
            CHECK(h.origin == origin_of(0) && h.stream_sequence == n + 49 - i);
        }
    }
    order = (struct mp_repair_request){ .origin = origin_of(0), .stream = STREAM + 1, .count = 1, .number = { total - 1 } };
    CHECK_EQUAL(mp_repair_buffer_find(nodes[0].region, 0, &order, iov), 0);
    close_network();
}

/* Without an entry that asks for it nothing is kept, reported or sent once more. */
static void only_where_it_is_asked_for(void)
{
    open_network(1, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1 | 1 << 2, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    set_route(2, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    send_packets(0, 10);
    struct mp_repair_gap gap = { .origin = origin_of(0), .count = 1, .number = { 5 } };
    order(0, 1, &gap);
    order(2, 1, &gap);
    CHECK_EQUAL(counted(0, MP_COUNT_resent) + counted(2, MP_COUNT_resent) + counted(1, MP_DROP_replay), 0);
    CHECK_EQUAL(atomic_load(&mp_lane(nodes[0].region, 0)->host[2].freed), 10);
    CHECK_EQUAL(atomic_load(&mp_lane(nodes[2].region, 0)->overlay[0].at), 0);
    close_network();
}

/* A peer that asks for more than the limit gets no more than that. */
static void resends_are_limited(void)
{
    struct mp_repair_gap gap = { .origin = origin_of(0), .count = 50 };
    open_network(1, 0);
    open_repairing(1 << 1);
    send_packets(0, 50);
    delivered(1);
    for (uint32_t i = 0; i < 50; i++)
        gap.number[i] = i;
    for (uint32_t i = 0; i < 100; i++)
        order(0, 1, &gap);
    uint64_t resent = counted(0, MP_COUNT_resent), refused = counted(0, MP_COUNT_resend_refused);
    CHECK(resent >= 512 && refused > 0 && resent + refused == 5000);
    CHECK_EQUAL(delivered(1), 0);
    close_network();
}
#endif

int main(void)
{
    RUN(gaps_by_hand);
    RUN(new_lives_and_new_keys);
    RUN(the_oldest_gives_way);
    RUN(streams_are_listed);
    RUN(as_a_naive_model);
    RUN(from_two_lanes);
    RUN(orders);
#if !ACTORS_ARE_THREADS
    RUN(by_a_peer);
    RUN(by_the_origin);
    RUN(history_is_bounded);
    RUN(only_where_it_is_asked_for);
    RUN(resends_are_limited);
#endif
    return 0;
}
