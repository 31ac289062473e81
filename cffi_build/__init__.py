"""C library: sources in src/, their declarations for Python in cdef.h, and the build of the extension module."""
