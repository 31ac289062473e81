/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: no input makes a parser read or write past its bytes, or return values that contradict each other.
 * Method: libFuzzer; the input is a packet in memory of its exact size, under AddressSanitizer.
 */
#include <stdlib.h>

#include "mp_layout.h"
#include "mp_packet.h"
#include "mp_seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        abort();
}

static void parse_packet(const uint8_t *bytes, uint32_t size)
{
    struct mp_packet p;
    struct mp_transport transport;
    struct mp_udp_packet udp;
    int drop = mp_packet_parse(bytes, size, &p);
    require(drop == 0 || (drop >= (int)MP_FIRST_DROP && drop < MP_COUNTERS));
    if (drop)
        return;
    require(p.length && p.length <= size && (p.version == 4 || p.version == 6) && p.class <= MP_CLASS_MEMBERSHIP);
    int has_transport = mp_packet_transport(bytes, &p, &transport);
    if (!mp_packet_is_udp(bytes, p.length, &udp))
        return;
    require(has_transport && transport.protocol == MP_PROTO_UDP && !transport.is_later_fragment);
    require(udp.header + udp.payload == p.length && (udp.header == 28 || udp.header == 48));
    require(mp_packet_same_flow(bytes, bytes, udp.header));
}

static void parse_header(const uint8_t *bytes, uint32_t size)
{
    struct mp_header h;
    uint8_t again[MP_HEADER_BYTES];
    if (mp_header_read(bytes, size, &h))
        return;
    mp_header_write(again, &h);
    require(!memcmp(again, bytes, sizeof again));
}

/* Take the input as sequence numbers: the window accepts none twice. */
static void take_numbers(const uint8_t *bytes, uint32_t size)
{
    static struct mp_window window;
    memset(&window, 0, sizeof window);
    for (uint32_t i = 0; i + 8 <= size && i < 800; i += 8) {
        uint64_t number;
        memcpy(&number, bytes + i, sizeof number);
        int fresh = mp_window_is_fresh(&window, number);
        require(mp_window_take(&window, number) == fresh);
        require(!mp_window_take(&window, number) && !mp_window_is_fresh(&window, number));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 70000)
        return 0;
    uint8_t *exact = malloc(size ? size : 1);
    memcpy(exact, data, size);
    parse_packet(exact, (uint32_t)size);
    parse_header(exact, (uint32_t)size);
    take_numbers(exact, (uint32_t)size);
    if (size >= sizeof(struct mp_region))
        require(mp_region_check(exact, size) <= 0);
    free(exact);
    return 0;
}
