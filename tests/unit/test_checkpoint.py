"""Goal: what control saved is found by its successor, whole, and is locked into memory where all of control's is.

Method: writer and successor on one descriptor; a child that has locked its memory, read through /proc.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.io import checkpoint, keystore, privileges


def test_the_last_state_is_found() -> None:
    fd = checkpoint.create()
    assert checkpoint.Checkpoint(fd).load() is None
    for data in (b"first", b"", bytes(3 << 20), b"last"):
        writer = checkpoint.Checkpoint(fd)
        writer.save(data)
        writer.save(data + b"+")
        assert checkpoint.Checkpoint(fd).load() == data + b"+"
    os.close(fd)


def test_a_torn_state_is_not_taken() -> None:
    fd = checkpoint.create()
    checkpoint.Checkpoint(fd).save(b"state")
    os.pwrite(fd, b"S", checkpoint._SLOT_AT[0])
    assert checkpoint.Checkpoint(fd).load() is None
    os.close(fd)


def locked_kib(name: str) -> int:
    """Of the mappings of that name in this process."""
    found, is_it = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            is_it = name in line
        elif is_it and line.startswith("Locked:"):
            found += int(line.split()[1])
    return found


def test_keys_in_memory_files_are_locked() -> None:
    """The usual limit of some MiB is enough for the network keys and a checkpoint, without a right to lock more."""
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
