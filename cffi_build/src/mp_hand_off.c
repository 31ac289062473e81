/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_hand_off: runners of stages.  See mp_hand_off.h.
 */
#include "mp_hand_off.h"

#include "mp_repair_requests.h"
#include "mp_ring.h"

int mp_hand_off_is_ready(const struct mp_worker *w, uint32_t stage)
{
    struct mp_lane *l = w->lane;
    if (stage == MP_CLASSIFY)
        return mp_ready(&l->host[0], &l->host[1]) > 0;
    return stage == MP_OVERLAY_EGRESS &&
           (mp_ready(&l->host[1], &l->host[2]) > 0 || mp_ready(&l->overlay[0], &l->overlay[1]) > 0 ||
            mp_repair_requests_ready(w->region, mp_position(&l->requests)) > 0);
}

/* Give a stage to its own process: what is left undone, or was added by another producer meanwhile, is work for it. */
static void give(struct mp_worker *w, uint32_t stage)
{
    struct mp_bell *bell = &w->lane->bell[stage];
    mp_runner_give(bell);
    if (mp_bell_armed(bell) && mp_hand_off_is_ready(w, stage))
        mp_bell_ring(bell, w->config.bell[stage]);
}

void mp_hand_off_inherit(struct mp_worker *w, uint32_t stage)
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
    give(w, stage);
}

void mp_hand_off_take_own(struct mp_worker *w)
{
    for (uint32_t missing = w->config.stages & ~w->held; missing; missing &= missing - 1) {
        uint32_t stage = (uint32_t)__builtin_ctz(missing);
        if (mp_runner_take(&w->lane->bell[stage], w->id))
            w->held |= 1u << stage;
    }
}

void mp_hand_off_give_own(struct mp_worker *w)
{
    for (uint32_t own = w->held & MP_INLINE_STAGES; own; own &= own - 1)
        mp_runner_give(&w->lane->bell[__builtin_ctz(own)]);
    w->held &= ~MP_INLINE_STAGES;
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

void mp_hand_off_give_inline(struct mp_worker *w)
{
    for (uint32_t stages = w->held & ~w->config.stages; stages; stages &= stages - 1) {
        uint32_t stage = (uint32_t)__builtin_ctz(stages);
        w->held &= ~(1u << stage);
        give(w, stage);
    }
}
