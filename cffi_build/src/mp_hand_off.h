/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_hand_off: the runners of stages, and the hand-off of published slots to the next stage.
 *
 * At low rates a wake-up costs more than the work that it is for.  A worker that has published a batch and has no other
 * work runs the next stage inline while that stage's own process sleeps.  Under load, when there is more to read, the
 * worker wakes the process, and both work side by side.  Only a stage's own process punts: a worker that runs the stage
 * inline stops in front of such a packet.
 *
 *   round     mp_hand_off_take_own ─▶ bursts of the stages held, each with mp_hand_off ─▶ mp_hand_off_give_inline
 *   sleep     mp_hand_off_give_own, see mp_worker.c
 *   start     mp_hand_off_inherit
 *
 * The states of a bell and their transitions are in mp_ring.h.
 */
#ifndef MP_HAND_OFF_H
#define MP_HAND_OFF_H

#include "mp_stage.h"

/* Stages that other workers may run inline.  The others wait for descriptors, which wake their own process. */
#define MP_INLINE_STAGES (1u << MP_CLASSIFY | 1u << MP_OVERLAY_EGRESS)

/* Return whether the stage has slots or repair requests to work on. */
int mp_hand_off_is_ready(const struct mp_worker *w, uint32_t stage);

/* Take over a stage from a dead predecessor: slots that it had in work are skipped and counted. */
void mp_hand_off_inherit(struct mp_worker *w, uint32_t stage);

/* Become the runner of the worker's own stages, but for those that another worker runs inline now. */
void mp_hand_off_take_own(struct mp_worker *w);
void mp_hand_off_give_own(struct mp_worker *w);

/* After mp_publish: if the own process of `stage` sleeps, hold the stage for the rest of this round, or wake the
 * process if `has_more` says that this worker has other work, or if it must not run the stage. */
void mp_hand_off(struct mp_worker *w, uint32_t stage, int has_more);

/* At the end of a round: give the inline stages back, and wake their processes for work that is left or was added. */
void mp_hand_off_give_inline(struct mp_worker *w);

#endif
