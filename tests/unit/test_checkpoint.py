"""Goal: a restarted control process loads the last complete state, and memory files with keys are locked into memory.

Method: a writer and a reader on one descriptor; a child process that reads its locked mappings in /proc.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.io import checkpoint, keystore, privileges


def test_last_state_is_loaded() -> None:
    """Goal: states of any length replace each other.  Method: save two with each writer, load with a new reader."""
    fd = checkpoint.create()
    assert checkpoint.Checkpoint(fd).load() is None
    for data in (b"first", b"", bytes(3 << 20), b"last"):
        writer = checkpoint.Checkpoint(fd)
        writer.save(data)
        writer.save(data + b"+")
        assert checkpoint.Checkpoint(fd).load() == data + b"+"
    os.close(fd)


def test_damaged_state_is_not_loaded() -> None:
    """Goal: a state whose checksum is wrong is ignored.  Method: overwrite one byte of a slot."""
    fd = checkpoint.create()
    checkpoint.Checkpoint(fd).save(b"state")
    os.pwrite(fd, b"S", checkpoint._SLOT_AT[0])
    assert checkpoint.Checkpoint(fd).load() is None
    os.close(fd)


def locked_kib(name: str) -> int:
    """Return the locked memory of the mappings of that name in this process."""
    found, is_named = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            is_named = name in line
        elif is_named and line.startswith("Locked:"):
            found += int(line.split()[1])
    return found


def test_keys_in_memory_files_are_locked() -> None:
    """Goal: the usual limit of some MiB is enough for the network keys and a checkpoint.
    Method: a child without capabilities creates both; a grandchild does not inherit the mapping of the keys."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            privileges.harden()
            store, state = keystore.create(), checkpoint.create()
            held = keystore.lock(store)
            privileges.keep_only()
            writer = checkpoint.Checkpoint(state)
            writer.save(bytes(300_000))
            assert locked_kib("mcast-pipeline-keys") == len(held) // 1024
            assert locked_kib("mcast-pipeline-checkpoint") >= 292
            if os.fork() == 0:
                os._exit("mcast-pipeline-keys" in Path("/proc/self/maps").read_text())
            code = os.waitstatus_to_exitcode(os.wait()[1])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
