/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_reorder: the held datagrams and their streams.  See mp_reorder.h.
 */
#include "mp_reorder.h"

#include <stdlib.h>
#include <string.h>

struct held {
    uint64_t due_ns;
    uint32_t length;
};

struct stream {
    uint64_t name;              /* without the epoch; 0: unused */
    uint32_t next;              /* next number to emit */
    uint32_t count;             /* held datagrams */
    uint16_t place[MP_REORDER_WINDOW];      /* 1 + the place of number n, at n % MP_REORDER_WINDOW; 0: not held */
};

struct mp_reorder {
    mp_reorder_emit *emit;
    void *context;
    uint32_t bytes_max;
    uint32_t free_count, spent_count, active_count;
    uint16_t free[MP_REORDER_HELD];
    uint16_t spent[MP_REORDER_HELD];        /* emitted, not yet delivered */
    uint16_t active[MP_REORDER_STREAMS];    /* streams with held datagrams */
    struct held held[MP_REORDER_HELD];
    struct stream streams[MP_REPAIR_TRACKS];
    uint8_t bytes[];
};

struct mp_reorder *mp_reorder_new(uint32_t bytes_max, mp_reorder_emit *emit, void *context)
{
    uint32_t places = MP_REORDER_BYTES / bytes_max < MP_REORDER_HELD ? MP_REORDER_BYTES / bytes_max : MP_REORDER_HELD;
    struct mp_reorder *s = calloc(1, sizeof *s + (size_t)places * bytes_max);
    if (!s)
        return NULL;
    s->emit = emit;
    s->context = context;
    s->bytes_max = bytes_max;
    while (s->free_count < places) {
        s->free[s->free_count] = (uint16_t)s->free_count;
        s->free_count++;
    }
    return s;
}

void mp_reorder_free(struct mp_reorder *s)
{
    free(s);
}

/* ---- held datagrams ---- */

static uint8_t *bytes_at(struct mp_reorder *s, uint32_t place)
{
    return s->bytes + (size_t)place * s->bytes_max;
}

static void remove_active(struct mp_reorder *s, uint32_t which)
{
    for (uint32_t i = 0; i < s->active_count; i++)
        if (s->active[i] == which) {
            s->active[i] = s->active[--s->active_count];
            return;
        }
}

/* Return 0 if there is no place. */
static int hold(struct mp_reorder *s, uint32_t which, uint32_t number, const uint8_t *bytes, uint32_t length,
                uint64_t due_ns)
{
    struct stream *stream = &s->streams[which];
    uint16_t *at = &stream->place[number % MP_REORDER_WINDOW];
    if (!s->free_count || length > s->bytes_max || *at || (!stream->count && s->active_count == MP_REORDER_STREAMS))
        return 0;
    if (!stream->count++)
        s->active[s->active_count++] = (uint16_t)which;
    uint32_t place = s->free[--s->free_count];
    s->held[place] = (struct held){ due_ns, length };
    memcpy(bytes_at(s, place), bytes, length);
    *at = (uint16_t)(place + 1);
    return 1;
}

/* Emit the next datagram if it is held. */
static int emit_next(struct mp_reorder *s, uint32_t which)
{
    struct stream *stream = &s->streams[which];
    uint16_t *at = &stream->place[stream->next % MP_REORDER_WINDOW];
    if (!stream->count || !*at)
        return 0;
    uint32_t place = *at - 1u;
    *at = 0;
    stream->next++;
    if (!--stream->count)
        remove_active(s, which);
    s->emit(s->context, bytes_at(s, place), s->held[place].length);
    s->spent[s->spent_count++] = (uint16_t)place;   /* after it: emit may recycle the places emitted before */
    return 1;
}

/* Stop waiting for the next number: emit the first held datagram, and those behind it up to the next gap. */
static void skip_gap(struct mp_reorder *s, uint32_t which)
{
    struct stream *stream = &s->streams[which];
    while (stream->count && !stream->place[stream->next % MP_REORDER_WINDOW])
        stream->next++;
    while (emit_next(s, which))
        ;
}

static uint64_t due_of(const struct mp_reorder *s, uint32_t which)
{
    const struct stream *stream = &s->streams[which];
    for (uint32_t n = stream->next; n != stream->next + MP_REORDER_WINDOW; n++)
        if (stream->place[n % MP_REORDER_WINDOW])
            return s->held[stream->place[n % MP_REORDER_WINDOW] - 1u].due_ns;
    return UINT64_MAX;
}

/* Begin a stream.  The first datagram that arrives may have overtaken others.  Returns how far it is ahead. */
static int32_t begin(struct stream *stream, uint64_t name, uint32_t number)
{
    uint32_t behind = number < MP_REORDER_BEHIND ? number : MP_REORDER_BEHIND;
    stream->name = name >> 16;
    stream->next = number - behind;
    return (int32_t)behind;
}

/* ---- the interface ---- */

void mp_reorder_add(struct mp_reorder *s, uint32_t which, uint64_t name, uint32_t number, const uint8_t *bytes,
                      uint32_t length, uint64_t now_ns, uint64_t hold_ns)
{
    struct stream *stream = &s->streams[which];
    int32_t ahead = (int32_t)(number - stream->next);
    if (stream->name != name >> 16 || ahead >= (int32_t)MP_REORDER_WINDOW ||
        ahead < -(int32_t)MP_REPAIR_TRACK_NUMBERS) {
        while (stream->count)
            skip_gap(s, which);
        ahead = begin(stream, name, number);
        hold_ns = hold_ns < MP_REORDER_BEGIN_NS ? hold_ns : MP_REORDER_BEGIN_NS;
    }
    if (ahead > 0 && hold(s, which, number, bytes, length, now_ns + hold_ns))
        return;
    if (ahead > 0) {
        while (stream->count)
            skip_gap(s, which);
        stream->next = number;
        ahead = 0;
    }
    s->emit(s->context, bytes, length);
    if (ahead)
        return;
    stream->next++;
    while (emit_next(s, which))
        ;
}

void mp_reorder_expire(struct mp_reorder *s, uint64_t now_ns)
{
    for (uint32_t i = s->active_count; i-- > 0;) {
        uint32_t which = s->active[i];
        while (s->streams[which].count && due_of(s, which) <= now_ns)
            skip_gap(s, which);
    }
}

uint64_t mp_reorder_due_ns(const struct mp_reorder *s)
{
    uint64_t due = UINT64_MAX;
    for (uint32_t i = 0; i < s->active_count; i++) {
        uint64_t each = due_of(s, s->active[i]);
        due = each < due ? each : due;
    }
    return due;
}

void mp_reorder_recycle(struct mp_reorder *s)
{
    while (s->spent_count)
        s->free[s->free_count++] = s->spent[--s->spent_count];
}
