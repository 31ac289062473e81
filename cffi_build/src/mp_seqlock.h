/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_seqlock: values in shared memory that one process rewrites while others copy them (after H.-J. Boehm, "Can
 * seqlocks get along with programming language memory models?", 2012).
 *
 *   writer  mp_seq_begin (generation becomes odd) ─▶ mp_words_store… ─▶ mp_seq_end (even)
 *   reader  mp_seq_enter ─▶ mp_words_load… ─▶ mp_seq_same: the copy is whole, or the reader discards it
 *
 * Both sides move whole 32-bit words, each by a relaxed atomic access.  A torn copy is detected, and reading it is no
 * undefined behaviour.  A writer that dies half-way leaves the generation odd: readers then get no copy until its
 * successor writes the value again.
 */
#ifndef MP_SEQLOCK_H
#define MP_SEQLOCK_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* Copy local words into shared ones. */
static inline void mp_words_store(void *shared, const void *local, uint32_t words)
{
    _Atomic uint32_t *to = shared;
    for (uint32_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, (const char *)local + 4 * i, sizeof word);
        atomic_store_explicit(&to[i], word, memory_order_relaxed);
    }
}

/* Copy shared words into local ones. */
static inline void mp_words_load(void *local, const void *shared, uint32_t words)
{
    const _Atomic uint32_t *from = shared;
    for (uint32_t i = 0; i < words; i++) {
        uint32_t word = atomic_load_explicit(&from[i], memory_order_relaxed);
        memcpy((char *)local + 4 * i, &word, sizeof word);
    }
}

/* Begin a change.  A generation that a dead writer left odd stays as it is. */
static inline void mp_seq_begin(_Atomic uint32_t *generation)
{
    uint32_t odd = atomic_load_explicit(generation, memory_order_relaxed) | 1u;
    atomic_store_explicit(generation, odd, memory_order_relaxed);
    /* release SEQ_BEGIN: pairs with mp_seq_same; a reader that sees a word stored from here on sees the odd
     * generation */
    atomic_thread_fence(memory_order_release);
}

static inline void mp_seq_end(_Atomic uint32_t *generation)
{
    uint32_t even = atomic_load_explicit(generation, memory_order_relaxed) + 1u;
    /* release SEQ_END: pairs with mp_seq_enter; a reader that sees this generation sees the words */
    atomic_store_explicit(generation, even, memory_order_release);
}

/* Return the generation to compare with.  Odd: the value is being changed, a copy would be discarded. */
static inline uint32_t mp_seq_enter(const _Atomic uint32_t *generation)
{
    /* acquire SEQ_END: pairs with mp_seq_end */
    return atomic_load_explicit(generation, memory_order_acquire);
}

/* Return whether nothing was written since mp_seq_enter() returned `entered`. */
static inline int mp_seq_same(const _Atomic uint32_t *generation, uint32_t entered)
{
    /* acquire SEQ_BEGIN: pairs with mp_seq_begin */
    atomic_thread_fence(memory_order_acquire);
    return !(entered & 1u) && atomic_load_explicit(generation, memory_order_relaxed) == entered;
}

#endif
