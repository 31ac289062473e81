/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_worker: life cycle, sleep and loop of a worker.  See mp_worker.h; the stages are in mp_stage_*.c.
 */
#include "mp_worker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "mp_clock.h"
#include "mp_hand_off.h"
#include "mp_punt.h"
#include "mp_ring.h"
#include "mp_stage.h"

#define SPINS 64u               /* rounds without work before an adaptive worker sleeps: 1 or 2 us */
#define CHECK_ROUNDS 1024u      /* rounds after which a busy worker reads the clock and checks `wake` */

/* ---- life cycle ---- */

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
    w->id = 1 + (uint32_t)__builtin_ctz(config->stages);
    w->held = config->stages & ~MP_INLINE_STAGES;
    uint32_t runs = config->stages | config->inline_stages;
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        w->count[stage] = mp_counters(region, config->lane, stage);
    w->gcm = mp_gcm_new();
    if (!w->gcm || mp_punts_init(w) || (runs >> MP_CLASSIFY & 1 && mp_classify_init(w)) ||
        (runs >> MP_OVERLAY_EGRESS & 1 && mp_egress_init(w)) ||
        (runs >> MP_OVERLAY_INGRESS & 1 && mp_ingress_init(w))) {
        mp_worker_free(w);
        return NULL;
    }
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        mp_hand_off_inherit(w, stage);
    return w;
}

void mp_worker_free(struct mp_worker *w)
{
    mp_classify_exit(w);
    mp_egress_exit(w);
    mp_ingress_exit(w);
    mp_gcm_free(w->gcm);
    mp_punts_exit(w);
    free(w);
}

/* ---- sleep ---- */

static int tun_is_blocked(const struct mp_worker *w)
{
    return mp_has_stage(w, MP_TUN_INGRESS) &&
           !mp_room(&w->lane->host[0], &w->lane->host[2], w->region->geometry.host_slots);
}

/* Return whether one of the worker's stages has slots on its rings that no other worker works on. */
static int has_work(const struct mp_worker *w, int tun_was_blocked)
{
    for (uint32_t stage = 0; stage < MP_STAGES; stage++)
        if (mp_has_stage(w, stage) && mp_hand_off_is_ready(w, stage) && !mp_runner(&w->lane->bell[stage]))
            return 1;
    return tun_was_blocked && !tun_is_blocked(w);
}

/* The bell of tun_ingress only reports room in the ring: all other events come through the TUN. */
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

/* Poll the worker's descriptors until `until_ns`.  Returns 1 if `wake` is readable. */
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
        if (p[i].revents & (POLLERR | POLLNVAL)) {      /* the interface is down: do not spin */
            struct timespec pause = { .tv_nsec = 10000000 };
            clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        }
    return p[0].revents != 0;
}

/* Sleep until there is work.  Returns 1 if `wake` is readable. */
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
    uint64_t unresolved = mp_has_stage(w, MP_TUN_INGRESS) ? mp_tun_ingress_due_ns(w) : UINT64_MAX;
    if (unresolved < until)
        until = unresolved;
    mp_hand_off_give_own(w);
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

/* Call the bursts in the order of a packet: a stage that one burst hands off to can run inline in the same round.  Both
 * paths end in overlay_egress.  Returns the largest number of packets that one stage moved. */
static uint32_t burst_round(struct mp_worker *w)
{
    static uint32_t (*const burst[])(struct mp_worker *) = { mp_tun_ingress_burst, mp_classify_burst, mp_ingress_burst,
                                                             mp_egress_burst };
    static const uint32_t stage[] = { MP_TUN_INGRESS, MP_CLASSIFY, MP_OVERLAY_INGRESS, MP_OVERLAY_EGRESS };
    uint32_t most = 0;
    mp_hand_off_take_own(w);
    for (uint32_t i = 0; i < MP_STAGES; i++)
        if (w->held >> stage[i] & 1) {
            uint32_t moved = burst[i](w);
            most = moved > most ? moved : most;
        }
    mp_hand_off_give_inline(w);
    return most;
}

static int is_woken(const struct mp_worker *w)
{
    struct pollfd p = { .fd = w->config.wake, .events = POLLIN };
    return poll(&p, 1, 0) > 0;
}

/* Return the rounds without work before the worker sleeps.  Polling a ring is cheap, a descriptor costs a system
 * call. */
static uint32_t spins_before_sleep(const struct mp_worker *w)
{
    if (w->config.idle == MP_IDLE_BUSY)
        return UINT32_MAX;
    int calls_kernel = mp_has_stage(w, MP_TUN_INGRESS) || mp_has_stage(w, MP_OVERLAY_INGRESS);
    return w->config.idle == MP_IDLE_ADAPTIVE && !calls_kernel ? SPINS : 0;
}

int mp_worker_run(struct mp_worker *w, uint64_t budget_ns)
{
    uint32_t spins_max = spins_before_sleep(w);
    uint64_t deadline_ns = mp_now_ns() + budget_ns;
    for (uint32_t round = 1, spins = 0;; round++) {
        if (round % CHECK_ROUNDS == 0 && is_woken(w))
            return -EINTR;
        if (!spins || round % CHECK_ROUNDS == 0)
            w->now_ns = mp_now_ns();
        uint32_t moved = burst_round(w);
        mp_schedule_note(&w->schedule, moved, w->now_ns);
        spins = moved ? 0 : spins + 1;
        if (mp_punts_ready(w))
            return (int)mp_punts_ready(w);
        if (w->now_ns >= deadline_ns)
            return is_woken(w) ? -EINTR : 0;
        if (spins > spins_max) {
            if (sleep_until(w, deadline_ns))
                return -EINTR;
            spins = 0;
        }
    }
}
