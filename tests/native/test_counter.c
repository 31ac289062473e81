/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: each counter has one word and one text, and sums cover the lane and stage that are given.
 * Method: walk along the list; count different amounts in each block.
 */
#include "actor.h"
#include "mp_counter.h"

static void words_are_unique(void)
{
    for (uint32_t i = 0; i < MP_COUNTERS; i++) {
        CHECK(mp_counter_name(i) && *mp_counter_name(i) && mp_counter_text(i) && *mp_counter_text(i));
        for (const char *c = mp_counter_name(i); *c; c++)
            CHECK((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '_');
        for (uint32_t j = 0; j < i; j++)
            CHECK(strcmp(mp_counter_name(i), mp_counter_name(j)) != 0);
    }
    CHECK(!mp_counter_name(MP_COUNTERS) && !mp_counter_text(MP_COUNTERS));
    CHECK(strcmp(mp_counter_name(MP_FIRST_DROP), "truncated") == 0);
    CHECK(strcmp(mp_counter_name(MP_COUNT_borrowed), "borrowed") == 0 && MP_COUNT_borrowed + 1 == MP_FIRST_DROP);
}

static void sums_cover_given_lane_and_stage(void)
{
    struct mp_geometry g = actor_small;
    g.lanes = 2;
    struct mp_region *r = actor_region(&g);
    for (uint32_t lane = 0; lane < 2; lane++)
        for (uint32_t stage = 0; stage < MP_STAGES; stage++)
            for (uint32_t i = 0; i < MP_COUNTERS; i++)
                mp_count(mp_counters(r, lane, stage), i, 1 + i + 100 * stage + 1000 * lane);
    CHECK_EQUAL(mp_counter_sum(r, 3, 1, 2), 4 + 200 + 1000);
    CHECK_EQUAL(mp_counter_sum(r, 3, UINT32_MAX, 2), 2 * (4 + 200) + 1000);
    CHECK_EQUAL(mp_counter_sum(r, 3, 1, UINT32_MAX), 4 * (4 + 1000) + 600);
    CHECK_EQUAL(mp_counter_sum(r, MP_COUNTERS - 1, UINT32_MAX, UINT32_MAX), 8 * MP_COUNTERS + 1200 + 4000);
    CHECK_EQUAL(mp_counter_sum(r, MP_COUNTERS, UINT32_MAX, UINT32_MAX), 0);
    mp_count(mp_counters(r, 0, 0), 3, UINT64_C(1) << 40);
    CHECK_EQUAL(mp_counter_sum(r, 3, 0, 0), 4 + (INT64_C(1) << 40));
    actor_unmap(r);
}

int main(void)
{
    RUN(words_are_unique);
    RUN(sums_cover_given_lane_and_stage);
    return 0;
}
