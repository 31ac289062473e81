/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mp_layout: the shared memory of one instance, and its whole ABI.
 *
 * One POSIX shared-memory region holds everything that the processes of an instance share.  This file is all that they
 * agree on: fixed-width fields, offsets from the start of the region instead of pointers, one writer for each cache
 * line.  It knows no system call and no process.
 *
 *   part                              contents                                        writer
 *   mp_region                         geometry, offsets                               supervisor, once
 *     mp_process[1 + lanes * 4]       pid, state and restarts of each process         supervisor, the process itself
 *     mp_published                    versions of links, keys and sender              control
 *     mp_sender                       origin and sender keys of this node             control
 *     mp_fib, buckets, entries        forwarding table                                control
 *     mp_link[]                       endpoints of peers                              control
 *     mp_key[]                        sender keys of peers                            control
 *     mp_window[]                     replay windows                                  overlay_ingress
 *     mp_repair_track[]               datagrams received of each repaired stream      overlay_ingress
 *     mp_repair_request[]             datagrams to retransmit                         control
 *     mp_lane[]                       cursors, doorbells, sequence numbers            the stages of the lane
 *       host slots, overlay slots     packets and super-buffers                       the stage that owns the slot
 *       mp_unresolved[]               packets that wait for a route                   classify
 *     rates                           token buckets of peers and groups               classify, overlay_ingress
 *     queries                         ports from which programs have sent to groups   classify
 *     mp_counters[lanes * 4 + 1]      counters of each stage; the last are control's  the stage, control
 *     mp_link_tx[], mp_link_rx[]      figures of each link, for each lane             overlay_egress, overlay_ingress
 *     streams                         next stream sequence number of each stream      classify
 *
 * Lifecycle: the supervisor creates and formats the region, and only the supervisor unlinks it.  All others attach and
 * check magic, version and size.  Control reserves the pages behind `lazy_at` (forwarding entries, windows) before it
 * uses them.  A full /dev/shm is therefore an error in control and never a SIGBUS in a stage.
 */
#ifndef MP_LAYOUT_H
#define MP_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define MP_MAGIC UINT64_C(0x314e4950534d434d) /* "MCMSPIN1" */
#define MP_VERSION 7u
#define MP_CACHE_LINE 64u

/* ---- bounds, each with its reason ---- */

#define MP_LANES_MAX 16u        /* 64 worker processes; the top byte of a sequence number has room for 2 * 16 spaces */
#define MP_LINKS_MAX 1024u      /* nodes of one overlay: the link set of an entry takes 128 bytes */
#define MP_LINK_WORDS (MP_LINKS_MAX / 64u)
#define MP_KEYS_MAX 2048u       /* two epochs for each node, so that keys can rotate without loss */
#define MP_WINDOWS_MAX 16384u   /* two sequence spaces a lane and key: 1,024 nodes of 4 lanes that rotate at once */
#define MP_WINDOW_WORDS 2048u   /* 32 numbers each: 65,536, by which the paths of one origin may differ */
#define MP_STREAMS 65536u       /* stream counters: one for each of the 65,536 groups */
#define MP_RATES (3u * 16384u)  /* token buckets: groups sent to, groups received, peers; see mp_policy.h */
#define MP_QUERIES 4096u        /* ports with an open query: some hundred programs that search at one instant */
#define MP_HEADROOM 64u         /* before the inner packet: vnet header (10) and overlay header (20) */
#define MP_RUNS_MAX 64u         /* as many as the datagrams of one super-buffer can differ in their next hops */
#define MP_SUPER_BYTES 65536u   /* the largest UDP super-packet that the kernel returns */
#define MP_KEY_BYTES 32u
#define MP_STRIPES_MAX 8u       /* trees that the packets of a stream alternate between: limits.STRIPES_MAX; 4 bits */
#define MP_UNRESOLVED 64u       /* packets of a lane that wait for a route: the first packets of some flows */

#define MP_REPAIR_TRACKS 1024u  /* streams with gap detection: the groups of one host, or 16 groups of 64 sources */
#define MP_REPAIR_TRACK_WAYS 4u /* places among which the name of a stream chooses */
#define MP_REPAIR_TRACK_WORDS 16u /* of 32 numbers each: 480 numbers back, half a second of 11 Mbit/s */
#define MP_REPAIR_TRACK_NUMBERS (32u * MP_REPAIR_TRACK_WORDS)
#define MP_REPAIR_REQUESTS 64u  /* that control has added and some lane has not carried out: 64 peers at one instant */
#define MP_REPAIR_REQUEST_NUMBERS 60u /* of one request: it fills four cache lines */

#define MP_NO_LINK 0xffffu      /* a datagram from no known link; an entry for any incoming link */
#define MP_NO_ENTRY 0xffffffffu

enum mp_stage_id { MP_TUN_INGRESS, MP_CLASSIFY, MP_OVERLAY_EGRESS, MP_OVERLAY_INGRESS, MP_STAGES };

enum mp_process_state { MP_ABSENT, MP_STARTING, MP_READY, MP_STOPPED };

struct mp_geometry {
    uint32_t lanes;
    uint32_t host_slots;        /* a power of two */
    uint32_t host_slot_bytes;   /* stride, a multiple of 64 */
    uint32_t overlay_slots;     /* a power of two */
    uint32_t fib_entries;
    uint32_t fib_buckets;       /* a power of two */
    uint32_t mtu;               /* of the TUN: the largest inner packet */
    uint32_t seed;              /* secret, for the hash of the forwarding table: no sender can aim at one bucket */
    uint64_t probe_secret[2];   /* key of the numbers in probes, see mp_probe.h */
};

struct mp_region {
    uint64_t magic;             /* written last by format, checked first by attach */
    uint32_t version;
    uint32_t reserved;
    uint64_t size;
    struct mp_geometry geometry;
    uint64_t processes_at, published_at, sender_at, fib_at, fib_buckets_at, links_at, keys_at, lanes_at, counters_at;
    uint64_t link_tx_at, link_rx_at, streams_at, rates_at, queries_at, repair_tracks_at, repair_requests_at;
    uint64_t unresolved_at;
    uint64_t host_slots_at, overlay_slots_at;
    uint64_t lazy_at;           /* pages behind this offset are reserved when they are first needed */
    uint64_t fib_entries_at, windows_at;
};

/* Process 0 is control.  The worker of lane l with first stage s is process 1 + 4 * l + s. */
struct mp_process {
    _Alignas(MP_CACHE_LINE) _Atomic uint32_t pid;   /* written by the supervisor */
    _Atomic uint32_t state;     /* enum mp_process_state; ABSENT, STOPPED by the supervisor, the rest by the process */
    _Atomic uint32_t restarts;  /* written by the supervisor */
    uint32_t stages;            /* bit set of enum mp_stage_id */
    uint64_t reserved[6];
};
_Static_assert(sizeof(struct mp_process) == 64, "one line each");

/* Versions and counts that control writes and the stages compare with their own. */
struct mp_published {
    _Alignas(MP_CACHE_LINE) _Atomic uint32_t links_version; /* a reader with a copy of another version is stale */
    _Atomic uint32_t keys_version;
    _Atomic uint32_t sender_version;
    _Atomic uint32_t repairing; /* forwarding entries with MP_ENTRY_REPAIR; 0: overlay_egress keeps no sent slots */
    _Atomic uint64_t requests;  /* repair requests ever added; the next goes to place requests % MP_REPAIR_REQUESTS */
    uint32_t reserved[10];
};
_Static_assert(sizeof(struct mp_published) == 64, "one line");

/* This node as a sender: the keys of the epochs in use.  The key of an epoch stands in slot epoch & 1. */
struct mp_sender {
    _Alignas(MP_CACHE_LINE) _Atomic uint32_t generation;    /* odd while control writes */
    uint32_t origin;
    uint32_t sealed;            /* 0: --insecure, datagrams have no tag */
    uint8_t epoch[2];
    uint8_t active;             /* slot of the epoch that new datagrams use */
    uint8_t reserved;
    uint8_t key[2][MP_KEY_BYTES];
    uint8_t padding[48];
};
_Static_assert(sizeof(struct mp_sender) == 128, "two lines");

/* ---- forwarding table (MFIB) ---- */

enum mp_side { MP_SIDE_HOST, MP_SIDE_OVERLAY };
enum mp_kind { MP_KIND_GROUP, MP_KIND_UNICAST, MP_KIND_FLOOD, MP_KIND_SOURCE };
#define MP_STRIPE_SHIFT 4u      /* of the stripe in mp_fib_key.kind */

enum mp_entry_flag {
    MP_ENTRY_LOCAL = 1,
    MP_ENTRY_REPAIR = 2,        /* stages report gaps of the stream to control and keep its datagrams */
};

struct mp_fib_key {             /* unused fields are zero; IPv4 as ::ffff:a.b.c.d */
    uint8_t group[16];          /* group; MP_KIND_UNICAST: destination; MP_KIND_SOURCE: address that the origin may send
                                 * from; MP_KIND_FLOOD: ::ffff:0:0 (IPv4) or :: (IPv6) */
    uint8_t source[16];         /* host side, (S,G) only */
    uint32_t origin;            /* overlay side, (origin,G) only */
    uint16_t via;               /* incoming link, MP_NO_LINK for any */
    uint8_t side;               /* enum mp_side */
    uint8_t kind;               /* enum mp_kind; in the bits from MP_STRIPE_SHIFT on the stripe: numbers n % stripes */
};
_Static_assert(sizeof(struct mp_fib_key) == 40, "hashed and compared as bytes: no padding");

struct mp_fib_entry {           /* does not change while it is reachable: an update is a new entry */
    _Alignas(MP_CACHE_LINE) _Atomic uint32_t generation;    /* odd while it is being filled */
    _Atomic uint32_t next;      /* index in the chain, MP_NO_ENTRY at its end */
    uint32_t hash;
    uint32_t stream;            /* index of the group's stream counter, by which control and stages name the stream */
    struct mp_fib_key key;
    _Atomic uint32_t used;      /* stages set it when they forward by the entry, control clears it */
    uint8_t flags;
    uint8_t reserved;
    uint8_t stripes;            /* in the entry of stripe 0: entries that the stream alternates between; 0 and 1: one */
    uint8_t words;              /* words of links[] in use */
    uint64_t links[MP_LINK_WORDS];
};
_Static_assert(sizeof(struct mp_fib_entry) == 192, "three lines");
_Static_assert(offsetof(struct mp_fib_entry, links) == 64, "a small overlay touches two lines");

struct mp_fib {
    _Alignas(MP_CACHE_LINE) _Atomic uint32_t version;   /* every change increments it: it validates caches of readers */
    _Atomic uint32_t entries;   /* entries in use */
    _Atomic uint32_t high_water; /* entries ever used: a restarted writer scans so many */
    _Atomic uint32_t specific[2]; /* by side: entries with source, origin or via; 0: readers skip that look-up */
    uint32_t reserved[11];
};
_Static_assert(sizeof(struct mp_fib) == 64, "one line");

/* ---- links and keys ---- */

struct mp_endpoint {
    uint16_t family;            /* AF_INET, AF_INET6; 0: none */
    uint16_t port;              /* host order */
    uint32_t scope;
    uint8_t address[16];
};
_Static_assert(sizeof(struct mp_endpoint) == 24, "");

struct mp_link {
    _Alignas(MP_CACHE_LINE) _Atomic uint32_t generation;    /* odd while control writes */
    uint32_t node;              /* 0: free */
    uint32_t up;                /* the control session is up: probes are sent */
    uint8_t is_host_known;      /* the candidate's host has connected to this node: it is no stranger */
    uint8_t has_probe_keys;     /* probes and echoes are sealed with the keys below, not with sender keys */
    uint8_t reserved[2];
    struct mp_endpoint endpoint;    /* has answered a probe: datagrams go there, and nowhere else */
    struct mp_endpoint candidate;   /* has not answered yet: gets probes only */
    uint8_t probe_seal[MP_KEY_BYTES], probe_open[MP_KEY_BYTES]; /* to the peer, and from it: only these two know them */
};
_Static_assert(sizeof(struct mp_link) == 128, "two lines");

struct mp_key {
    _Alignas(MP_CACHE_LINE) _Atomic uint32_t generation;    /* odd while control writes */
    uint32_t origin;            /* 0: free */
    uint8_t epoch;
    uint8_t sealed;
    uint16_t lanes;             /* of the origin: 2 * lanes windows, the first half for data, the second for probes */
    uint32_t window;            /* index of the first window */
    uint8_t key[MP_KEY_BYTES];
    uint8_t padding[16];
};
_Static_assert(sizeof(struct mp_key) == 64, "one line");

/* A word is (block number << 32 | bit map of 32 sequence numbers), see mp_seal.h. */
struct mp_window {
    _Alignas(MP_CACHE_LINE) _Atomic uint64_t word[MP_WINDOW_WORDS];
};
_Static_assert(sizeof(struct mp_window) == 16384, "");

/* ---- lanes ---- */

struct mp_cursor {
    _Alignas(MP_CACHE_LINE) _Atomic uint64_t at;    /* slots passed since the start: 64 bits never wrap */
    _Atomic uint64_t freed;     /* last stage of a ring: slots before it may be filled anew; up to `at` it keeps them */
    uint64_t reserved[6];
};
_Static_assert(sizeof(struct mp_cursor) == 64, "one line a writer");

/* The states of `runner` and `sleeping` are in mp_ring.h. */
struct mp_bell {
    _Alignas(MP_CACHE_LINE) _Atomic uint32_t sleeping;  /* the stage's own process sleeps, or is about to */
    _Atomic uint32_t runner;    /* 1 + first stage of the worker that runs the stage now; 0: no worker */
    uint32_t reserved[14];
};

struct mp_lane {
    struct mp_cursor host[3];       /* tun_ingress, classify, overlay_egress */
    struct mp_cursor overlay[2];    /* overlay_ingress, overlay_egress */
    struct mp_bell bell[MP_STAGES];
    struct mp_cursor data_sequence;     /* classify: incremented before the number is used, never decremented */
    struct mp_cursor probe_sequence;    /* overlay_ingress */
    struct mp_cursor requests;          /* overlay_egress: repair requests that it has carried out */
    struct mp_cursor unresolved[2];     /* classify adds packets, tun_ingress takes them */
};
_Static_assert(sizeof(struct mp_lane) == 64 * 14, "");

/* A slot of the host ring, which holds a packet in all of its stages. */
struct mp_slot {
    _Alignas(MP_CACHE_LINE) uint32_t length;    /* of the inner packet; after classify of the whole datagram */
    uint16_t words;             /* words of links[] in use; 0: not sent */
    uint16_t flow;              /* hash of source and destination: datagrams of one hash leave in order */
    uint16_t stream;            /* of a datagram that is kept for repair, else 0 */
    uint16_t round;             /* of an unresolved packet: the round that put it back, see mp_unresolved.h */
    uint64_t unresolved_ns;     /* since when the packet has waited for a route; 0: it comes from the TUN */
    uint64_t links[MP_LINK_WORDS];
    uint8_t padding[40];
    uint8_t headroom[MP_HEADROOM];  /* vnet and overlay header end where the packet begins, which follows */
};
_Static_assert(sizeof(struct mp_slot) == 256, "the inner packet begins on a line");

/* A packet that waits for a route, see mp_unresolved.h.  Its bytes follow. */
struct mp_unresolved {
    _Alignas(MP_CACHE_LINE) uint64_t since_ns;
    uint32_t length;
    uint32_t reserved[13];
};
_Static_assert(sizeof(struct mp_unresolved) == 64, "");

/* Consecutive datagrams of a super-buffer that are relayed to the same links. */
struct mp_run {
    uint32_t offset;            /* in data[] */
    uint32_t length;
    uint32_t words;
    uint32_t came_from;         /* incoming link, which gets no copy */
    uint64_t links[MP_LINK_WORDS];
};

/* A slot of the overlay ring: one received super-buffer and its runs. */
struct mp_super {
    _Alignas(MP_CACHE_LINE) uint32_t length;
    uint32_t segment;           /* length of each datagram but the last, which may be shorter */
    uint32_t runs;
    uint32_t kept;              /* datagrams that are kept for repair; 0: stream[] is not filled */
    uint32_t reserved[12];
    uint16_t stream[MP_RUNS_MAX];   /* of each datagram; 0: not kept */
    struct mp_run run[MP_RUNS_MAX];
    _Alignas(MP_CACHE_LINE) uint8_t data[MP_SUPER_BYTES];
};
_Static_assert(offsetof(struct mp_super, data) % 64 == 0 && sizeof(struct mp_super) % 64 == 0, "");

/* ---- repair ---- */

/* The received datagrams of a stream, see mp_repair_track.h. */
struct mp_repair_track {
    _Alignas(MP_CACHE_LINE) _Atomic uint64_t name;  /* 0: free */
    _Atomic uint64_t arrived_ns;        /* arrival of its last datagram */
    _Atomic uint32_t highest;           /* highest number that has arrived */
    _Atomic uint32_t is_pending;        /* some worker has queued a report of its gap, see mp_repair_gaps.h */
    _Atomic uint64_t reported;          /* digest of the numbers last reported to control; 0: none are missing */
    _Atomic uint32_t reported_highest;  /* highest number ever reported missing */
    uint32_t reserved[7];
    _Atomic uint64_t word[MP_REPAIR_TRACK_WORDS];
};
_Static_assert(sizeof(struct mp_repair_track) == 192, "three lines");

/* Datagrams to retransmit to a peer.  Each lane reads each request: a datagram lies in the rings of one lane. */
struct mp_repair_request {
    _Alignas(MP_CACHE_LINE) uint32_t link;
    uint32_t origin, stream;
    uint32_t count;
    uint32_t number[MP_REPAIR_REQUEST_NUMBERS];
};
_Static_assert(sizeof(struct mp_repair_request) == 256, "four lines");

/* ---- statistics ---- */

struct mp_link_tx {             /* written by overlay_egress of the lane */
    _Atomic uint64_t datagrams, bytes, errors, reserved;
};

struct mp_link_rx {             /* written by overlay_ingress of the lane */
    _Alignas(MP_CACHE_LINE) _Atomic uint64_t datagrams;
    _Atomic uint64_t bytes;
    _Atomic uint64_t probes, echoes;    /* probes sent, echoes received: lane 0 only */
    _Atomic uint64_t rtt_ns;            /* smoothed; 0: unknown */
    _Atomic uint64_t loss_ppm;          /* smoothed share of probes without an echo */
    _Atomic uint64_t probe_bytes;       /* probes and echoes that overlay_ingress sent */
    _Atomic uint64_t answered;          /* probes of the peer that this node answered */
};
_Static_assert(sizeof(struct mp_link_rx) == 64, "one line");

#define MP_COUNTER_SLOTS 64u    /* of a block, see mp_counter.h */

/* The counters of one stage of one lane, or of control: one writer. */
struct mp_counters {
    _Alignas(MP_CACHE_LINE) _Atomic uint64_t value[MP_COUNTER_SLOTS];
};

/* ---- life cycle ---- */

/* Return the bytes that a region of this geometry needs, 0 if the geometry breaks a bound. */
uint64_t mp_region_size(const struct mp_geometry *geometry);

/* Return how many of them must have memory behind them before mp_region_format(); the rest is reserved when needed. */
uint64_t mp_region_lazy_at(const struct mp_geometry *geometry);

/* Lay out zeroed memory of mp_region_size() bytes.  Returns 0 or -EINVAL. */
int mp_region_format(void *base, const struct mp_geometry *geometry);

/* Check memory that another process formatted.  Returns 0, -EPROTO (magic), -EPROTONOSUPPORT (version) or -EMSGSIZE. */
int mp_region_check(const void *base, uint64_t size);

/* ---- addresses inside a region ---- */

static inline void *mp_at(const struct mp_region *r, uint64_t offset)
{
    return (char *)(uintptr_t)r + offset;
}

static inline struct mp_process *mp_processes(const struct mp_region *r) { return mp_at(r, r->processes_at); }
static inline struct mp_published *mp_published(const struct mp_region *r) { return mp_at(r, r->published_at); }
static inline struct mp_sender *mp_sender(const struct mp_region *r) { return mp_at(r, r->sender_at); }
static inline struct mp_fib *mp_fib(const struct mp_region *r) { return mp_at(r, r->fib_at); }
static inline struct mp_link *mp_links(const struct mp_region *r) { return mp_at(r, r->links_at); }
static inline struct mp_key *mp_keys(const struct mp_region *r) { return mp_at(r, r->keys_at); }
static inline struct mp_window *mp_windows(const struct mp_region *r) { return mp_at(r, r->windows_at); }
static inline _Atomic uint32_t *mp_streams(const struct mp_region *r) { return mp_at(r, r->streams_at); }

static inline struct mp_repair_track *mp_repair_tracks(const struct mp_region *r)
{
    return mp_at(r, r->repair_tracks_at);
}

/* Bytes of an unresolved packet's place: header and the largest packet, a multiple of a cache line. */
static inline uint64_t mp_unresolved_bytes(const struct mp_geometry *g)
{
    return sizeof(struct mp_unresolved) + (g->mtu + MP_CACHE_LINE - 1) / MP_CACHE_LINE * MP_CACHE_LINE;
}

/* Place `at` (mod MP_UNRESOLVED) of a lane. */
static inline struct mp_unresolved *mp_unresolved(const struct mp_region *r, uint32_t lane, uint64_t at)
{
    uint64_t place = MP_UNRESOLVED * (uint64_t)lane + at % MP_UNRESOLVED;
    return mp_at(r, r->unresolved_at + place * mp_unresolved_bytes(&r->geometry));
}

static inline struct mp_repair_request *mp_repair_requests(const struct mp_region *r)
{
    return mp_at(r, r->repair_requests_at);
}

static inline _Atomic uint64_t *mp_rates(const struct mp_region *r) { return mp_at(r, r->rates_at); }
static inline _Atomic uint64_t *mp_queries(const struct mp_region *r) { return mp_at(r, r->queries_at); }

static inline struct mp_lane *mp_lane(const struct mp_region *r, uint32_t lane)
{
    return (struct mp_lane *)mp_at(r, r->lanes_at) + lane;
}

static inline struct mp_slot *mp_host_slot(const struct mp_region *r, uint32_t lane, uint64_t cursor)
{
    uint64_t index = (uint64_t)lane * r->geometry.host_slots + (cursor & (r->geometry.host_slots - 1u));
    return mp_at(r, r->host_slots_at + index * r->geometry.host_slot_bytes);
}

static inline struct mp_super *mp_overlay_slot(const struct mp_region *r, uint32_t lane, uint64_t cursor)
{
    uint64_t index = (uint64_t)lane * r->geometry.overlay_slots + (cursor & (r->geometry.overlay_slots - 1u));
    return (struct mp_super *)mp_at(r, r->overlay_slots_at) + index;
}

static inline uint8_t *mp_slot_packet(struct mp_slot *slot)
{
    return (uint8_t *)slot + sizeof *slot;
}

static inline struct mp_link_tx *mp_link_tx(const struct mp_region *r, uint32_t lane)
{
    return (struct mp_link_tx *)mp_at(r, r->link_tx_at) + (uint64_t)lane * MP_LINKS_MAX;
}

static inline struct mp_link_rx *mp_link_rx(const struct mp_region *r, uint32_t lane)
{
    return (struct mp_link_rx *)mp_at(r, r->link_rx_at) + (uint64_t)lane * MP_LINKS_MAX;
}

#endif
