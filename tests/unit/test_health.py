"""Goal: an instance that lacks something is degraded as long as it lacks it, and the log has one line at each end.

Method: checks of the test; the publisher on a region for whose entries there is no memory; an interface of the host.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from pipeline.control.health import Fault, Health
from pipeline.control.publish import Publisher
from pipeline.drop_reasons import MembershipCounter
from pipeline.forwarding.route import FibEntry, FibKey, Kind, Side
from pipeline.io import checkpoint, interface
from pipeline.membership.log_alarms import LogAlarms
from pipeline.shm.fib import ForwardingTableWriter
from pipeline.shm.region import Geometry, Region
from tests.unit.overlay_net import Net


def test_fault_is_logged_when_it_begins_and_when_it_ends() -> None:
    """Goal: two lines for each fault, however long it lasts.  Method: a fault for ten ticks, whose text changes."""
    texts = {Fault.CHECKPOINT: "", Fault.INTERFACE: ""}
    health = Health({fault: lambda _, fault=fault: texts[fault] for fault in texts})  # type: ignore[misc]
    with capture_logs() as lines:
        health.tick(0.0)
        for number in range(10):
            texts[Fault.CHECKPOINT] = f"no memory {number}"
            health.tick(1.0 + number)
            assert health.faults(1.0 + number) == {"checkpoint": f"no memory {number}"}
        texts[Fault.CHECKPOINT] = ""
        health.tick(20.0)
        health.tick(21.0)
    assert [(line["event"], line["reason"], line["log_level"]) for line in lines] == [
        ("degraded", "checkpoint", "warning"),
        ("no longer degraded", "checkpoint", "info"),
    ]
    assert lines[0]["detail"] == "no memory 0"
    assert health.faults(21.0) == {}


@pytest.fixture
def region() -> Iterator[Region]:
    made = Region.create(f"test-health-{os.getpid()}", Geometry.of(lanes=1, mtu=1436, host_slots=64, overlay_slots=8))
    yield made
    made.unlink()
    made.close()


def test_what_found_no_room_is_written_when_space_is_freed(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a full /dev/shm is a fault with a text until all entries, keys and addresses are written, and they are
    written although no other entry is deleted.
    Method: posix_fallocate fails while a record, own addresses and 5,000 entries are published, and then succeeds."""
    publisher = Publisher(region, Net().add("a"), ingress_bells=(), egress_bells=())
    own = Net().add("a", addresses=((bytes([10, 77, 0, 1]), 16),)).record
    peer = Net().add("b", at="192.0.2.2:4747", addresses=((bytes([10, 77, 0, 2]), 16),)).record
    allocate = os.posix_fallocate

    def refuse(_fd: int, _start: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    groups = [FibKey(Side.HOST, Kind.GROUP, bytes([239, 1, number >> 8, number & 0xFF])) for number in range(5000)]
    publisher.publish_own_addresses(own)
    publisher.publish_record(peer, 3)
    for key in groups:
        publisher.publish_entry(FibEntry(key, frozenset({3}), local=False, stream=0, why="test"))
    publisher.retry()
    assert publisher.fault.startswith("5000 forwarding entries and 2 node records are not written: /dev/shm is full")
    monkeypatch.setattr(os, "posix_fallocate", allocate)
    publisher.retry()
    assert publisher.fault
    publisher.retry()
    assert publisher.fault == ""
    stored = {entry.key for entry in ForwardingTableWriter(region).entries()}
    assert stored >= set(groups)
    assert {key.group[-1] for key in stored if key.kind is Kind.SOURCE} == {1, 2}


def test_reached_limit_lasts_until_no_member_reports_again() -> None:
    """Goal: a limit of memberships is a fault until members without room would have reported again.
    Method: a counter that grows once."""
    alarms = LogAlarms()
    alarms.tick({}, {}, 0.0)
    assert not alarms.has_grown_within(MembershipCounter.GROUPS_LIMIT, 260.0, 0.0)
    alarms.tick({MembershipCounter.GROUPS_LIMIT: 1}, {}, 1.0)
    assert alarms.has_grown_within(MembershipCounter.GROUPS_LIMIT, 260.0, 261.0)
    assert not alarms.has_grown_within(MembershipCounter.GROUPS_LIMIT, 260.0, 262.0)


def test_missing_interface_is_a_fault() -> None:
    """Goal: the text names the interface.  Method: the loopback interface, and one that does not exist."""
    present, absent = interface.InterfaceFlags("lo"), interface.InterfaceFlags("mcast-none")
    assert present.fault() in ("", "interface lo is down: ip link set lo up")
    assert absent.fault().startswith("interface mcast-none is missing")
    present.close()
    absent.close()


def test_failed_checkpoint_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a checkpoint that cannot be written is an OSError, and the last complete one is loaded, also after several.
    Method: the header cannot be written, three times."""
    fd = checkpoint.create()
    writer = checkpoint.Checkpoint(fd)
    writer.save(b"complete")

    def refuse(_fd: int, _data: bytes, _at: int) -> int:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        for _ in range(3):
            with pytest.raises(OSError, match="too large"):
                writer.save(b"lost")
    assert checkpoint.Checkpoint(fd).load() == b"complete"
    writer.save(b"next")
    assert checkpoint.Checkpoint(fd).load() == b"next"
    os.close(fd)
