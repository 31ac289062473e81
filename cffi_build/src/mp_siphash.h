/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_siphash: SipHash-2-4 (Aumasson, Bernstein, 2012) over whole 64-bit words: a hash that nobody can compute without
 * its key.  For the numbers in probes, see mp_probe.h.
 */
#ifndef MP_SIPHASH_H
#define MP_SIPHASH_H

#include <stdint.h>

static inline uint64_t mp_rotate(uint64_t v, unsigned bits)
{
    return v << bits | v >> (64 - bits);
}

static inline void mp_sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = mp_rotate(v[1], 13) ^ v[0];
    v[0] = mp_rotate(v[0], 32);
    v[2] += v[3];
    v[3] = mp_rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = mp_rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = mp_rotate(v[1], 17) ^ v[2];
    v[2] = mp_rotate(v[2], 32);
}

/* Hash `count` words, at most 31. */
static inline uint64_t mp_siphash(const uint64_t key[2], const uint64_t *words, uint32_t count)
{
    uint64_t v[4] = { key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                      key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573) };
    for (uint32_t i = 0; i <= count; i++) {
        uint64_t word = i < count ? words[i] : (uint64_t)count * 8 << 56;
        v[3] ^= word;
        mp_sip_round(v);
        mp_sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        mp_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
