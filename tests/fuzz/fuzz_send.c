/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Goal: no packet that a program writes to the interface breaks its node.
 * Method: libFuzzer on node 0 of the network of tests/native/network.h.  The input is a row of packets, two bytes of
 * length each, that node 0 reads from its TUN; node 1 receives the datagrams.
 */
#include "network.h"
#include "mp_stage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PACKETS_MAX 64

static void open_once(void)
{
    open_network(1, 1);
    nodes[0].worker->policy.unicast = MP_UNICAST_DISCOVERY;
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_UNICAST, 0x0a4d0002, 1 << 1, 0);
    set_route(0, MP_SIDE_HOST, MP_KIND_FLOOD, 0, 1 << 1 | 1 << 2, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_FLOOD, 0, 0, 1);
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
    while (recv(nodes[2].udp, drain, sizeof drain, MSG_DONTWAIT) >= 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t message[MP_VNET_BYTES + 2048];
    if (!nodes[0].worker)
        open_once();
    for (int n = 0; n < PACKETS_MAX && size >= 2; n++) {
        uint32_t length = (uint32_t)(data[0] << 8 | data[1]) % 2048;
        data += 2;
        size -= 2;
        if (length > size)
            length = (uint32_t)size;
        memcpy(message + MP_VNET_BYTES, data, length);
        send(nodes[0].host, message, MP_VNET_BYTES + length, MSG_DONTWAIT);
        data += length;
        size -= length;
    }
    for (int round = 0; round < 2; round++)
        for (uint32_t node = 0; node < 2; node++)
            mp_worker_run(nodes[node].worker, 1);
    read_all(0);
    read_all(1);
    return 0;
}
