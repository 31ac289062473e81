/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_ring: cursors over slots that stay in place (the Disruptor pattern), and the doorbell between two stages.
 *
 *                 producer                         consumer
 *   look          mp_room: slots it may fill       mp_ready: slots it may work on
 *   work          fills slots, alone               reads and changes slots, alone
 *   hand on       mp_publish                       mp_publish of its own cursor: the next stage's mp_ready;
 *                                                  in the last stage mp_release: the first stage's mp_room
 *   sleep         -                                mp_runner_give, mp_bell_arm, look again, poll, mp_bell_disarm,
 *                                                  mp_runner_take
 *   wake          mp_bell_ring after mp_publish,
 *                 or mp_runner_take, do the work,
 *                 mp_runner_give
 *
 * A slot belongs to exactly one stage: the stage whose own cursor has not passed the slot and whose upstream cursor
 * has.  The last stage may keep slots that it has passed.  It can read them again, and no producer overwrites them.
 * Cursors are 64-bit counts of slots passed.  They never wrap, so a full ring and an empty one differ.
 *
 * Prohibited: touching a slot after it was published; moving a cursor without being the stage's runner; blocking while
 * the bell is disarmed.
 *
 * A stage has one runner at a time: its own process, or another worker that runs it inline, because the own process
 * sleeps and waking it would cost more than the work.  tun_ingress and overlay_ingress wait for descriptors, which wake
 * their own process only.  They are never run inline, and their `runner` stays 0.
 *
 * States of a bell: `runner` is 0, own (the stage's own process) or inline (another worker); `sleeping` is 0 or 1.
 *
 *   runner  sleeping  event                     next       by             why
 *   ------------------------------------------------------------------------------------------------------------------
 *   0       0         mp_runner_take            own, 0     own process    a round begins
 *   own     0         mp_runner_give            0, 0       own process    it found no work and is about to sleep
 *   0       0         mp_bell_arm               0, 1       own process    from here on producers must wake it; it looks
 *                                                                         at its rings once more before it sleeps
 *   0       1         mp_bell_disarm            0, 0       own process    that look found work, or poll returned
 *   0       1         mp_bell_claim             0, 0       a producer     it has published, and writes the eventfd
 *   0       1         mp_runner_take            inline, 1  a producer     it has published and has no other work: it
 *                                                                         runs the stage inline until its round ends
 *   inline  1         mp_runner_give            0, 1       inline runner  its round ends; it looks once more for slots
 *                                                                         that others published, and rings for them
 *   inline  1         mp_bell_claim             inline, 0  a producer     it has published, mp_runner_take failed
 *   inline  1         mp_bell_disarm            inline, 0  own process    poll returned: timer, descriptor or bell
 *   inline  0         mp_bell_arm               inline, 1  own process    mp_runner_take failed, and there is no other
 *                                                                         work
 *   inline  0         mp_runner_give            0, 0       inline runner  its round ends; the own process is awake and
 *                                                                         looks at its rings before it sleeps
 *   any     any       death of the runner       unchanged  -              its successor has the same id: it calls
 *                                                                         mp_skip and mp_runner_give
 *   any     1         death of the own process  any, 0     its successor  it is awake when it begins
 *
 * What can not happen:
 *
 *   own, 1                     The own process disarms the bell before it takes the stage, and gives the stage back
 *                              before it arms the bell.
 *   two runners                mp_runner_take is one compare-and-swap from 0.
 *   a take by the runner, or   Each worker keeps the set of the stages that it holds.
 *   a give by another worker
 *   a producer arms the bell   Only the own process sleeps.
 *   0, 1 with slots ready      The fences of BELL order `sleeping` and the cursors: either the own process sees the
 *   and no wake-up under way   slots, or the producer or the inline runner sees the flag and rings.
 */
#ifndef MP_RING_H
#define MP_RING_H

#include "mp_layout.h"

/* ---- cursors ---- */

/* Return the slots between the upstream cursor and the stage's own. */
static inline uint64_t mp_ready(struct mp_cursor *upstream, struct mp_cursor *own)
{
    /* acquire RING_PUBLISH: pairs with mp_publish of the upstream stage; its writes to the slots are visible */
    return atomic_load_explicit(&upstream->at, memory_order_acquire) -
           atomic_load_explicit(&own->at, memory_order_relaxed);
}

/* Return the free slots in front of the first stage. */
static inline uint64_t mp_room(struct mp_cursor *own, struct mp_cursor *last, uint32_t slots)
{
    /* acquire RING_FREE: pairs with mp_release of the last stage; it has finished reading the slots */
    return slots - (atomic_load_explicit(&own->at, memory_order_relaxed) -
                    atomic_load_explicit(&last->freed, memory_order_acquire));
}

static inline uint64_t mp_position(struct mp_cursor *own)
{
    return atomic_load_explicit(&own->at, memory_order_relaxed);
}

/* Hand `count` slots to the next stage. */
static inline void mp_publish(struct mp_cursor *own, uint64_t count)
{
    /* release RING_PUBLISH: pairs with mp_ready of the next stage */
    atomic_store_explicit(&own->at, mp_position(own) + count, memory_order_release);
}

/* The last stage passes `count` slots and frees all that it has passed, but for the last `kept`. */
static inline void mp_release(struct mp_cursor *own, uint64_t count, uint64_t kept)
{
    uint64_t at = mp_position(own) + count, freed = atomic_load_explicit(&own->freed, memory_order_relaxed);
    /* release RING_PUBLISH: pairs with the views of control, which must not see a stage ahead of the one before it */
    atomic_store_explicit(&own->at, at, memory_order_release);
    if (at - freed > kept)
        /* release RING_FREE: pairs with mp_room of the first stage */
        atomic_store_explicit(&own->freed, at - kept, memory_order_release);
}

/* Pass all slots that a dead runner may have half changed.  Returns how many; called by its successor. */
static inline uint64_t mp_skip(struct mp_cursor *upstream, struct mp_cursor *own)
{
    uint64_t count = mp_ready(upstream, own);
    mp_release(own, count, 0);
    return count;
}

/* ---- doorbell ---- */

/* The own process is about to sleep.  It must look at its rings once more after this. */
static inline void mp_bell_arm(struct mp_bell *bell)
{
    atomic_store_explicit(&bell->sleeping, 1u, memory_order_relaxed);
    /* fence BELL: pairs with mp_bell_armed and mp_bell_claim; the producer sees the flag, or we see its slots */
    atomic_thread_fence(memory_order_seq_cst);
}

static inline void mp_bell_disarm(struct mp_bell *bell)
{
    atomic_store_explicit(&bell->sleeping, 0u, memory_order_relaxed);
}

/* After mp_publish or mp_runner_give: return whether the stage's own process sleeps. */
static inline int mp_bell_armed(struct mp_bell *bell)
{
    /* fence BELL: pairs with mp_bell_arm */
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&bell->sleeping, memory_order_relaxed) != 0;
}

/* After mp_publish: return whether the caller must write the eventfd.  Clears the flag, so that one write is enough. */
static inline int mp_bell_claim(struct mp_bell *bell)
{
    /* fence BELL: pairs with mp_bell_arm */
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&bell->sleeping, memory_order_relaxed) &&
           atomic_exchange_explicit(&bell->sleeping, 0u, memory_order_relaxed);
}

/* Write the eventfd if the own process sleeps.  It can not fail: a full eventfd is readable already. */
void mp_bell_ring(struct mp_bell *bell, int fd);

/* Wake the process that polls the eventfd, whether or not the bell is armed. */
void mp_bell_write(int fd);

/* Empty the eventfd after a wake-up. */
void mp_bell_clear(int fd);

/* ---- runner ---- */

/* Become the runner of a stage.  Returns 0 if another worker is. */
static inline int mp_runner_take(struct mp_bell *bell, uint32_t worker)
{
    uint32_t none = 0;
    /* acquire RUNNER: pairs with mp_runner_give; cursor, slots and counters are as the last runner left them */
    return atomic_compare_exchange_strong_explicit(&bell->runner, &none, worker, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Stop being the runner.  The caller must look for work afterwards, behind mp_bell_arm or mp_bell_armed. */
static inline void mp_runner_give(struct mp_bell *bell)
{
    /* release RUNNER: pairs with mp_runner_take */
    atomic_store_explicit(&bell->runner, 0u, memory_order_release);
}

static inline uint32_t mp_runner(const struct mp_bell *bell)
{
    return atomic_load_explicit(&bell->runner, memory_order_relaxed);
}

#endif
