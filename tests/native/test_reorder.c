/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: each datagram of a stream comes out once and in order, and none is held longer than allowed, whatever comes
 * in.
 * Method: by hand; and shuffled streams with losses (seeded), compared with the rules that hold for all of them.
 */
#include "check.h"

#include "mp_reorder.h"

#define HOLD_NS 100u
#define NAME(n) ((uint64_t)(n) << 16 | 1u)

struct out {
    uint32_t count;
    uint32_t number[4096];
    struct mp_reorder *recycles;    /* recycled at each datagram, as by a full delivery list */
};

static void take_out(void *context, const uint8_t *bytes, uint32_t length)
{
    struct out *out = context;
    uint32_t number, again;
    CHECK(length == 1000 && out->count < 4096);
    if (out->recycles)
        mp_reorder_recycle(out->recycles);
    memcpy(&number, bytes, sizeof number);
    memcpy(&again, bytes + length - sizeof again, sizeof again);
    CHECK_EQUAL(number, again);
    out->number[out->count++] = number;
}

static void put(struct mp_reorder *s, uint32_t which, uint32_t number, uint64_t now_ns)
{
    uint8_t bytes[1000] = { 0 };
    memcpy(bytes, &number, sizeof number);
    memcpy(bytes + sizeof bytes - sizeof number, &number, sizeof number);
    mp_reorder_add(s, which, NAME(7 + which), number, bytes, sizeof bytes, now_ns, HOLD_NS);
}

static void expect(struct out *out, uint32_t count, const uint32_t *numbers)
{
    CHECK_EQUAL(out->count, count);
    for (uint32_t i = 0; i < count; i++)
        CHECK_EQUAL(out->number[i], numbers[i]);
    out->count = 0;
}

static void early_datagrams_are_held_until_due(void)
{
    static const uint32_t starts[] = { 0, 1000, UINT32_MAX - 1 };
    for (uint32_t i = 0; i < 3; i++) {
        struct out out = { 0 };
        struct mp_reorder *s = mp_reorder_new(1436, take_out, &out);
        uint32_t a = starts[i];
        CHECK_EQUAL(mp_reorder_due_ns(s), UINT64_MAX);
        put(s, 3, a, 0);
        put(s, 3, a + 1, 0);
        mp_reorder_expire(s, HOLD_NS);             /* none of the numbers before it arrives */
        expect(&out, 2, (uint32_t[]){ a, a + 1 });
        put(s, 3, a + 4, 10);                       /* early */
        put(s, 3, a + 3, 20);
        expect(&out, 0, NULL);
        CHECK_EQUAL(mp_reorder_due_ns(s), 20 + HOLD_NS);
        put(s, 3, a + 2, 30);
        expect(&out, 3, (uint32_t[]){ a + 2, a + 3, a + 4 });
        CHECK_EQUAL(mp_reorder_due_ns(s), UINT64_MAX);
        put(s, 3, a + 6, 40);                       /* 5 and 8 are lost */
        put(s, 3, a + 7, 45);
        put(s, 3, a + 9, 50);
        mp_reorder_expire(s, 39 + HOLD_NS);
        expect(&out, 0, NULL);
        mp_reorder_expire(s, 40 + HOLD_NS);
        expect(&out, 2, (uint32_t[]){ a + 6, a + 7 });
        CHECK_EQUAL(mp_reorder_due_ns(s), 50 + HOLD_NS);
        put(s, 3, a + 5, 60 + HOLD_NS);             /* its time is over, it is delivered at once */
        expect(&out, 1, (uint32_t[]){ a + 5 });
        mp_reorder_expire(s, 60 + HOLD_NS);
        expect(&out, 1, (uint32_t[]){ a + 9 });
        put(s, 3, a + 11, 300);
        put(s, 3, a + 11 + MP_REORDER_WINDOW, 300);    /* far away: the stream begins anew */
        put(s, 3, a + 12 + MP_REORDER_WINDOW, 300);
        mp_reorder_expire(s, 300 + HOLD_NS);
        expect(&out, 3, (uint32_t[]){ a + 11, a + 11 + MP_REORDER_WINDOW, a + 12 + MP_REORDER_WINDOW });
        mp_reorder_free(s);
    }
}

/* The first datagrams of a stream overtake each other as any others do; number 0 waits for none. */
static void stream_begins_in_order(void)
{
    struct out out = { 0 };
    struct mp_reorder *s = mp_reorder_new(1436, take_out, &out);
    put(s, 1, 0, 0);
    expect(&out, 1, (uint32_t[]){ 0 });
    for (uint32_t which = 2; which < 4; which++) {
        uint32_t a = which == 2 ? 0 : 1000;
        put(s, which, a + 2, 0);
        put(s, which, a + 1, 10);
        put(s, which, a, 20);
        put(s, which, a + 3, 30);
        if (a)
            mp_reorder_expire(s, 20 + HOLD_NS);
        expect(&out, 4, (uint32_t[]){ a, a + 1, a + 2, a + 3 });
    }
    uint8_t late[1000] = { 0 };
    mp_reorder_add(s, 4, NAME(11), 500, late, sizeof late, 0, 5 * MP_REORDER_BEGIN_NS);
    CHECK_EQUAL(mp_reorder_due_ns(s), MP_REORDER_BEGIN_NS);
    mp_reorder_free(s);
}

static void another_stream_takes_the_place(void)
{
    struct out out = { 0 };
    struct mp_reorder *s = mp_reorder_new(1436, take_out, &out);
    put(s, 1, 5, 0);
    put(s, 1, 7, 0);
    mp_reorder_add(s, 1, NAME(99), 70, (uint8_t[1000]){ 70, [996] = 70 }, 1000, 0, HOLD_NS);
    expect(&out, 2, (uint32_t[]){ 5, 7 });
    mp_reorder_expire(s, HOLD_NS);
    expect(&out, 1, (uint32_t[]){ 70 });
    mp_reorder_free(s);
}

/* More datagrams than can be held: none is lost, and none waits without end. */
static void full_buffer_emits_at_once(void)
{
    struct out out = { 0 };
    struct mp_reorder *s = mp_reorder_new(1436, take_out, &out);
    for (uint32_t which = 0; which < 100; which++) {
        put(s, which, 0, 0);
        for (uint32_t n = 2; n < 30; n++)
            put(s, which, n, 0);
    }
    mp_reorder_expire(s, HOLD_NS);
    CHECK_EQUAL(out.count, 100 * 29);
    CHECK_EQUAL(mp_reorder_due_ns(s), UINT64_MAX);
    mp_reorder_recycle(s);
    out.count = 0;
    put(s, 0, 31, 0);
    CHECK_EQUAL(out.count, 0);
    mp_reorder_free(s);
}

/* Each datagram arrives up to 20 numbers late or never; places are recycled as soon as possible. */
static void shuffled_streams_come_out_in_order(void)
{
    enum { LENGTH = 4000 };
    static uint32_t at[LENGTH + 64];
    for (uint64_t seed = 1; seed < 20; seed++) {
        struct out out = { 0 };
        uint64_t state = seed;
        struct mp_reorder *s = mp_reorder_new(1436, take_out, &out);
        uint32_t sent = 0, lossy = seed % 2;
        out.recycles = s;
        memset(at, 0, sizeof at);
        for (uint32_t n = 1; n < LENGTH; n++) {     /* at[t]: the number that arrives at time t; 0: none */
            uint32_t t = n + check_random(&state, 20);
            while (at[t])
                t++;
            if (n < 30 || !lossy || check_random(&state, 50))
                at[t] = n;
        }
        put(s, 0, 0, 0);
        for (uint32_t t = 0; t < LENGTH + 64; t++) {
            if (at[t]) {
                put(s, 0, at[t], 10 * t);
                sent++;
            }
            mp_reorder_expire(s, 10 * t);
        }
        mp_reorder_expire(s, UINT64_MAX);
        CHECK_EQUAL(out.count, sent + 1);
        uint32_t back = 0;
        for (uint32_t i = 1; i < out.count; i++)
            back += out.number[i] < out.number[i - 1];
        CHECK(lossy ? back < sent / 5 : back == 0 || HOLD_NS < 200);
        mp_reorder_free(s);
    }
}

int main(void)
{
    RUN(early_datagrams_are_held_until_due);
    RUN(stream_begins_in_order);
    RUN(another_stream_takes_the_place);
    RUN(full_buffer_emits_at_once);
    RUN(shuffled_streams_come_out_in_order);
    return 0;
}
