/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: a gap of a stream is found, reported once it has existed for a while, and repaired from the slots that a peer
 * has kept.  No number is reported missing that has arrived, and no kept slot is overwritten.
 * Method: tracks by hand and against a naive model (seeded), from two actors at once; requests until their ring is
 * full; and the three nodes of network.h, where a datagram is "lost" by a route that leaves a node out.
 */
#include "actor.h"
#include "network.h"

#include "mp_repair_gaps.h"
#include "mp_repair_track.h"
#include "mp_repair_buffer.h"
#include "mp_repair_requests.h"

#define STREAM 1u               /* of the entries in network.h */

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

/* ---- tracks ---- */

static void track_lists_missing_numbers(void)
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
        CHECK_EQUAL(note(h, at + 5 + 3 * MP_REPAIR_TRACK_NUMBERS), 1);     /* an outage: back to the end of the track */
        CHECK_EQUAL(missing(h, out, MP_REPAIR_TRACK_NUMBERS), MP_REPAIR_TRACK_NUMBERS - 33);
        CHECK_EQUAL(note(h, at + 6), 0);                            /* too old to matter */
    }
    actor_unmap(region);
}

static void track_survives_rotation_and_restarts_with_origin(void)
{
    uint32_t out[8];
    region = actor_region(&actor_small);
    struct mp_repair_track *h = find(7, 1, 3, 90000);
    note(h, 90000);
    note(h, 90002);
    CHECK(find(7, 1, 4, 90003) == h && missing(h, out, 8) == 1);    /* the key rotates: the stream continues */
    CHECK(find(7, 1, 5, 2) == h && missing(h, out, 8) == 0);        /* the origin has restarted */
    CHECK(note(h, 2) == 0 && note(h, 4) == 1 && missing(h, out, 8) == 1 && out[0] == 3);
    CHECK(find(7, 2, 5, 2) != h && find(8, 1, 5, 2) != h);
    actor_unmap(region);
}

static void new_stream_evicts_the_idlest(void)
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

static void tracked_streams_are_listed(void)
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

static void missing_numbers_match_a_model(void)
{
    enum { LENGTH = 20000 };
    static uint8_t arrived[LENGTH];
    uint32_t out[MP_REPAIR_TRACK_NUMBERS], next = 1;
    uint64_t seed = 5;
    region = actor_region(&actor_small);
    memset(arrived, 0, sizeof arrived);
    struct mp_repair_track *h = find(1, 1, 1, 0);
    arrived[0] = 1;
    note(h, 0);
    while (next < LENGTH) {
        uint32_t late = check_random(&seed, 4) ? 0 : check_random(&seed, 300);
        uint32_t n = late < next ? next - late : next;
        if (check_random(&seed, 50) == 0)
            next += check_random(&seed, 40);
        next += n == next;
        if (n >= LENGTH || arrived[n])
            continue;
        arrived[n] = 1;
        note(h, n);
        uint32_t highest = atomic_load(&h->highest), count = missing(h, out, MP_REPAIR_TRACK_NUMBERS), at = 0;
        uint32_t oldest = highest < MP_REPAIR_TRACK_NUMBERS - 33 ? 0 : highest - (MP_REPAIR_TRACK_NUMBERS - 33);
        for (uint32_t k = oldest; k <= highest; k++)
            if (!arrived[k])
                CHECK(at < count && out[at++] == k);
        CHECK_EQUAL(at, count);
    }
    actor_unmap(region);
}

struct half {
    struct mp_repair_track *track;
    uint32_t parity;
};

static void note_half(void *argument)
{
    struct half *half = argument;
    for (uint32_t n = half->parity; n < CHECK_SCALE(400000u); n += 2)
        mp_repair_track_mark(half->track, n, n);
}

/* Two lanes mark every other number of a stream each, at any speeds: the last numbers are all marked. */
static void two_lanes_share_a_track(void)
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

/* ---- requests ---- */

static void full_ring_refuses_requests(void)
{
    uint32_t numbers[MP_REPAIR_REQUEST_NUMBERS + 1] = { 5, 6 };
    region = actor_region(&actor_small);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 1, numbers, MP_REPAIR_REQUEST_NUMBERS + 1), -EINVAL);
    CHECK_EQUAL(mp_repair_request_add(region, MP_LINKS_MAX, 7, 1, numbers, 1), -EINVAL);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 0, numbers, 1), -EINVAL);  /* stream 0 is shared */
    for (uint32_t i = 0; i < MP_REPAIR_REQUESTS; i++)
        CHECK_EQUAL(mp_repair_request_add(region, i, 7, 1, numbers, 2), 0);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 1, numbers, 2), -ENOSPC);
    CHECK_EQUAL(mp_counter_sum(region, MP_COUNT_resend_asked, UINT32_MAX, UINT32_MAX), 2 * MP_REPAIR_REQUESTS + 2);
    CHECK_EQUAL(mp_counter_sum(region, MP_COUNT_resend_refused, UINT32_MAX, UINT32_MAX), 2);
    CHECK_EQUAL(mp_counter_sum(region, MP_COUNT_resend_refused, 0, UINT32_MAX), 0);
    CHECK_EQUAL(mp_repair_requests_ready(region, 3), MP_REPAIR_REQUESTS - 3);
    const struct mp_repair_request *fourth = &mp_repair_requests(region)[3];
    CHECK(fourth->link == 3 && fourth->count == 2 && fourth->number[1] == 6);
    atomic_store(&mp_lane(region, 0)->requests.at, 1);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 1, numbers, 2), 0);
    CHECK_EQUAL(mp_repair_request_add(region, 1, 7, 1, numbers, 2), -ENOSPC);
    actor_unmap(region);
}

#if !ACTORS_ARE_THREADS
/* ---- three nodes ---- */

/* Node 0 sends to the nodes of the link set `to`; each keeps the datagrams that it receives. */
static void open_repair(uint64_t to)
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

/* Return the delivered packets of a node, as a bit set of packet numbers below 64. */
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

/* Run until the node has punted a gap. */
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

static void request(uint32_t node, uint32_t link, const struct mp_repair_gap *gap)
{
    CHECK_EQUAL(mp_repair_request_add(nodes[node].region, link, gap->origin, STREAM, gap->number, gap->count), 0);
    run_all(3);
}

static void repair_by(int sealed, uint32_t helper)
{
    struct mp_repair_gap gap;
    open_network(sealed, 0);
    open_repair(1 << 1 | 1 << 2);
    send_packets(0, 10);
    open_repair(1 << 2);
    send_packets(10, 3);        /* node 1 does not receive these */
    CHECK_EQUAL(counted(1, MP_COUNT_gaps_told), 0);
    open_repair(1 << 1 | 1 << 2);
    send_packets(13, 10);
    uint64_t first = delivered(1);      /* the later ones are held, unless the machine is very slow */
    CHECK((first == (1 << 10) - 1 || first == ((1 << 23) - 1) - (7 << 10)) && delivered(2) == (1 << 23) - 1);
    wait_gap(1, &gap);
    CHECK(gap.origin == origin_of(0) && gap.stream == STREAM && gap.via == 0 && gap.count == 3);
    CHECK(gap.number[0] == 10 && gap.number[1] == 11 && gap.number[2] == 12);
    request(helper, 1, &gap);
    uint64_t then = delivered(1);
    CHECK((first & then) == 0 && (first | then) == (1 << 23) - 1);
    CHECK_EQUAL(counted(helper, MP_COUNT_resent), 3);
    CHECK_EQUAL(counted(helper, MP_COUNT_resent_bytes), 3 * (20 + 28 + 1316 + (sealed ? 16 : 0)));
    wait_gap(1, &gap);
    CHECK(gap.count == 0 && gap.via == helper);
    request(helper, 1, &(struct mp_repair_gap){ .origin = origin_of(0), .count = 2, .number = { 5, 999 } });
    CHECK_EQUAL(counted(helper, MP_COUNT_resent), 4);               /* it has number 5, and no node has 999 */
    CHECK(delivered(1) == 0 && counted(1, MP_DROP_replay) == 1);
    CHECK_EQUAL(counted(2, MP_COUNT_gaps_told), 0);
    close_network();
}

static void gap_is_repaired_by_peer(void) { repair_by(1, 2); }
static void gap_is_repaired_by_origin(void) { repair_by(0, 0); }

/* Packets fill the ring many times: its last three quarters are kept, whole and in place. */
static void buffer_holds_last_three_quarters(void)
{
    uint32_t kept = 192, total = 5000;  /* of 256 slots */
    open_network(1, 0);
    open_repair(1 << 1);
    for (uint32_t i = 0; i < total; i += 50) {
        send_packets(i, 50);
        uint8_t got[70000], vnet[MP_VNET_BYTES];
        while (read_host(1, got, vnet))
            ;
    }
    struct mp_repair_request search = { .origin = origin_of(0), .stream = STREAM };
    struct iovec iov[MP_REPAIR_REQUEST_NUMBERS];
    for (uint32_t n = 0; n < total; n += search.count) {
        for (search.count = 0; search.count < 50; search.count++)
            search.number[search.count] = n + search.count;
        uint32_t found = mp_repair_buffer_find(nodes[0].region, 0, &search, iov);
        uint32_t expected = n + 50 <= total - kept ? 0 : n >= total - kept ? 50 : n + 50 - (total - kept);
        CHECK_EQUAL(found, expected);
        for (uint32_t i = 0; i < found; i++) {
            struct mp_header h;
            CHECK_EQUAL(mp_header_read(iov[i].iov_base, (uint32_t)iov[i].iov_len, &h), 0);
            CHECK(h.origin == origin_of(0) && h.stream_sequence == n + 49 - i);
        }
    }
    search = (struct mp_repair_request){ .origin = origin_of(0), .stream = STREAM + 1, .count = 1,
                                         .number = { total - 1 } };
    CHECK_EQUAL(mp_repair_buffer_find(nodes[0].region, 0, &search, iov), 0);
    close_network();
}

/* Without an entry with MP_ENTRY_REPAIR no datagram is kept or sent again, and no gap reported. */
static void streams_without_repair_are_not_kept(void)
{
    open_network(1, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1 | 1 << 2, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    set_route(2, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    send_packets(0, 10);
    struct mp_repair_gap gap = { .origin = origin_of(0), .count = 1, .number = { 5 } };
    request(0, 1, &gap);
    request(2, 1, &gap);
    CHECK_EQUAL(counted(0, MP_COUNT_resent) + counted(2, MP_COUNT_resent) + counted(1, MP_DROP_replay), 0);
    CHECK_EQUAL(atomic_load(&mp_lane(nodes[0].region, 0)->host[2].freed), 10);
    CHECK_EQUAL(atomic_load(&mp_lane(nodes[2].region, 0)->overlay[0].at), 0);
    close_network();
}

/* A peer that requests more than the limit gets no more than the limit. */
static void resends_are_limited(void)
{
    struct mp_repair_gap gap = { .origin = origin_of(0), .count = 50 };
    open_network(1, 0);
    open_repair(1 << 1);
    send_packets(0, 50);
    delivered(1);
    for (uint32_t i = 0; i < 50; i++)
        gap.number[i] = i;
    for (uint32_t i = 0; i < 100; i++)
        request(0, 1, &gap);
    uint64_t resent = counted(0, MP_COUNT_resent), refused = counted(0, MP_COUNT_resend_refused);
    CHECK(resent >= 512 && refused > 0 && resent + refused == 5000);
    CHECK_EQUAL(delivered(1), 0);
    close_network();
}
#endif

int main(void)
{
    RUN(track_lists_missing_numbers);
    RUN(track_survives_rotation_and_restarts_with_origin);
    RUN(new_stream_evicts_the_idlest);
    RUN(tracked_streams_are_listed);
    RUN(missing_numbers_match_a_model);
    RUN(two_lanes_share_a_track);
    RUN(full_ring_refuses_requests);
#if !ACTORS_ARE_THREADS
    RUN(gap_is_repaired_by_peer);
    RUN(gap_is_repaired_by_origin);
    RUN(buffer_holds_last_three_quarters);
    RUN(streams_without_repair_are_not_kept);
    RUN(resends_are_limited);
#endif
    return 0;
}
