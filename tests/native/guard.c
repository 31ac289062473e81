/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guard: the cost of a packet from the TUN of one node into those of two others, in counts that do not depend on the
 * speed of the machine.
 *
 *   guard PACKETS PAYLOAD      moves so many packets and does nothing else, so that two runs under callgrind or
 *                              `strace -c` differ by the cost of the packets
 *
 * It prints the system calls of the data path, from the stages' own counters, as one JSON object.  The bounds are in
 * tests/unit/test_packet_cost.py.
 */
#include "network.h"

#define AT_ONCE 64u             /* packets in the TUN when it is read, as moderation collects them under load */

static void move(uint32_t packets, uint32_t payload)
{
    uint8_t packet[2048], got[70000], vnet[MP_VNET_BYTES];
    for (uint32_t sent = 0; sent < packets; sent += AT_ONCE) {
        for (uint32_t i = 0; i < AT_ONCE; i++)
            write_host(0, packet, make_packet(packet, GROUP, payload, sent + i));
        run_all(1);
        for (uint32_t node = 1; node < NODES; node++)
            while (read_host(node, got, vnet))
                ;
    }
}

int main(int argc, char **argv)
{
    uint32_t packets = argc > 1 ? (uint32_t)atoi(argv[1]) : 6400, payload = argc > 2 ? (uint32_t)atoi(argv[2]) : 1316;
    open_network(1, 1);
    set_route(0, MP_SIDE_HOST, MP_KIND_GROUP, GROUP, 1 << 1 | 1 << 2, 0);
    set_route(1, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    set_route(2, MP_SIDE_OVERLAY, MP_KIND_GROUP, GROUP, 0, 1);
    move(packets, payload);
    printf("{\"packets\": %u, \"delivered\": %llu, \"tx_calls\": %llu, \"rx_calls\": %llu, \"tun_writes\": %llu, "
           "\"sealed\": %llu}\n", packets,
           (unsigned long long)(counted(1, MP_COUNT_tun_tx_packets) + counted(2, MP_COUNT_tun_tx_packets)),
           (unsigned long long)counted(0, MP_COUNT_overlay_tx_calls),
           (unsigned long long)(counted(1, MP_COUNT_overlay_rx_calls) + counted(2, MP_COUNT_overlay_rx_calls)),
           (unsigned long long)(counted(1, MP_COUNT_tun_tx_writes) + counted(2, MP_COUNT_tun_tx_writes)),
           (unsigned long long)counted(0, MP_COUNT_sealed));
    close_network();
    return 0;
}
