/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_repair_gaps: pending gaps, the limits of reports, and the punts.  See mp_repair_gaps.h.
 */
#include "mp_repair_gaps.h"

#include "mp_punt.h"
#include "mp_repair_track.h"

/* ---- schedule ---- */

static void enqueue(struct mp_worker *w, struct mp_repair_gaps *g, const struct mp_repair_gap_pending *gap)
{
    if (g->head - g->tail == MP_REPAIR_GAPS_PENDING) {
        mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_gaps_untold, 1);
        return;
    }
    atomic_store_explicit(&gap->track->is_pending, 1u, memory_order_relaxed);
    g->pending[g->head % MP_REPAIR_GAPS_PENDING] = *gap;
    g->pending[g->head++ % MP_REPAIR_GAPS_PENDING].due_ns = w->now_ns + MP_REPAIR_GAP_WAIT_NS;
}

static void begin(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_track *track, uint64_t name,
                  uint32_t via)
{
    uint32_t numbers[MP_REPAIR_TRACK_NUMBERS];
    struct mp_repair_gap_pending gap = { .track = track, .name = name, .via = via };
    gap.last = atomic_load_explicit(&track->highest, memory_order_relaxed);
    gap.missing = mp_repair_track_missing(track, gap.last, numbers, MP_REPAIR_TRACK_NUMBERS);
    enqueue(w, g, &gap);
}

void mp_repair_gaps_schedule(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_track *track,
                             uint32_t via)
{
    if (!atomic_load_explicit(&track->is_pending, memory_order_relaxed))
        begin(w, g, track, atomic_load_explicit(&track->name, memory_order_relaxed), via);
}

void mp_repair_gaps_init(struct mp_worker *w, struct mp_repair_gaps *g)
{
    g->credit = MP_REPAIR_GAP_CREDIT * MP_REPAIR_GAP_SHARE;
    struct mp_repair_track *track = mp_repair_tracks(w->region);
    for (uint32_t i = 0; i < MP_REPAIR_TRACKS; i++)
        atomic_store_explicit(&track[i].is_pending, 0u, memory_order_relaxed);
}

/* ---- report ---- */

/* Return a digest of a set of numbers; 0 for the empty set only. */
static uint64_t digest_of(const struct mp_repair_gap *gap)
{
    uint64_t digest = 0;
    for (uint32_t i = 0; i < gap->count; i++)
        digest = (digest ^ gap->number[i]) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    return gap->count ? digest | 1 : 0;
}

/* Leave out the newest numbers that control does not know yet and that exceed the credit.  Returns the cost of the new
 * numbers that stay. */
static uint32_t limit_to_credit(const struct mp_repair_gaps *g, struct mp_repair_gap *gap, uint32_t reported_highest)
{
    uint32_t known = 0, affordable = g->credit / MP_REPAIR_GAP_SHARE;
    while (known < gap->count && (int32_t)(gap->number[known] - reported_highest) <= 0)
        known++;
    uint32_t new = gap->count - known < affordable ? gap->count - known : affordable;
    gap->count = known + new;
    return new * MP_REPAIR_GAP_SHARE;
}

/* Punt a gap, unless control got the same numbers last.  Returns 0 if the limits leave numbers for later. */
static int report(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_track *track,
                  struct mp_repair_gap *gap)
{
    uint32_t reported_highest = atomic_load_explicit(&track->reported_highest, memory_order_relaxed);
    uint32_t missing = gap->count, cost = limit_to_credit(g, gap, reported_highest);
    uint64_t digest = digest_of(gap);
    if (atomic_load_explicit(&track->reported, memory_order_relaxed) != digest) {
        if (!mp_punt_add(w, MP_OVERLAY_INGRESS, MP_PUNT_GAP, gap, (uint32_t)sizeof *gap))
            return 0;
        g->credit -= cost;
        if (cost)
            atomic_store_explicit(&track->reported_highest, gap->number[gap->count - 1], memory_order_relaxed);
        atomic_store_explicit(&track->reported, digest, memory_order_relaxed);
        mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_gaps_told, 1);
    }
    if (gap->count < missing)
        mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_gaps_untold, 1);
    return gap->count == missing;
}

/* Handle a pending gap that is due: keep it pending for another round, or report it. */
static void handle_due(struct mp_worker *w, struct mp_repair_gaps *g, struct mp_repair_gap_pending *due)
{
    uint32_t numbers[MP_REPAIR_TRACK_NUMBERS], newest;
    uint32_t missing = mp_repair_track_missing(due->track, due->last, numbers, MP_REPAIR_TRACK_NUMBERS);
    atomic_store_explicit(&due->track->is_pending, 0u, memory_order_relaxed);
    int late = w->now_ns - due->due_ns > MP_REPAIR_GAP_LATE_NS;
    if (missing && (late || missing < due->missing) && due->rounds < MP_REPAIR_GAP_ROUNDS) {
        due->missing = missing;
        due->rounds++;
        enqueue(w, g, due);
        return;
    }
    struct mp_repair_gap gap = { .origin = mp_repair_track_origin(due->name),
                                 .stream = mp_repair_track_stream(due->name), .via = due->via };
    gap.count = missing < MP_REPAIR_GAP_NUMBERS ? missing : MP_REPAIR_GAP_NUMBERS;
    memcpy(gap.number, numbers + missing - gap.count, gap.count * sizeof numbers[0]);
    int complete = report(w, g, due->track, &gap);
    uint32_t highest = atomic_load_explicit(&due->track->highest, memory_order_relaxed);
    int more = mp_repair_track_missing(due->track, highest, &newest, 1) && (int32_t)(newest - due->last) > 0;
    if (!complete || more)
        begin(w, g, due->track, due->name, due->via);
}

void mp_repair_gaps_report(struct mp_worker *w, struct mp_repair_gaps *g)
{
    while (g->head != g->tail) {
        struct mp_repair_gap_pending gap = g->pending[g->tail % MP_REPAIR_GAPS_PENDING];
        if (gap.due_ns > w->now_ns)
            return;
        g->tail++;
        if (mp_repair_track_is_stream(gap.track, gap.name))
            handle_due(w, g, &gap);
    }
}

uint64_t mp_repair_gaps_due_ns(const struct mp_repair_gaps *g)
{
    return g->head == g->tail ? UINT64_MAX : g->pending[g->tail % MP_REPAIR_GAPS_PENDING].due_ns;
}
