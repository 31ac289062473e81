"""Measurements of mcast-pipeline against other ways to carry multicast between hosts; README.md says how."""
