"""The control process: drives the cores, writes the tables in shared memory, replies to the command line."""
