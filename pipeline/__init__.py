"""IP multicast for unmodified programs over application-layer multicast.  The map is in ARCHITECTURE.md."""

__version__ = "0.1.0"
