/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_gaps: gaps wait, then are told.  See mp_gaps.h.
 */
#include "mp_gaps.h"

#include "mp_heard.h"

static void enqueue(struct mp_worker *w, struct mp_gaps *g, const struct mp_gap_waiting *each)
{
    if (g->head - g->tail == MP_GAPS_WAITING) {
        mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_gaps_untold, 1);
        return;
    }
    atomic_store_explicit(&each->heard->waits, 1u, memory_order_relaxed);
    g->waiting[g->head % MP_GAPS_WAITING] = *each;
    g->waiting[g->head++ % MP_GAPS_WAITING].due_ns = w->now_ns + MP_GAP_WAIT_NS;
}

static void wait(struct mp_worker *w, struct mp_gaps *g, struct mp_heard *heard, uint64_t name, uint32_t via)
{
    uint32_t numbers[MP_HEARD_NUMBERS];
    struct mp_gap_waiting each = { .heard = heard, .name = name, .via = via };
    each.last = atomic_load_explicit(&heard->highest, memory_order_relaxed);
    each.missing = mp_heard_missing(heard, each.last, numbers, MP_HEARD_NUMBERS);
    enqueue(w, g, &each);
}

void mp_gaps_note(struct mp_worker *w, struct mp_gaps *g, struct mp_heard *heard, uint32_t via)
{
    if (!atomic_load_explicit(&heard->waits, memory_order_relaxed))
        wait(w, g, heard, atomic_load_explicit(&heard->name, memory_order_relaxed), via);
}

void mp_gaps_init(struct mp_worker *w, struct mp_gaps *g)
{
    g->credit = MP_GAP_CREDIT * MP_GAP_SHARE;
    struct mp_heard *heard = mp_heard_table(w->region);
    for (uint32_t i = 0; i < MP_HEARD; i++)
        atomic_store_explicit(&heard[i].waits, 0u, memory_order_relaxed);
}

/* Of a set of numbers; 0 of the empty one alone. */
static uint64_t digest_of(const struct mp_gap *gap)
{
    uint64_t digest = 0;
    for (uint32_t i = 0; i < gap->count; i++)
        digest = (digest ^ gap->number[i]) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    return gap->count ? digest | 1 : 0;
}

/* Leaves out the newest numbers of which control has not been told and for which there is no credit.  Returns what the
 * others cost. */
static uint32_t limit_to_credit(const struct mp_gaps *g, struct mp_gap *gap, uint32_t told_last)
{
    uint32_t known = 0, afford = g->credit / MP_GAP_SHARE;
    while (known < gap->count && (int32_t)(gap->number[known] - told_last) <= 0)
        known++;
    uint32_t news = gap->count - known < afford ? gap->count - known : afford;
    gap->count = known + news;
    return news * MP_GAP_SHARE;
}

/* Returns 0 if the limits leave something for later. */
static int tell(struct mp_worker *w, struct mp_gaps *g, struct mp_heard *heard, struct mp_gap *gap)
{
    uint32_t told_last = atomic_load_explicit(&heard->told_last, memory_order_relaxed), missing = gap->count;
    uint32_t cost = limit_to_credit(g, gap, told_last);
    uint64_t digest = digest_of(gap);
    if (atomic_load_explicit(&heard->told, memory_order_relaxed) != digest) {
        if (!mp_punt_add(w, MP_OVERLAY_INGRESS, MP_PUNT_GAP, gap, (uint32_t)sizeof *gap))
            return 0;
        g->credit -= cost;
        if (cost)
            atomic_store_explicit(&heard->told_last, gap->number[gap->count - 1], memory_order_relaxed);
        atomic_store_explicit(&heard->told, digest, memory_order_relaxed);
        mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_gaps_told, 1);
    }
    if (gap->count < missing)
        mp_count(w->count[MP_OVERLAY_INGRESS], MP_COUNT_gaps_untold, 1);
    return gap->count == missing;
}

static void look_at(struct mp_worker *w, struct mp_gaps *g, struct mp_gap_waiting *each)
{
    uint32_t numbers[MP_HEARD_NUMBERS], newest;
    uint32_t missing = mp_heard_missing(each->heard, each->last, numbers, MP_HEARD_NUMBERS);
    atomic_store_explicit(&each->heard->waits, 0u, memory_order_relaxed);
    int late = w->now_ns - each->due_ns > MP_GAP_LATE_NS;
    if (missing && (late || missing < each->missing) && each->rounds < MP_GAP_ROUNDS) {
        each->missing = missing;
        each->rounds++;
        enqueue(w, g, each);
        return;
    }
    struct mp_gap gap = { .origin = mp_heard_origin(each->name), .stream = mp_heard_stream(each->name), .via = each->via };
    gap.count = missing < MP_GAP_NUMBERS ? missing : MP_GAP_NUMBERS;
    memcpy(gap.number, numbers + missing - gap.count, gap.count * sizeof numbers[0]);
    int told = tell(w, g, each->heard, &gap);
    uint32_t highest = atomic_load_explicit(&each->heard->highest, memory_order_relaxed);
    int more = mp_heard_missing(each->heard, highest, &newest, 1) && (int32_t)(newest - each->last) > 0;
    if (!told || more)
        wait(w, g, each->heard, each->name, each->via);
}

void mp_gaps_tell(struct mp_worker *w, struct mp_gaps *g)
{
    while (g->head != g->tail) {
        struct mp_gap_waiting each = g->waiting[g->tail % MP_GAPS_WAITING];
        if (each.due_ns > w->now_ns)
            return;
        g->tail++;
        if (mp_heard_has_place(each.heard, each.name))
            look_at(w, g, &each);
    }
}

uint64_t mp_gaps_due_ns(const struct mp_gaps *g)
{
    return g->head == g->tail ? UINT64_MAX : g->waiting[g->tail % MP_GAPS_WAITING].due_ns;
}
