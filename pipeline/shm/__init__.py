"""Shared memory of an instance: the only user of the C library's accessors and of posix_ipc.

    region      the memory itself, its geometry, the table of processes
    stage       the stages of the data plane
    fib         the forwarding table                                  (written by control)
    links_keys  links, sender keys of peers, own sender keys          (written by control)
    policy      allowed groups, sources, unicast and rates, for the stages
    punt        kinds of packets and events that stages hand to control
    repair      gaps of streams, and requests to retransmit
    counters    counters and drop reasons of the stages               (read only)
    ring        levels of the rings                                   (read only)

No layout is defined here: every access goes through C accessors (`_native`, declared in cffi_build/cdef.h).
"""
