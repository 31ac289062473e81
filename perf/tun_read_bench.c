/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * tun_read_bench: nanoseconds to read a packet from a TUN queue, by read() and by io_uring.
 *
 * Question: is a batch of reads through io_uring, straight into the slots, cheaper than one read() a packet?
 * Method: a TUN of its own (needs root) is filled by send() and emptied in bursts of 64, by the two ways in turn; the
 * median of several runs, and the cost of reading an empty queue.
 *
 *   make -C tests/native bench [ARGS=--json]      in a network namespace of its own: ip netns exec NS …
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RUNS 15
#define QUEUED 4096             /* packets in the TUN when a run begins */
#define BURST 64u
#define NOWAIT 8                /* RWF_NOWAIT */

static uint8_t slots[BURST][2048];
static int tun;

static struct {
    int fd;
    unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
} ring;

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void open_ring(void)
{
    struct io_uring_params p = { 0 };
    ring.fd = (int)syscall(SYS_io_uring_setup, 2 * BURST, &p);
    if (ring.fd < 0)
        fail("io_uring_setup");
    size_t size = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t completions = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    char *base = mmap(NULL, size > completions ? size : completions, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                      ring.fd, IORING_OFF_SQ_RING);
    ring.sqes = mmap(NULL, p.sq_entries * sizeof *ring.sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd,
                     IORING_OFF_SQES);
    if (base == MAP_FAILED || ring.sqes == MAP_FAILED)
        fail("mmap");
    ring.sq_tail = (void *)(base + p.sq_off.tail);
    ring.sq_mask = (void *)(base + p.sq_off.ring_mask);
    ring.sq_array = (void *)(base + p.sq_off.array);
    ring.cq_head = (void *)(base + p.cq_off.head);
    ring.cq_tail = (void *)(base + p.cq_off.tail);
    ring.cq_mask = (void *)(base + p.cq_off.ring_mask);
    ring.cqes = (void *)(base + p.cq_off.cqes);
}

static unsigned burst_read(void)
{
    unsigned n = 0;
    while (n < BURST && read(tun, slots[n], sizeof slots[n]) > 0)
        n++;
    return n;
}

static unsigned burst_uring(void)
{
    unsigned tail = *ring.sq_tail, head = *ring.cq_head, got = 0;
    for (unsigned i = 0; i < BURST; i++) {
        unsigned at = (tail + i) & *ring.sq_mask;
        ring.sqes[at] = (struct io_uring_sqe){ .opcode = IORING_OP_READ, .fd = tun, .addr = (uintptr_t)slots[i],
                                               .len = sizeof slots[i], .off = UINT64_MAX, .rw_flags = NOWAIT };
        ring.sq_array[at] = at;
    }
    __atomic_store_n(ring.sq_tail, tail + BURST, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring.fd, BURST, 0, 0, NULL, 0) < 0)
        fail("io_uring_enter");
    unsigned end = __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE);
    for (; head != end; head++)
        got += ring.cqes[head & *ring.cq_mask].res > 0;
    __atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
    return got;
}

static void open_tun(void)
{
    struct ifreq f = { .ifr_name = "mpbench0", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
    tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &f))
        fail("TUN");
    if (system("ip link set mpbench0 txqueuelen 8192 up && ip addr add 10.200.0.1/24 dev mpbench0"))
        exit(1);
}

static double empty_queue(int from, const struct sockaddr_in *to, unsigned (*burst)(void))
{
    static const char payload[1316];
    unsigned packets = 0, n;
    for (int i = 0; i < QUEUED; i++)
        sendto(from, payload, sizeof payload, 0, (const void *)to, sizeof *to);
    double start = now_ns();
    do
        packets += n = burst();
    while (n == BURST);
    return (now_ns() - start) / packets;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(5000) };
    unsigned (*way[2])(void) = { burst_read, burst_uring };
    double took[2][RUNS], empty[2];
    int from = socket(AF_INET, SOCK_DGRAM, 0), size = 64 << 20;
    setsockopt(from, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    inet_aton("10.200.0.2", &to.sin_addr);
    open_tun();
    open_ring();
    for (int run = 0; run < RUNS; run++)
        for (int k = 0; k < 2; k++)
            took[k][run] = empty_queue(from, &to, way[k]);
    for (int k = 0; k < 2; k++) {
        double start = now_ns();
        for (int i = 0; i < 1000; i++)
            way[k]();
        empty[k] = (now_ns() - start) / 1000;
        qsort(took[k], RUNS, sizeof took[k][0], compare);
    }
    if (argc > 1 && !strcmp(argv[1], "--json"))
        printf("{\"tun_read_ns\": {\"read\": %.0f, \"io_uring\": %.0f}, "
               "\"empty_ns\": {\"read\": %.0f, \"io_uring\": %.0f}}\n",
               took[0][RUNS / 2], took[1][RUNS / 2], empty[0], empty[1]);
    else
        printf("TUN, ns                          read()   io_uring\na packet, bursts of 64      %11.0f%11.0f\n"
               "reading an empty queue      %11.0f%11.0f\n", took[0][RUNS / 2], took[1][RUNS / 2], empty[0], empty[1]);
    return 0;
}
