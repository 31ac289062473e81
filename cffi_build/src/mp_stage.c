/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_stage: the worker's loop, its sleep and its punts.  See mp_stage.h; the stages are in mp_stage_*.c.
 */
#include "mp_stage.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "mp_repair_requests.h"
#include "mp_worker.h"

#define SPINS 64u               /* rounds without work before an adaptive worker sleeps: a microsecond or two */
#define LOOK_UP_ROUNDS 1024u    /* a busy worker looks at the clock and at `wake` that often */
#define INLINE_STAGES (1u << MP_CLASSIFY | 1u << MP_OVERLAY_EGRESS) /* the others wait for descriptors, which wake their process */

uint64_t mp_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* ---- life cycle ---- */

static void inherit(struct mp_worker *w, uint32_t stage);

struct mp_worker *mp_worker_new(struct mp_region *region, const struct mp_worker_config *config)
{
    struct mp_worker *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->region = region;
    w->lane = mp_lane(region, config->lane);
    w->config = *config;
    if (config->policy)
        w->policy = *config->policy;
    w->now_ns = w->window_ns = mp_now_ns();
    mp_schedule_init(&w->schedule, w->now_ns);
    mp_bucket_init(&w->reports, MP_REPORTS_PER_S, MP_REPORTS_BURST, w->now_ns);
    mp_bucket_init(&w->news, MP_NEWS_PER_S, MP_NEWS_PER_S, w->now_ns);
    mp_bucket_init(&w->gaps, MP_GAPS_PER_S, MP_GAPS_BURST, w->now_ns);
    w->punts = calloc(MP_PUNT_SLOTS, sizeof *w->punts);
    w->id = 1 + (uint32_t)__builtin_ctz(config->stages);
    w->held = config->stages & ~INLINE_STAGES;
    uint32_t runs = config->stages | config->inline_stages;
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        w->count[stage] = mp_counters(region, config->lane, stage);
    w->gcm = mp_gcm_new();
    if (!w->gcm || !w->punts || (runs >> MP_CLASSIFY & 1 && mp_classify_init(w)) ||
        (runs >> MP_OVERLAY_EGRESS & 1 && mp_egress_init(w)) ||
        (runs >> MP_OVERLAY_INGRESS & 1 && mp_ingress_init(w))) {
        mp_worker_free(w);
        return NULL;
    }
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        inherit(w, stage);
    return w;
}

void mp_worker_free(struct mp_worker *w)
{
    mp_classify_exit(w);
    mp_egress_exit(w);
    mp_ingress_exit(w);
    mp_gcm_free(w->gcm);
    free(w->punts);
    free(w);
}

/* ---- punts ---- */

static void count_refused(struct mp_worker *w, uint32_t stage, uint32_t kind)
{
    uint32_t which = kind == MP_PUNT_MEMBERSHIP ? MP_DROP_report_limit :
                     kind == MP_PUNT_GAP ? (uint32_t)MP_COUNT_gaps_untold : MP_DROP_punt_limit;
    mp_count(w->count[stage], which, 1);
}

int mp_punt_add(struct mp_worker *w, uint32_t stage, uint32_t kind, const void *bytes, uint32_t length)
{
    struct mp_bucket *bucket = kind == MP_PUNT_MEMBERSHIP ? &w->reports : kind == MP_PUNT_GAP ? &w->gaps : &w->news;
    if (w->punt_head - w->punt_tail == MP_PUNT_SLOTS || !mp_bucket_take(bucket, w->now_ns)) {
        count_refused(w, stage, kind);
        return 0;
    }
    struct mp_punt *p = &w->punts[w->punt_head++ % MP_PUNT_SLOTS];
    p->kind = kind;
    p->length = length < MP_PUNT_BYTES ? length : MP_PUNT_BYTES;
    memcpy(p->bytes, bytes, p->length);
    mp_count(w->count[stage], MP_COUNT_punted, 1);
    return 1;
}

uint32_t mp_worker_punt(struct mp_worker *w, uint32_t *kind, uint8_t *out, uint32_t size)
{
    if (w->punt_head == w->punt_tail)
        return 0;
    const struct mp_punt *p = &w->punts[w->punt_tail++ % MP_PUNT_SLOTS];
    uint32_t length = p->length < size ? p->length : size;
    *kind = p->kind;
    memcpy(out, p->bytes, length);
    return length;
}

void mp_worker_punt_lost(struct mp_worker *w, uint32_t kind)
{
    count_refused(w, kind == MP_PUNT_ENDPOINT || kind == MP_PUNT_GAP ? MP_OVERLAY_INGRESS : MP_CLASSIFY, kind);
}

/* ---- who runs what ---- */

static int is_ready(const struct mp_worker *w, uint32_t stage)
{
    struct mp_lane *l = w->lane;
    if (stage == MP_CLASSIFY)
        return mp_ready(&l->host[0], &l->host[1]) > 0;
    return stage == MP_OVERLAY_EGRESS &&
           (mp_ready(&l->host[1], &l->host[2]) > 0 || mp_ready(&l->overlay[0], &l->overlay[1]) > 0 ||
            mp_repair_requests_ready(w->region, atomic_load_explicit(&l->orders.at, memory_order_relaxed)) > 0);
}

/* Takes over from a predecessor that died: what it had under way in a stage that it ran is passed over and counted. */
static void inherit(struct mp_worker *w, uint32_t stage)
{
    struct mp_lane *l = w->lane;
    struct mp_bell *bell = &l->bell[stage];
    if (mp_has_stage(w, stage))
        mp_bell_disarm(bell);
    if (mp_runner(bell) != w->id)
        return;
    uint64_t lost = stage == MP_CLASSIFY ? mp_skip(&l->host[0], &l->host[1])
                                         : mp_skip(&l->host[1], &l->host[2]) + mp_skip(&l->overlay[0], &l->overlay[1]);
    mp_count(w->count[stage], MP_DROP_restart_skip, lost);
    mp_runner_give(bell);
}

static void take_own(struct mp_worker *w)
{
    for (uint32_t missing = w->config.stages & ~w->held; missing; missing &= missing - 1) {
        uint32_t stage = (uint32_t)__builtin_ctz(missing);
        if (mp_runner_take(&w->lane->bell[stage], w->id))
            w->held |= 1u << stage;
    }
}

static void give_own(struct mp_worker *w)
{
    for (uint32_t mine = w->held & INLINE_STAGES; mine; mine &= mine - 1)
        mp_runner_give(&w->lane->bell[__builtin_ctz(mine)]);
    w->held &= ~INLINE_STAGES;
}

void mp_hand_off(struct mp_worker *w, uint32_t stage, int has_more)
{
    struct mp_bell *bell = &w->lane->bell[stage];
    if (w->held >> stage & 1 || !mp_bell_armed(bell))
        return;
    if (!has_more && w->config.inline_stages >> stage & 1 && mp_runner_take(bell, w->id)) {
        w->held |= 1u << stage;
        mp_count(w->count[stage], MP_COUNT_borrowed, 1);
    } else {
        mp_bell_ring(bell, w->config.bell[stage]);
    }
}

/* What a borrower leaves undone, or another producer has added, is for the stage's own process. */
static void give_borrowed(struct mp_worker *w)
{
    for (uint32_t borrowed = w->held & ~w->config.stages; borrowed; borrowed &= borrowed - 1) {
        uint32_t stage = (uint32_t)__builtin_ctz(borrowed);
        struct mp_bell *bell = &w->lane->bell[stage];
        w->held &= ~(1u << stage);
        mp_runner_give(bell);
        if (mp_bell_armed(bell) && is_ready(w, stage))
            mp_bell_ring(bell, w->config.bell[stage]);
    }
}

/* ---- sleep ---- */

static int tun_is_blocked(const struct mp_worker *w)
{
    return mp_has_stage(w, MP_TUN_INGRESS) &&
           !mp_room(&w->lane->host[0], &w->lane->host[2], w->region->geometry.host_slots);
}

/* Is there something on the rings for one of our stages that nobody else is at work on? */
static int has_work(const struct mp_worker *w, int tun_was_blocked)
{
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        if (mp_has_stage(w, stage) && is_ready(w, stage) && !mp_runner(&w->lane->bell[stage]))
            return 1;
    return tun_was_blocked && !tun_is_blocked(w);
}

/* The bell of tun_ingress is for room in the ring alone: all else comes through the TUN. */
static void set_bells(struct mp_worker *w, int armed, int tun_was_blocked)
{
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        if (mp_has_stage(w, stage)) {
            if (armed && (stage != MP_TUN_INGRESS || tun_was_blocked))
                mp_bell_arm(&w->lane->bell[stage]);
            else
                mp_bell_disarm(&w->lane->bell[stage]);
        }
}

/* Returns 1 if `wake` is readable. */
static int wait_for_events(struct mp_worker *w, int read_tun, int read_udp, uint64_t until_ns)
{
    struct pollfd p[3 + MP_STAGES] = { { .fd = w->config.wake, .events = POLLIN } };
    nfds_t n = 1;
    uint64_t left = until_ns > w->now_ns ? until_ns - w->now_ns : 0;
    struct timespec t = { (time_t)(left / 1000000000), (long)(left % 1000000000) };
    if (read_tun)
        p[n++] = (struct pollfd){ .fd = w->config.tun, .events = POLLIN };
    if (read_udp)
        p[n++] = (struct pollfd){ .fd = w->config.udp, .events = POLLIN };
    nfds_t bells = n;
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        if (mp_has_stage(w, stage))
            p[n++] = (struct pollfd){ .fd = w->config.bell[stage], .events = POLLIN };
    ppoll(p, n, &t, NULL);
    for (nfds_t i = bells; i < n; i++)
        if (p[i].revents)
            mp_bell_clear(p[i].fd);
    for (nfds_t i = 1; i < bells; i++)
        if (p[i].revents & (POLLERR | POLLNVAL)) {      /* interface down: do not spin on it */
            struct timespec pause = { .tv_nsec = 10000000 };
            clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        }
    return p[0].revents != 0;
}

/* Sleeps until there is something to do.  Returns 1 if `wake` is readable. */
static int sleep_until(struct mp_worker *w, uint64_t deadline_ns)
{
    uint64_t until = mp_has_stage(w, MP_OVERLAY_INGRESS) ? mp_ingress_due_ns(w) : UINT64_MAX;
    int woken = 0, blocked = tun_is_blocked(w);
    w->now_ns = mp_now_ns();
    int tun_fills = w->now_ns < w->read_at_ns, udp_fills = w->now_ns < w->receive_at_ns;
    if (tun_fills && w->read_at_ns < until)
        until = w->read_at_ns;
    if (udp_fills && w->receive_at_ns < until)
        until = w->receive_at_ns;
    uint64_t look = mp_has_stage(w, MP_TUN_INGRESS) ? mp_unresolved_due_ns(w) : UINT64_MAX;
    if (look < until)
        until = look;
    give_own(w);
    set_bells(w, 1, blocked);
    if (!has_work(w, blocked)) {
        mp_count(w->count[__builtin_ctz(w->config.stages)], MP_COUNT_sleeps, 1);
        int read_tun = mp_has_stage(w, MP_TUN_INGRESS) && !blocked && !tun_fills;
        int read_udp = mp_has_stage(w, MP_OVERLAY_INGRESS) && !udp_fills;
        woken = wait_for_events(w, read_tun, read_udp, until < deadline_ns ? until : deadline_ns);
    }
    set_bells(w, 0, 0);
    w->now_ns = mp_now_ns();
    return woken;
}

/* ---- the loop ---- */

/* In the order of the packets' ways, which both end in overlay_egress: what one stage publishes the next may borrow.
 * Returns how many packets passed, each counted by one stage. */
static uint32_t burst_round(struct mp_worker *w)
{
    static uint32_t (*const burst[])(struct mp_worker *) = { mp_tun_ingress_burst, mp_classify_burst, mp_ingress_burst,
                                                             mp_egress_burst };
    static const uint32_t stage[] = { MP_TUN_INGRESS, MP_CLASSIFY, MP_OVERLAY_INGRESS, MP_OVERLAY_EGRESS };
    uint32_t most = 0;
    take_own(w);
    for (uint32_t i = 0; i < MP_STAGES; i++)
        if (w->held >> stage[i] & 1) {
            uint32_t moved = burst[i](w);
            most = moved > most ? moved : most;
        }
    give_borrowed(w);
    return most;
}

static int is_woken(const struct mp_worker *w)
{
    struct pollfd p = { .fd = w->config.wake, .events = POLLIN };
    return poll(&p, 1, 0) > 0;
}

/* Rounds without work before the worker sleeps.  An empty look at a ring is cheap, one at a descriptor is a call. */
static uint32_t spins_before_sleep(const struct mp_worker *w)
{
    if (w->config.idle == MP_IDLE_BUSY)
        return UINT32_MAX;
    int asks_kernel = mp_has_stage(w, MP_TUN_INGRESS) || mp_has_stage(w, MP_OVERLAY_INGRESS);
    return w->config.idle == MP_IDLE_ADAPTIVE && !asks_kernel ? SPINS : 0;
}

int mp_worker_run(struct mp_worker *w, uint64_t budget_ns)
{
    uint32_t spins_max = spins_before_sleep(w);
    uint64_t deadline_ns = mp_now_ns() + budget_ns;
    for (uint32_t round = 1, spins = 0;; round++) {
        if (round % LOOK_UP_ROUNDS == 0 && is_woken(w))
            return -EINTR;
        if (!spins || round % LOOK_UP_ROUNDS == 0)
            w->now_ns = mp_now_ns();
        uint32_t moved = burst_round(w);
        mp_schedule_note(&w->schedule, moved, w->now_ns);
        spins = moved ? 0 : spins + 1;
        if (w->punt_head != w->punt_tail)
            return (int)(w->punt_head - w->punt_tail);
        if (w->now_ns >= deadline_ns)
            return is_woken(w) ? -EINTR : 0;
        if (spins > spins_max) {
            if (sleep_until(w, deadline_ns))
                return -EINTR;
            spins = 0;
        }
    }
}
