/* The declarations of the C library for Python (cffi, API mode: the compiler completes "..." from the headers in src/).
 *
 * Shared memory itself stays opaque: Python calls accessors, and knows only the layout of the values that they pass. */

/* ---- mp_layout ---- */

#define MP_LANES_MAX ...
#define MP_LINKS_MAX ...
#define MP_LINK_WORDS ...
#define MP_KEYS_MAX ...
#define MP_WINDOWS_MAX ...
#define MP_KEY_BYTES ...
#define MP_STREAMS ...
#define MP_REPAIR_REQUEST_NUMBERS ...
#define MP_REPAIR_TRACKS ...
#define MP_STRIPES_MAX ...
#define MP_STRIPE_SHIFT ...
#define MP_NO_LINK ...
#define MP_NO_ENTRY ...

enum mp_stage_id { MP_TUN_INGRESS, MP_CLASSIFY, MP_OVERLAY_EGRESS, MP_OVERLAY_INGRESS, MP_STAGES, ... };
enum mp_process_state { MP_ABSENT, MP_STARTING, MP_READY, MP_STOPPED, ... };
enum mp_side { MP_SIDE_HOST, MP_SIDE_OVERLAY, ... };
enum mp_kind { MP_KIND_GROUP, MP_KIND_UNICAST, MP_KIND_FLOOD, MP_KIND_SOURCE, ... };
enum mp_entry_flag { MP_ENTRY_LOCAL, MP_ENTRY_REPAIR, ... };

struct mp_geometry {
    uint32_t lanes;
    uint32_t host_slots;
    uint32_t host_slot_bytes;
    uint32_t overlay_slots;
    uint32_t fib_entries;
    uint32_t fib_buckets;
    uint32_t mtu;
    uint32_t seed;
    uint64_t probe_secret[2];
    ...;
};

struct mp_region {
    uint64_t size;
    struct mp_geometry geometry;
    ...;
};

uint64_t mp_region_size(const struct mp_geometry *geometry);
uint64_t mp_region_lazy_at(const struct mp_geometry *geometry);
int mp_region_format(void *base, const struct mp_geometry *geometry);
int mp_region_check(const void *base, uint64_t size);

/* ---- mp_views ---- */

enum mp_ring_id { MP_RING_HOST, MP_RING_OVERLAY, MP_RINGS, ... };

struct mp_process_view {
    uint32_t pid;
    uint32_t state;
    uint32_t restarts;
    uint32_t stages;
    ...;
};

struct mp_ring_view {
    uint32_t slots;
    uint32_t stages;
    uint32_t stage[...];
    uint64_t passed[...];
    uint32_t sleeping[...];
    ...;
};

struct mp_link_view {
    uint64_t tx_datagrams, tx_bytes, tx_errors, rx_datagrams, rx_bytes, probes, echoes, answered, rtt_ns, loss_ppm;
    ...;
};

uint32_t mp_host_slot_bytes(uint32_t mtu);
uint64_t mp_fib_entry_at(const struct mp_region *r, uint32_t index);
uint64_t mp_window_at(const struct mp_region *r, uint32_t index);
int mp_process_get(const struct mp_region *r, uint32_t index, struct mp_process_view *out);
int mp_process_set_pid(struct mp_region *r, uint32_t index, uint32_t pid);
int mp_process_set_state(struct mp_region *r, uint32_t index, uint32_t state);
int mp_process_set_stages(struct mp_region *r, uint32_t index, uint32_t stages);
int mp_process_count_restart(struct mp_region *r, uint32_t index);
int mp_ring_get(const struct mp_region *r, uint32_t lane, uint32_t ring, struct mp_ring_view *out);
int mp_link_get(const struct mp_region *r, uint32_t index, struct mp_link_view *out);
uint32_t mp_fib_entries(const struct mp_region *r);
uint32_t mp_fib_version(const struct mp_region *r);
uint32_t mp_fib_repairing(const struct mp_region *r);

/* ---- mp_counter ---- */

enum mp_counter_id { MP_COUNTERS, ... };
#define MP_FIRST_DROP ...

const char *mp_counter_name(uint32_t which);
const char *mp_counter_text(uint32_t which);
uint64_t mp_counter_sum(const struct mp_region *r, uint32_t which, uint32_t lane, uint32_t stage);

/* ---- mp_links_keys ---- */

struct mp_endpoint {
    uint16_t family;
    uint16_t port;
    uint32_t scope;
    uint8_t address[16];
    ...;
};

struct mp_link {
    uint32_t node;
    uint32_t up;
    uint8_t is_host_known;
    uint8_t has_probe_keys;
    struct mp_endpoint endpoint;
    struct mp_endpoint candidate;
    uint8_t probe_seal[...];
    uint8_t probe_open[...];
    ...;
};

struct mp_key {
    uint32_t origin;
    uint8_t epoch;
    uint8_t sealed;
    uint16_t lanes;
    uint32_t window;
    uint8_t key[...];
    ...;
};

struct mp_sender {
    uint32_t origin;
    uint32_t sealed;
    uint8_t epoch[2];
    uint8_t active;
    ...;
};

int mp_link_read(const struct mp_region *r, uint32_t index, struct mp_link *out);
int mp_key_read(const struct mp_region *r, uint32_t index, struct mp_key *out);
int mp_sender_read(const struct mp_region *r, struct mp_sender *out);
int mp_link_set(struct mp_region *r, uint32_t index, const struct mp_link *link);
int mp_link_clear(struct mp_region *r, uint32_t index);
int mp_key_set(struct mp_region *r, uint32_t index, uint32_t origin, uint8_t epoch, uint8_t sealed, uint16_t lanes,
               uint32_t window, const uint8_t *key);
int mp_key_clear(struct mp_region *r, uint32_t index);
int mp_sender_set(struct mp_region *r, uint32_t origin, uint32_t sealed, uint8_t active_epoch, uint8_t even_epoch,
                  const uint8_t *even_key, uint8_t odd_epoch, const uint8_t *odd_key);
int mp_keys_lock(struct mp_region *r);
void mp_keys_wipe(struct mp_region *r);
uint32_t mp_links_keys_repair(struct mp_region *r);

/* ---- mp_fib ---- */

struct mp_fib_key {
    uint8_t group[16];
    uint8_t source[16];
    uint32_t origin;
    uint16_t via;
    uint8_t side;
    uint8_t kind;
};

struct mp_fib_value {
    uint32_t stream;
    uint8_t flags;
    uint8_t stripes;
    uint8_t words;
    uint64_t links[...];
    ...;
};

struct mp_fib_writer;

uint32_t mp_fib_lookup(const struct mp_region *r, const struct mp_fib_key *key, struct mp_fib_value *value);
void mp_fib_stripe(const struct mp_region *r, const struct mp_fib_key *key, uint32_t stripe,
                   struct mp_fib_value *value);
void mp_fib_touch(const struct mp_region *r, uint32_t index);
struct mp_fib_writer *mp_fib_writer_new(struct mp_region *r);
void mp_fib_writer_free(struct mp_fib_writer *w);
int mp_fib_set(struct mp_fib_writer *w, const struct mp_fib_key *key, const struct mp_fib_value *value);
int mp_fib_delete(struct mp_fib_writer *w, const struct mp_fib_key *key);
uint32_t mp_fib_high_water(const struct mp_fib_writer *w, uint32_t more);
int mp_fib_next(const struct mp_fib_writer *w, uint32_t *cursor, struct mp_fib_key *key, struct mp_fib_value *value,
                uint32_t *used, int clear_used);
int mp_fib_next_used(const struct mp_fib_writer *w, uint32_t *cursor, struct mp_fib_key *key);

/* ---- mp_lookup ---- */

struct mp_packet {
    uint8_t class;
    ...;
};

int mp_packet_parse(const uint8_t *bytes, uint32_t available, struct mp_packet *out);
uint32_t mp_lookup_host(const struct mp_region *r, const struct mp_packet *p, struct mp_fib_key *key,
                        struct mp_fib_value *value);
uint32_t mp_lookup_overlay(const struct mp_region *r, const struct mp_packet *p, uint32_t origin, uint32_t via,
                           struct mp_fib_key *key, struct mp_fib_value *value);

/* ---- mp_repair_gaps, mp_repair_track, mp_repair_requests ---- */

struct mp_repair_gap {
    uint32_t origin;
    uint32_t stream;
    uint32_t via;
    uint32_t count;
    uint32_t number[...];
    ...;
};

struct mp_tracked_stream {
    uint32_t origin, stream, highest;
};
uint32_t mp_repair_track_list(const struct mp_region *r, struct mp_tracked_stream *out);

int mp_repair_request_add(struct mp_region *r, uint32_t link, uint32_t origin, uint32_t stream, const uint32_t *numbers,
                          uint32_t count);

/* ---- mp_policy ---- */

#define MP_PREFIXES_MAX ...

struct mp_prefix {
    uint8_t address[16];
    uint8_t bits;
    ...;
};

struct mp_prefixes {
    uint32_t count;
    struct mp_prefix prefix[...];
    ...;
};

enum mp_unicast { MP_UNICAST_ALL, MP_UNICAST_DISCOVERY, MP_UNICAST_NONE, ... };

struct mp_policy {
    struct mp_prefixes send_allow, send_deny, receive_allow, receive_deny;
    uint32_t bound_sources, peer_pps, send_pps, receive_pps, unicast, has_unicast_ports;
    uint8_t unicast_port[...];
    ...;
};

/* ---- mp_worker ---- */

enum mp_idle { MP_IDLE_ADAPTIVE, MP_IDLE_BUSY, MP_IDLE_SLEEP, ... };

struct mp_worker_config {
    uint32_t lane;
    uint32_t stages;
    uint32_t inline_stages;
    uint32_t idle;
    uint32_t super;
    uint32_t moderation_us;
    int tun, udp;
    int wake;
    int bell[...];
    const struct mp_policy *policy;
    ...;
};

struct mp_worker;

struct mp_worker *mp_worker_new(struct mp_region *region, const struct mp_worker_config *config);
void mp_worker_free(struct mp_worker *w);
int mp_worker_run(struct mp_worker *w, uint64_t budget_ns);

/* ---- mp_punt ---- */

#define MP_PUNT_BYTES ...

enum mp_punt_kind { MP_PUNT_MEMBERSHIP, MP_PUNT_SOURCE, MP_PUNT_ENDPOINT, MP_PUNT_GAP, MP_PUNT_FORGERY,
                    MP_PUNT_CANDIDATE, ... };

uint32_t mp_punt_take(struct mp_worker *w, uint32_t *kind, uint8_t *out, uint32_t size);
void mp_punt_lost(struct mp_worker *w, uint32_t kind);
