/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_seqlock: values in shared memory that one process rewrites while others copy them (after H.-J. Boehm, "Can
 * seqlocks get along with programming language memory models?", 2012).
 *
 *   writer  mp_seq_begin (generation becomes odd) ─▶ mp_words_store… ─▶ mp_seq_end (even)
 *   reader  mp_seq_enter ─▶ mp_words_load… ─▶ mp_seq_same: the copy is whole, or is thrown away
 *
 * Both sides move whole 32-bit words, each a relaxed atomic: a torn copy is noticed, and is no undefined behaviour.
 * A writer that dies half-way leaves the generation odd; readers then have no copy until its successor writes again.
 */
#ifndef MP_SEQLOCK_H
#define MP_SEQLOCK_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* Copies local words into shared ones. */
static inline void mp_words_store(void *shared, const void *local, uint32_t words)
{
    _Atomic uint32_t *to = shared;
    for (uint32_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, (const char *)local + 4 * i, sizeof word);
        atomic_store_explicit(&to[i], word, memory_order_relaxed);
    }
}

/* Copies shared words into local ones. */
static inline void mp_words_load(void *local, const void *shared, uint32_t words)
{
    const _Atomic uint32_t *from = shared;
    for (uint32_t i = 0; i < words; i++) {
        uint32_t word = atomic_load_explicit(&from[i], memory_order_relaxed);
        memcpy((char *)local + 4 * i, &word, sizeof word);
    }
}

/* The value is about to change.  A generation that a dead writer left odd is taken over as it is. */
static inline void mp_seq_begin(_Atomic uint32_t *generation)
{
    uint32_t odd = atomic_load_explicit(generation, memory_order_relaxed) | 1u;
    atomic_store_explicit(generation, odd, memory_order_relaxed);
    /* pairs with the fence in mp_seq_same: who sees one of the words stored from here on sees the odd generation */
    atomic_thread_fence(memory_order_release);
}

static inline void mp_seq_end(_Atomic uint32_t *generation)
{
    uint32_t even = atomic_load_explicit(generation, memory_order_relaxed) + 1u;
    /* release pairs with the acquire in mp_seq_enter: who sees this generation sees the words */
    atomic_store_explicit(generation, even, memory_order_release);
}

/* The generation to compare with; odd: the value is being changed, do not bother to copy it. */
static inline uint32_t mp_seq_enter(const _Atomic uint32_t *generation)
{
    return atomic_load_explicit(generation, memory_order_acquire); /* pairs with the release in mp_seq_end */
}

/* Whether nothing was written since mp_seq_enter() returned `entered`. */
static inline int mp_seq_same(const _Atomic uint32_t *generation, uint32_t entered)
{
    atomic_thread_fence(memory_order_acquire); /* pairs with the fence in mp_seq_begin */
    return !(entered & 1u) && atomic_load_explicit(generation, memory_order_relaxed) == entered;
}

#endif
