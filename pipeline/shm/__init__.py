"""Shared memory: the only users of the C library's tables and of posix_ipc.

    region     the memory itself, its geometry, the table of processes
    fib        the forwarding table          (written by control)
    tables     links, sender keys, own key   (written by control)
    counters   what stages count             (read only)
    ring       how full the rings are        (read only)

No layout is known here: every access goes through C accessors (`_native`, declared in cffi_build/cdef.h).
"""
