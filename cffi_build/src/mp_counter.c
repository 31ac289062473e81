/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_counter: the words and texts of the counters, and sums over stages.  See mp_counter.h.
 */
#include "mp_counter.h"

const char *mp_counter_name(uint32_t which)
{
    static const char *const names[] = {
#define MP_WORD(name, text) #name,
        MP_EVENTS(MP_WORD) MP_DROPS(MP_WORD)
#undef MP_WORD
    };
    return which < MP_COUNTERS ? names[which] : NULL;
}

const char *mp_counter_text(uint32_t which)
{
    static const char *const texts[] = {
#define MP_TEXT(name, text) text,
        MP_EVENTS(MP_TEXT) MP_DROPS(MP_TEXT)
#undef MP_TEXT
    };
    return which < MP_COUNTERS ? texts[which] : NULL;
}

uint64_t mp_counter_sum(const struct mp_region *r, uint32_t which, uint32_t lane, uint32_t stage)
{
    uint64_t sum = 0;
    if (which >= MP_COUNTERS)
        return 0;
    for (uint32_t l = 0; l < r->geometry.lanes; l++)
        for (uint32_t s = 0; s < MP_STAGES; s++)
            if ((lane == l || lane >= r->geometry.lanes) && (stage == s || stage >= MP_STAGES))
                sum += atomic_load_explicit(&mp_counters(r, l, s)->value[which], memory_order_relaxed);
    if (lane >= r->geometry.lanes && stage >= MP_STAGES)
        sum += atomic_load_explicit(&mp_control_counters(r)->value[which], memory_order_relaxed);
    return sum;
}
