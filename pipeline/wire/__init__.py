"""Codecs of the inner protocols, bytes ↔ values: IPv4, IPv6, IGMP and MLD.  No state, no clock, no I/O."""
