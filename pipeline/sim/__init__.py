"""A virtual network and virtual time for the cores of the daemon."""
