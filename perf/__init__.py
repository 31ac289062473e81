"""Measurements of mcast-pipeline and of other networks that carry multicast between hosts; README.md has the method."""
