"""Laboratory for demo, tests and perf: hosts as network namespaces, and the programs in them."""
