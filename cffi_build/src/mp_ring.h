/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_ring: cursors over slots that stay in place (the Disruptor pattern), and the doorbell between two stages.
 *
 *                 producer                         consumer
 *   look          mp_room: slots it may fill       mp_ready: slots it may work on
 *   work          fills slots, alone               reads and changes slots, alone
 *   hand on       mp_publish                       mp_publish of its own cursor: the next stage's ready;
 *                                                  from the last stage mp_release: the first one's room
 *   sleep         -                                mp_runner_give, mp_bell_arm, look again, poll, mp_bell_disarm, mp_runner_take
 *   wake          mp_bell_ring after publishing,
 *                 or mp_runner_take, do the work, mp_runner_give
 *
 * A slot belongs to exactly one stage: the one whose cursor has not passed it and whose upstream cursor has.  A stage
 * is run by one worker at a time, its runner: its own process, or while that sleeps a producer that would otherwise
 * have to wake it.  Who gives a stage back looks once more for work, which may have come meanwhile from another
 * producer, and rings for it.
 * The last stage may keep slots that it has passed: they stay its own, so that it can read them again while nobody
 * overwrites them.
 * Prohibited: touching a slot after publishing it; working a cursor without being the runner; blocking with the bell
 * disarmed.  A runner that died left runner and cursor where they were: its successor calls mp_skip once and goes on.
 *
 * Cursors are 64-bit counts of slots passed; they never wrap, so there is no empty/full ambiguity.
 */
#ifndef MP_RING_H
#define MP_RING_H

#include "mp_layout.h"

/* Slots between this stage's cursor and the one it follows. */
static inline uint64_t mp_ready(struct mp_cursor *upstream, struct mp_cursor *own)
{
    /* acquire pairs with the release in the upstream stage's mp_publish: its writes to the slots are visible */
    return atomic_load_explicit(&upstream->at, memory_order_acquire) -
           atomic_load_explicit(&own->at, memory_order_relaxed);
}

/* Free slots in front of the first stage. */
static inline uint64_t mp_room(struct mp_cursor *own, struct mp_cursor *last, uint32_t slots)
{
    /* acquire pairs with the release in the last stage's mp_release: it is done reading the slots */
    return slots - (atomic_load_explicit(&own->at, memory_order_relaxed) -
                    atomic_load_explicit(&last->freed, memory_order_acquire));
}

static inline uint64_t mp_position(struct mp_cursor *own)
{
    return atomic_load_explicit(&own->at, memory_order_relaxed);
}

/* Hands `count` slots to the next stage. */
static inline void mp_publish(struct mp_cursor *own, uint64_t count)
{
    atomic_store_explicit(&own->at, mp_position(own) + count, memory_order_release);
}

/* The last stage is done with `count` slots more, and gives all back to the first but the last `kept` it has passed. */
static inline void mp_release(struct mp_cursor *own, uint64_t count, uint64_t kept)
{
    uint64_t at = mp_position(own) + count, freed = atomic_load_explicit(&own->freed, memory_order_relaxed);
    atomic_store_explicit(&own->at, at, memory_order_release);
    if (at - freed > kept)
        atomic_store_explicit(&own->freed, at - kept, memory_order_release);
}

/* What a successor does for a stage that died: passes over the slots it may have half changed.  Returns how many. */
static inline uint64_t mp_skip(struct mp_cursor *upstream, struct mp_cursor *own)
{
    uint64_t count = mp_ready(upstream, own);
    mp_release(own, count, 0);
    return count;
}

/* The consumer says that it is about to sleep; it must look at its rings once more before it does. */
static inline void mp_bell_arm(struct mp_bell *bell)
{
    atomic_store_explicit(&bell->sleeping, 1u, memory_order_relaxed);
    /* pairs with the fence in mp_bell_claim: either the producer sees the flag or we see its slots */
    atomic_thread_fence(memory_order_seq_cst);
}

static inline void mp_bell_disarm(struct mp_bell *bell)
{
    atomic_store_explicit(&bell->sleeping, 0u, memory_order_relaxed);
}

/* After publishing: does the stage's own process sleep? */
static inline int mp_bell_armed(struct mp_bell *bell)
{
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&bell->sleeping, memory_order_relaxed) != 0;
}

/* After publishing: must the producer write the eventfd?  Clears the flag, so that one write is enough. */
static inline int mp_bell_claim(struct mp_bell *bell)
{
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&bell->sleeping, memory_order_relaxed) &&
           atomic_exchange_explicit(&bell->sleeping, 0u, memory_order_relaxed);
}

/* Rings the eventfd if its consumer sleeps.  A full eventfd has been rung already: nothing can fail. */
void mp_bell_ring(struct mp_bell *bell, int fd);

/* Wakes the process that polls the eventfd, whatever it sleeps for. */
void mp_bell_write(int fd);

/* Empties the eventfd after a wake-up. */
void mp_bell_clear(int fd);

/* ---- who runs a stage ---- */

/* Becomes the runner; 0 if another worker is. */
static inline int mp_runner_take(struct mp_bell *bell, uint32_t worker)
{
    uint32_t nobody = 0;
    /* acquire pairs with the release in mp_runner_give: cursor, slots and counters are as the last runner left them */
    return atomic_compare_exchange_strong_explicit(&bell->runner, &nobody, worker, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Is the runner no more; must look for work afterwards, behind the fence of mp_bell_arm or mp_bell_armed. */
static inline void mp_runner_give(struct mp_bell *bell)
{
    atomic_store_explicit(&bell->runner, 0u, memory_order_release);
}

static inline uint32_t mp_runner(const struct mp_bell *bell)
{
    return atomic_load_explicit(&bell->runner, memory_order_relaxed);
}

#endif
