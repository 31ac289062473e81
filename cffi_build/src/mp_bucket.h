/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_bucket: a token bucket.  It reads no clock: the caller passes the time in nanoseconds.
 */
#ifndef MP_BUCKET_H
#define MP_BUCKET_H

#include <stdint.h>

struct mp_bucket {
    uint64_t filled_ns;
    uint32_t tokens, burst;
    uint32_t per_s;             /* at most 1,000,000,000 */
};

/* A bucket starts full. */
static inline void mp_bucket_init(struct mp_bucket *b, uint32_t per_s, uint32_t burst, uint64_t now_ns)
{
    *b = (struct mp_bucket){ .filled_ns = now_ns, .tokens = burst, .burst = burst, .per_s = per_s };
}

/* Take a token.  Returns 0 if there is none. */
static inline int mp_bucket_take(struct mp_bucket *b, uint64_t now_ns)
{
    uint64_t each_ns = UINT64_C(1000000000) / b->per_s;
    uint64_t more = now_ns > b->filled_ns ? (now_ns - b->filled_ns) / each_ns : 0;
    if (more) {
        b->filled_ns += more * each_ns;
        b->tokens = more >= b->burst - b->tokens ? b->burst : b->tokens + (uint32_t)more;
    }
    if (!b->tokens)
        return 0;
    b->tokens--;
    return 1;
}

#endif
