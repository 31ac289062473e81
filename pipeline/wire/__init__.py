"""Bytes ↔ values of every protocol spoken here; no state, no clock, no I/O (design §5)."""
