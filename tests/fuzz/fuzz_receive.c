/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: no datagram that arrives at the data port breaks a node, and no datagram of a node with all keys does.
 * Method: libFuzzer on node 1 of the network of tests/native/network.h.  The input is a row of datagrams: two bytes of
 * length, one byte that selects the header, then the contents.  Raw ones are sent as they are.  The others get a header
 * of a known origin with the next sequence number and, if the network seals, a tag, so that the fuzzer also reaches the
 * code behind the verification.  With FUZZ_PAIR the two nodes have probe keys, which seal probes and echoes.  Their
 * stream takes two stripes and is repaired; its numbers go on, jump or go back.
 * The delivered packets are read back: all must be whole IP packets.
 */
#include "network.h"
#include "mp_seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DATAGRAMS_MAX 32

static struct mp_cipher *cipher, *probe_cipher; /* NULL: no probe keys */
static uint64_t sequence;
static uint32_t stream_sequence;
static int sealed;
static const struct mp_policy policy = { .bound_sources = 1, .peer_pps = 1000000, .receive_pps = 1000000,
                                        .unicast = MP_UNICAST_DISCOVERY };

static void open_once(void)
{
    uint8_t key[MP_KEY_BYTES];
    sealed = getenv("FUZZ_SEALED") != NULL;
    open_network(sealed, 1);
    make_key(key, 0);
    struct mp_gcm *gcm = mp_gcm_new();
    cipher = mp_cipher_new(gcm, key, 1);
    if (getenv("FUZZ_PAIR")) {
        struct mp_link link = { .node = origin_of(0), .up = 1, .has_probe_keys = 1, .endpoint = nodes[0].endpoint };
        CHECK(mp_link_set(nodes[1].region, 0, &link) == 0);
        probe_cipher = mp_cipher_new(gcm, link.probe_open, 1);
    }
    set_stripe(1, MP_SIDE_OVERLAY, GROUP, 0, 2, 1 << 2, MP_ENTRY_LOCAL | MP_ENTRY_REPAIR);
    set_stripe(1, MP_SIDE_OVERLAY, GROUP, 1, 1, 1 << 0 | 1 << 2, MP_ENTRY_LOCAL | MP_ENTRY_REPAIR);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_UNICAST, 0x0a4d0002, 0, 1);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_FLOOD, 0, 0, 1);
    struct mp_fib_key key_of = { .via = MP_NO_LINK, .side = MP_SIDE_OVERLAY, .kind = MP_KIND_SOURCE,
                                 .origin = origin_of(0) };
    struct mp_fib_value value = { 0 };
    map_v4(key_of.group, 0x0a4d0001);
    CHECK(mp_fib_set(nodes[1].fib, &key_of, &value) == 0);
    struct mp_worker_config config = { .stages = 15, .idle = MP_IDLE_SLEEP, .super = 1, .tun = nodes[1].tun,
                                       .udp = nodes[1].udp, .wake = nodes[1].wake[0], .policy = &policy };
    memcpy(config.bell, nodes[1].bell, sizeof config.bell);
    mp_worker_free(nodes[1].worker);
    nodes[1].worker = mp_worker_new(nodes[1].region, &config);
    CHECK(nodes[1].worker != NULL);
}

static void send_datagram(const uint8_t *bytes, uint32_t length, uint8_t form)
{
    static uint8_t datagram[MP_HEADER_BYTES + 2048 + MP_TAG_BYTES];
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(nodes[1].endpoint.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    static const uint32_t steps[] = { 1, 3, UINT32_MAX - 1, 700 };
    if (!(form & 0x80)) {
        sendto(nodes[0].udp, bytes, length, 0, (struct sockaddr *)&to, sizeof to);
        return;
    }
    int is_pair = probe_cipher && (form & 3) > 1;
    uint8_t flags = is_pair || sealed ? MP_FLAG_SEALED : 0;
    struct mp_header h = { .type = form & 3, .flags = flags, .hop_limit = form >> 2 & 7, .epoch = KEY_EPOCH,
                           .origin = origin_of(0),
                           .sequence = mp_space(0, (form & 3) > 1) | sequence++,
                           .stream_sequence = stream_sequence += steps[form >> 5 & 3] };
    mp_header_write(datagram, &h);
    memcpy(datagram + MP_HEADER_BYTES, bytes, length);
    if (flags)
        CHECK(mp_seal(is_pair ? probe_cipher : cipher, datagram, length) == 0);
    sendto(nodes[0].udp, datagram, MP_HEADER_BYTES + length + (flags ? MP_TAG_BYTES : 0), 0, (struct sockaddr *)&to,
           sizeof to);
}

static void read_all(uint32_t node)
{
    static uint8_t got[70000];
    uint8_t vnet[MP_VNET_BYTES], drain[2048];
    for (uint32_t length; (length = read_host(node, got, vnet));)
        if (length > 65535 || packet_length(got, length) != length)
            abort();
    for (uint32_t kind; mp_punt_take(nodes[node].worker, &kind, drain, sizeof drain);)
        ;
    for (int k = 0; k < NODES; k += 2)
        while (recv(nodes[k].udp, drain, sizeof drain, MSG_DONTWAIT) >= 0)
            ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!nodes[1].worker)
        open_once();
    for (int n = 0; n < DATAGRAMS_MAX && size >= 3; n++) {
        uint32_t length = (uint32_t)(data[0] << 8 | data[1]) % 2048;
        uint8_t form = data[2];
        data += 3;
        size -= 3;
        if (length > size)
            length = (uint32_t)size;
        send_datagram(data, length, form);
        data += length;
        size -= length;
    }
    for (int round = 0; round < 2; round++)
        mp_worker_run(nodes[1].worker, 1);
    read_all(1);
    return 0;
}
