/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_gaps: gaps wait, then are reported.  See mp_repair_gaps.h.
 */
#include "mp_repair_gaps.h"

#include "mp_repair_track.h"

static void enqueue(struct mp_worker *w, struct mp_repair_gaps *g, const struct mp_repair_gap_pending *each)
{
    if (g->head - g->tail == MP_REPAIR_GAPS_PENDING) {
        mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_gaps_untold, 1);
        return;
    }
    atomic_store_explicit(&each->heard->waits, 1u, memory_order_relaxed);
    g->waiting[g->head % MP_REPAIR_GAPS_PENDING] = *each;
    g->waiting[g->head++ % MP_REPAIR_GAPS_PENDING].due_ns = w->now_ns + MP_REPAIR_GAP_WAIT_NS;
}

static void wait(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_track *heard, uint64_t name, uint32_t via)
{
    uint32_t numbers[MP_REPAIR_TRACK_NUMBERS];
    struct mp_repair_gap_pending each = { .heard = heard, .name = name, .via = via };
    each.last = atomic_load_explicit(&heard->highest, memory_order_relaxed);
    each.missing = mp_repair_track_missing(heard, each.last, numbers, MP_REPAIR_TRACK_NUMBERS);
    enqueue(w, g, &each);
}

void mp_repair_gaps_schedule(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_track *heard, uint32_t via)
{
    if (!atomic_load_explicit(&heard->waits, memory_order_relaxed))
        wait(w, g, heard, atomic_load_explicit(&heard->name, memory_order_relaxed), via);
}

void mp_repair_gaps_init(struct mp_worker *w, struct mp_repair_gaps *g)
{
    g->credit = MP_REPAIR_GAP_CREDIT * MP_REPAIR_GAP_SHARE;
    struct mp_repair_track *heard = mp_repair_tracks(w->region);
    for (uint32_t i = 0; i < MP_REPAIR_TRACKS; i++)
        atomic_store_explicit(&heard[i].waits, 0u, memory_order_relaxed);
}

/* Of a set of numbers; 0 of the empty one alone. */
static uint64_t digest_of(const struct mp_repair_gap *gap)
{
    uint64_t digest = 0;
    for (uint32_t i = 0; i < gap->count; i++)
        digest = (digest ^ gap->number[i]) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    return gap->count ? digest | 1 : 0;
}

/* Leaves out the newest numbers of which control has not been reported and for which there is no credit.  Returns what the
 * others cost. */
static uint32_t limit_to_credit(const struct mp_repair_gaps *g, struct mp_repair_gap *gap, uint32_t reported_highest)
{
    uint32_t known = 0, afford = g->credit / MP_REPAIR_GAP_SHARE;
    while (known < gap->count && (int32_t)(gap->number[known] - reported_highest) <= 0)
        known++;
    uint32_t news = gap->count - known < afford ? gap->count - known : afford;
    gap->count = known + news;
    return news * MP_REPAIR_GAP_SHARE;
}

/* Returns 0 if the limits leave something for later. */
static int tell(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_track *heard, struct mp_repair_gap *gap)
{
    uint32_t reported_highest = atomic_load_explicit(&heard->reported_highest, memory_order_relaxed), missing = gap->count;
    uint32_t cost = limit_to_credit(g, gap, reported_highest);
    uint64_t digest = digest_of(gap);
    if (atomic_load_explicit(&heard->reported, memory_order_relaxed) != digest) {
        if (!mp_punt_add(w, MP_OVERLAY_INGRESS, MP_PUNT_GAP, gap, (uint32_t)sizeof *gap))
            return 0;
        g->credit -= cost;
        if (cost)
            atomic_store_explicit(&heard->reported_highest, gap->number[gap->count - 1], memory_order_relaxed);
        atomic_store_explicit(&heard->reported, digest, memory_order_relaxed);
        mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_gaps_told, 1);
    }
    if (gap->count < missing)
        mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_gaps_untold, 1);
    return gap->count == missing;
}

static void look_at(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_gap_pending *each)
{
    uint32_t numbers[MP_REPAIR_TRACK_NUMBERS], newest;
    uint32_t missing = mp_repair_track_missing(each->heard, each->last, numbers, MP_REPAIR_TRACK_NUMBERS);
    atomic_store_explicit(&each->heard->waits, 0u, memory_order_relaxed);
    int late = w->now_ns - each->due_ns > MP_REPAIR_GAP_LATE_NS;
    if (missing && (late || missing < each->missing) && each->rounds < MP_REPAIR_GAP_ROUNDS) {
        each->missing = missing;
        each->rounds++;
        enqueue(w, g, each);
        return;
    }
    struct mp_repair_gap gap = { .origin = mp_repair_track_origin(each->name), .stream = mp_repair_track_stream(each->name), .via = each->via };
    gap.count = missing < MP_REPAIR_GAP_NUMBERS ? missing : MP_REPAIR_GAP_NUMBERS;
    memcpy(gap.number, numbers + missing - gap.count, gap.count * sizeof numbers[0]);
    int reported = tell(w, g, each->heard, &gap);
    uint32_t highest = atomic_load_explicit(&each->heard->highest, memory_order_relaxed);
    int more = mp_repair_track_missing(each->heard, highest, &newest, 1) && (int32_t)(newest - each->last) > 0;
    if (!reported || more)
        wait(w, g, each->heard, each->name, each->via);
}

void mp_repair_gaps_report(struct mp_worker *w, struct mp_repair_gaps *g)
{
    while (g->head != g->tail) {
        struct mp_repair_gap_pending each = g->waiting[g->tail % MP_REPAIR_GAPS_PENDING];
        if (each.due_ns > w->now_ns)
            return;
        g->tail++;
        if (mp_repair_track_is_stream(each.heard, each.name))
            look_at(w, g, &each);
    }
}

uint64_t mp_repair_gaps_due_ns(const struct mp_repair_gaps *g)
{
    return g->head == g->tail ? UINT64_MAX : g->waiting[g->tail % MP_REPAIR_GAPS_PENDING].due_ns;
}
