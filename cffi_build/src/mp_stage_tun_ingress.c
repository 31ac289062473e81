/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * tun_ingress: moves packets from the TUN queue into the host ring.  It does not read their contents.
 *
 * Under load it reads the TUN once for a batch of packets, as each batch passes through all stages and hosts: reads
 * begin at an interval in which the packets of one run arrive.  At low rates it reads each packet at once.
 *
 * Packets that wait for a route go first, when there may be one: see mp_unresolved.h.
 *
 * When the ring is full it stops reading.  The queue of the interface then fills, and packets that the kernel drops
 * there are counted as drops.tun_queue.
 */
#include "mp_fib.h"
#include "mp_hand_off.h"
#include "mp_tun.h"
#include "mp_unresolved.h"

#define BURST 64u               /* reads before the slots are handed on: a full run for overlay_egress */
#define LOAD_WINDOW_NS 2000000u /* time over which the rate is measured */
#define LOADED_PER_WINDOW 8u    /* 4,000 packets/s: below, each packet gets a wake-up of its own */
#define BATCH_PACKETS 44u       /* of an interval: a full run of full-size datagrams */
#define RETRY_MIN_NS 1000000u   /* between two checks for a route; the interval grows with the time waited */
#define WAIT_MIN_NS 50000u      /* a shorter wait costs as much as it saves */
#define DRAIN_NS 50000u         /* between two checks whether classify has emptied the ring */

/* Return how long the TUN fills before the next read, by the rate of the last load window; 0: read at once. */
static uint32_t moderation_ns(uint64_t packets, uint64_t age_ns, uint64_t most_ns)
{
    if (packets * LOAD_WINDOW_NS < LOADED_PER_WINDOW * age_ns || most_ns < WAIT_MIN_NS)
        return 0;
    uint64_t wait = BATCH_PACKETS * age_ns / packets;
    return (uint32_t)(wait < WAIT_MIN_NS ? WAIT_MIN_NS : wait > most_ns ? most_ns : wait);
}

/* Set when to read again after a burst: at once after a full one, and as soon as poll reports it after an empty one. */
static void moderate(struct mp_worker *w, uint32_t count)
{
    uint64_t age = w->now_ns - w->window_ns;
    w->window_packets += count;
    if (age >= LOAD_WINDOW_NS) {
        w->wait_ns = moderation_ns(w->window_packets, age, (uint64_t)w->config.moderation_us * 1000);
        w->window_packets = 0;
        w->window_ns = w->now_ns;
    }
    w->read_at_ns = count && count < BURST && w->wait_ns ? w->now_ns + w->wait_ns : 0;
}

/* ---- unresolved packets ---- */

uint64_t mp_tun_ingress_due_ns(struct mp_worker *w)
{
    if (!mp_unresolved_ready(w->lane))
        return UINT64_MAX;
    uint64_t since = mp_unresolved_since_ns(w->region, w->config.lane), age = w->now_ns - since;
    uint64_t retry = w->now_ns + RETRY_MIN_NS + age / 2, over = since + MP_UNRESOLVED_NS;
    return retry < over ? retry : over;
}

/* Return whether the table has changed, or the oldest packet has waited for its whole time. */
static int is_round_due(struct mp_worker *w, uint32_t version)
{
    return mp_unresolved_ready(w->lane) &&
           (version != w->unresolved_version ||
            w->now_ns - mp_unresolved_since_ns(w->region, w->config.lane) >= MP_UNRESOLVED_NS);
}

/* Put the unresolved packets into the ring again once it is empty; until then nothing else goes in.  Returns how
 * many. */
static uint32_t put_back(struct mp_worker *w, uint64_t at, uint64_t room)
{
    uint32_t version = atomic_load_explicit(&mp_fib(w->region)->version, memory_order_relaxed), count = 0;
    if (!is_round_due(w, version))
        return 0;
    /* acquire RING_PUBLISH: pairs with mp_publish of classify; packets that it has added meanwhile are seen below */
    int empty = atomic_load_explicit(&w->lane->host[1].at, memory_order_acquire) == at;
    uint64_t ready = mp_unresolved_ready(w->lane);
    if (!empty || room < ready) {
        w->read_at_ns = w->now_ns + DRAIN_NS;
        return 0;
    }
    w->unresolved_version = version;
    w->unresolved_round++;
    while (count < ready)
        mp_unresolved_take(w->region, w->config.lane, mp_host_slot(w->region, w->config.lane, at + count++),
                        w->unresolved_round);
    return count;
}

/* ---- the stage ---- */

uint32_t mp_tun_ingress_burst(struct mp_worker *w)
{
    struct mp_cursor *own = &w->lane->host[0];
    struct mp_counters *c = w->count[MP_TUN_INGRESS];
    const struct mp_geometry *g = &w->region->geometry;
    uint64_t room = mp_room(own, &w->lane->host[2], g->host_slots), at = mp_position(own), bytes = 0;
    uint32_t size = g->host_slot_bytes - (uint32_t)sizeof(struct mp_slot), count = 0;
    uint32_t unresolved = put_back(w, at, room);
    if (unresolved) {
        mp_publish(own, unresolved);
        mp_hand_off(w, MP_CLASSIFY, 1);
        return unresolved;
    }
    if (w->now_ns < w->read_at_ns)
        return 0;
    while (count < BURST && count < room) {
        struct mp_slot *slot = mp_host_slot(w->region, w->config.lane, at + count);
        int n = mp_tun_read(w->config.tun, mp_slot_packet(slot), size);
        if (n <= 0)
            break;
        slot->length = (uint32_t)n;
        slot->words = 0;
        slot->unresolved_ns = 0;
        bytes += (uint32_t)n;
        count++;
    }
    moderate(w, count);
    if (!count)
        return 0;
    mp_publish(own, count);
    mp_hand_off(w, MP_CLASSIFY, count == BURST);
    mp_count(c, MP_COUNT_tun_rx_packets, count);
    mp_count(c, MP_COUNT_tun_rx_bytes, bytes);
    mp_count(c, MP_COUNT_tun_rx_wakeups, 1);
    return count;
}
