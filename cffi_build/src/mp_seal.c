/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_seal: nonce and associated data of a datagram, and the replay window.  See mp_seal.h.
 */
#include "mp_seal.h"

/* The hop limit changes at each relay and is not authenticated. */
static struct mp_gcm_packet packet_of(const uint8_t *header, uint8_t associated[MP_HEADER_BYTES])
{
    memcpy(associated, header, MP_HEADER_BYTES);
    associated[2] = 0;
    return (struct mp_gcm_packet){ .nonce = header + 4, .associated = associated,
                                   .associated_bytes = MP_HEADER_BYTES };
}

int mp_seal(struct mp_cipher *c, uint8_t *header, uint32_t length)
{
    uint8_t associated[MP_HEADER_BYTES], *body = header + MP_HEADER_BYTES;
    struct mp_gcm_packet p = packet_of(header, associated);
    return mp_gcm_seal(c, &p, body, length, body + length);
}

int mp_open(struct mp_cipher *c, const uint8_t *header, uint32_t length, uint8_t *out)
{
    uint8_t associated[MP_HEADER_BYTES];
    const uint8_t *body = header + MP_HEADER_BYTES;
    struct mp_gcm_packet p = packet_of(header, associated);
    return mp_gcm_open(c, &p, body, length, body + length, out) ? MP_DROP_authentication : 0;
}

/* ---- replay window ---- */

#define SPACE_MASK ((UINT64_C(1) << 56) - 1)

/* Return the word with the number marked, or the word itself if the number is not fresh.  A word without a mark was
 * never used, and its block counts for nothing: with a new key a sender goes on with its numbers, it does not restart
 * at 0. */
static uint64_t marked(uint64_t word, uint64_t block, uint64_t bit)
{
    if (!(uint32_t)word)
        return block << 32 | bit;
    uint32_t newer = (uint32_t)block - (uint32_t)(word >> 32);
    if (!newer)
        return word | bit;
    return newer < UINT32_C(1) << 31 ? block << 32 | bit : word;
}

int mp_window_is_fresh(struct mp_window *w, uint64_t sequence)
{
    uint64_t block = (sequence & SPACE_MASK) >> 5, bit = UINT64_C(1) << (sequence & 31);
    uint64_t word = atomic_load_explicit(&w->word[block % MP_WINDOW_WORDS], memory_order_relaxed);
    return marked(word, block, bit) != word;
}

int mp_window_take(struct mp_window *w, uint64_t sequence)
{
    uint64_t block = (sequence & SPACE_MASK) >> 5, bit = UINT64_C(1) << (sequence & 31), next;
    _Atomic uint64_t *at = &w->word[block % MP_WINDOW_WORDS];
    uint64_t word = atomic_load_explicit(at, memory_order_relaxed);
    do {                        /* two lanes may write here: GRO merges datagrams of several lanes */
        next = marked(word, block, bit);
        if (next == word)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(at, &word, next, memory_order_relaxed, memory_order_relaxed));
    return 1;
}

uint32_t mp_window_highest(struct mp_window *w, uint64_t sequence)
{
    uint32_t own = (uint32_t)((sequence & SPACE_MASK) >> 5), highest = 0;
    for (uint32_t i = 0; i < MP_WINDOW_WORDS; i++) {
        uint64_t word = atomic_load_explicit(&w->word[i], memory_order_relaxed);
        uint32_t ahead = (uint32_t)(word >> 32) - own;
        if ((uint32_t)word && ahead < UINT32_C(1) << 31 && ahead > highest)
            highest = ahead;
    }
    return own + highest;
}
