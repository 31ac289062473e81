"""Users of the operating system: interfaces, sockets, files, rights.  Cores and engines use none of it."""
