"""The control process: drives the cores, writes the tables in shared memory, answers the command line."""
