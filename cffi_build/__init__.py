"""The C library: sources in src/, their declarations for Python in cdef.h, and what builds the extension of them."""
