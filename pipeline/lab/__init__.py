"""The laboratory shared by demo, tests and perf: network namespaces and the programs in them."""
