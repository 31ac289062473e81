/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_punt: the queue and its limits.  See mp_punt.h.
 */
#include "mp_punt.h"

#include <errno.h>
#include <stdlib.h>

#include "mp_bucket.h"
#include "mp_stage.h"

#define SLOTS 256u              /* more than a burst can add: the queue is emptied after each */
#define REPORTS_PER_S 25000u    /* control handles twice as many; 20,000 must pass however unevenly they arrive */
#define REPORTS_BURST 8192u     /* 2,000 joins at once, in two versions, each repeated */
#define GAPS_PER_S 25u          /* a gap and the messages that follow cost control and its peers' 1 ms: 3 % of a core */
#define GAPS_BURST 50u          /* a report that was put off is sent together with the gaps that exist by then */
#define NEWS_PER_S 1000u        /* new sources and endpoints: a flood of them must not crowd out membership */

struct punt {
    uint32_t kind, length;
    uint8_t bytes[MP_PUNT_BYTES];
};

struct mp_punts {
    struct mp_bucket reports, news, gaps;
    uint32_t head, tail;
    struct punt slot[SLOTS];
};

int mp_punts_init(struct mp_worker *w)
{
    struct mp_punts *s = w->punts = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    mp_bucket_init(&s->reports, REPORTS_PER_S, REPORTS_BURST, w->now_ns);
    mp_bucket_init(&s->news, NEWS_PER_S, NEWS_PER_S, w->now_ns);
    mp_bucket_init(&s->gaps, GAPS_PER_S, GAPS_BURST, w->now_ns);
    return 0;
}

void mp_punts_exit(struct mp_worker *w)
{
    free(w->punts);
}

static void count_refused(struct mp_worker *w, uint32_t stage, uint32_t kind)
{
    uint32_t which = kind == MP_PUNT_MEMBERSHIP ? MP_DROP_report_limit :
                     kind == MP_PUNT_GAP ? (uint32_t)MP_COUNT_gaps_untold : MP_DROP_punt_limit;
    mp_count(w->count[stage], which, 1);
}

int mp_punt_add(struct mp_worker *w, uint32_t stage, uint32_t kind, const void *bytes, uint32_t length)
{
    struct mp_punts *s = w->punts;
    struct mp_bucket *bucket = kind == MP_PUNT_MEMBERSHIP ? &s->reports : kind == MP_PUNT_GAP ? &s->gaps : &s->news;
    if (mp_punts_ready(w) == SLOTS || !mp_bucket_take(bucket, w->now_ns)) {
        count_refused(w, stage, kind);
        return 0;
    }
    struct punt *p = &s->slot[s->head++ % SLOTS];
    p->kind = kind;
    p->length = length < MP_PUNT_BYTES ? length : MP_PUNT_BYTES;
    memcpy(p->bytes, bytes, p->length);
    mp_count(w->count[stage], MP_COUNT_punted, 1);
    return 1;
}

uint32_t mp_punts_ready(const struct mp_worker *w)
{
    return w->punts->head - w->punts->tail;
}

uint32_t mp_punt_take(struct mp_worker *w, uint32_t *kind, uint8_t *out, uint32_t size)
{
    struct mp_punts *s = w->punts;
    if (s->head == s->tail)
        return 0;
    const struct punt *p = &s->slot[s->tail++ % SLOTS];
    uint32_t length = p->length < size ? p->length : size;
    *kind = p->kind;
    memcpy(out, p->bytes, length);
    return length;
}

void mp_punt_lost(struct mp_worker *w, uint32_t kind)
{
    int is_received = kind == MP_PUNT_ENDPOINT || kind == MP_PUNT_GAP || kind == MP_PUNT_FORGERY;
    count_refused(w, is_received ? MP_OVERLAY_INGRESS : MP_CLASSIFY, kind);
}
