"""The only users of the operating system: interfaces, sockets, descriptors, rights."""
