"""`pipeline demo`: a studio streams video by multicast to two viewers over an underlay without multicast.

    studio    ffmpeg ── mcast0 ─┐                                    ┌─ mcast0 ── ffmpeg    viewer-1
                                ├─ UDP unicast, sealed, over br0 ────┤
                                                                     └─ mcast0 ── ffmpeg    viewer-2

Each of three hosts of a laboratory (lab/netns.py) runs a node (lab/instance.py) and plain ffmpeg.  The viewers' ffmpeg
writes the transport stream unchanged, so that its continuity counters (lab/mpegts.py) show what the overlay has lost.
During the stream viewer-2 leaves the group and joins again.  The output is written by demo_view.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from pipeline.cli import demo_view
from pipeline.errors import PipelineError, UsageError
from pipeline.lab.cleanup import NETNS_DIR
from pipeline.lab.instance import Instance, launch_all, network_key
from pipeline.lab.mpegts import StreamMeter
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import Process, require

GROUP, PORT = "239.77.0.1", 5004
STREAM_MBIT = 11
NAMES = ("studio", "viewer-1", "viewer-2")
SECONDS_MIN, SECONDS_MAX = 8, 3600
OVERHEAD_S = 3.0
"""Part of the whole time for building, launching and removing, which take half of it."""
LEAVE_AT, REJOIN_AT = 0.35, 0.6
"""Shares of the playing time.  Between them lie the two seconds of the Last Member Query Time (RFC 9776 §8.10)."""
TICK_S = 0.5
END_TIMEOUT_S = 0.5
READ_BYTES = 1 << 16

_ENCODER = (
    "-f lavfi -i testsrc2=size=720x576:rate=25 -f lavfi -i sine=frequency=440:sample_rate=48000"
    " -c:v mpeg2video -b:v 10M -minrate 10M -maxrate 10M -bufsize 2M -g 12 -bf 2 -c:a mp2 -b:a 192k"
    f" -muxrate {STREAM_MBIT}M -f mpegts"
).split()
"""The rate is constant, so that a gap is a loss and not a quiet scene.  Live encoding takes a tenth of a core."""
_SEND_URL = f"udp://{GROUP}:{PORT}?pkt_size=1316&bitrate={STREAM_MBIT * 1_100_000}&burst_bits=42112"
"""ffmpeg sends at most four datagrams at once; without pacing all datagrams of a picture leave in one burst."""
_RECEIVE_URL = f"udp://{GROUP}:{PORT}?fifo_size=50000&overrun_nonfatal=1"


@dataclass(slots=True)
class Session:
    """One membership of a viewer, from join to leave: its ffmpeg, and a thread that meters the output."""

    process: Process
    started_at: float
    meter: StreamMeter = field(default_factory=StreamMeter)
    thread: threading.Thread | None = None

    def read(self) -> None:
        """Meter the output of ffmpeg until the pipe ends."""
        fd = self.process.pipe.fileno()
        while data := os.read(fd, READ_BYTES):
            self.meter.feed(data, time.monotonic())

    def end(self) -> None:
        """Leave the group: end ffmpeg and meter the rest of its output.  Without data ffmpeg ignores SIGTERM."""
        self.process.signal(signal.SIGTERM)
        try:
            self.process.popen.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.signal(signal.SIGKILL)
        if self.thread is not None:
            self.thread.join()
        self.process.kill()

    def first_data_ms(self, source_started_at: float) -> int | None:
        """Return the time from the start of ffmpeg, or of the source if that was later, to the first output."""
        if self.meter.first_at is None:
            return None
        return round((self.meter.first_at - max(self.started_at, source_started_at)) * 1e3)


class Viewer:
    """A host with a receiving ffmpeg, which it can end and start again."""

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.host = host
        self.sessions: list[Session] = []
        self.is_watching = False

    def join(self) -> None:
        """Start ffmpeg.  Its `data` formats copy the datagrams unchanged."""
        formats = ["-f", "data", "-i", _RECEIVE_URL, "-map", "0", "-c", "copy", "-f", "data", "-flush_packets", "1"]
        command = [require("ffmpeg"), "-nostdin", "-v", "warning", *formats, "pipe:1"]
        session = Session(self.host.spawn(command, label="ffmpeg", pipe=True), time.monotonic())
        session.thread = threading.Thread(target=session.read, name=self.name, daemon=True)
        session.thread.start()
        self.sessions.append(session)
        self.is_watching = True

    def leave(self) -> None:
        """End ffmpeg."""
        if self.is_watching:
            self.is_watching = False
            self.sessions[-1].end()

    @property
    def byte_count(self) -> int:
        """Bytes of the stream received so far."""
        return sum(session.meter.byte_count for session in self.sessions)

    def report(self, source_started_at: float) -> demo_view.Row:
        """Return the viewer's row of the summary."""
        meters = [session.meter for session in self.sessions]
        seconds = sum(m.last_at - m.first_at for m in meters if m.first_at is not None and m.last_at is not None)
        return {
            "name": self.name,
            "packets": sum(m.packets for m in meters),
            "mbit": round(self.byte_count * 8e-6 / seconds, 3) if seconds else 0.0,
            "continuity_errors": sum(m.continuity_errors for m in meters),
            "packets_lost": sum(m.packets_lost for m in meters),
            "jitter_ms": round(max(m.jitter_s for m in meters) * 1e3, 3),
            "longest_gap_ms": round(max(m.longest_gap_s for m in meters) * 1e3, 1),
            "first_data_ms": [session.first_data_ms(source_started_at) for session in self.sessions],
        }

    @property
    def is_served(self) -> bool:
        """True if each session received the stream without a loss."""
        return all(s.meter.packets > 0 and s.meter.continuity_errors == 0 for s in self.sessions)


# ---------------------------------------------------------------- samples of the nodes


class Observer:
    """Sampler of the nodes; rates are the differences between two samples."""

    def __init__(self, instances: list[Instance], viewers: list[Viewer]) -> None:
        self.instances = instances
        self.viewers = viewers
        self._before: dict[tuple[str, str], tuple[float, float]] = {}
        self._cpu: dict[int, psutil.Process] = {}

    def sample(self) -> list[demo_view.Row]:
        """Return a row for each node: stages with rate and CPU, links, and for a viewer the received stream."""
        return [self._node(i, name) for i, name in enumerate(NAMES)]

    def _node(self, index: int, name: str) -> demo_view.Row:
        instance = self.instances[index]
        row: demo_view.Row = {"name": name, "stages": [], "loss": 0.0, "rtt_ms": 0.0}
        links = [link for link in instance.show("links") if link["state"] == "up"]
        if links:
            row["loss"] = max(link["loss"] for link in links)
            row["rtt_ms"] = max(link["rtt_ms"] for link in links)
        for worker in instance.show("workers"):
            key = f"{worker['role']}/{worker['lane']}"
            rate = 0.0 if worker["role"] == "control" else self._rate(name, key, worker["packets"])
            row["stages"].append({"stage": key, "packets_per_s": rate, "cpu_percent": self._cpu_percent(worker["pid"])})
        row["cpu_percent"] = sum(stage["cpu_percent"] for stage in row["stages"])
        if index == 0:
            row["mbit"] = self._rate(name, "sent", sum(link["tx_bytes"] for link in links)) * 8e-6
        else:
            self._stream(row, self.viewers[index - 1])
        return row

    def _stream(self, row: demo_view.Row, viewer: Viewer) -> None:
        meter = viewer.sessions[-1].meter
        row["watching"] = viewer.is_watching
        row["mbit"] = self._rate(viewer.name, "stream", viewer.byte_count) * 8e-6
        row["jitter_ms"] = meter.jitter_s * 1e3
        row["continuity_errors"] = sum(session.meter.continuity_errors for session in viewer.sessions)

    def _rate(self, node: str, what: str, value: float) -> float:
        now = time.monotonic()
        before, then = self._before.get((node, what), (value, now - 1))
        self._before[node, what] = value, now
        return max(0.0, value - before) / max(now - then, 1e-3)

    def _cpu_percent(self, pid: int) -> float:
        try:
            if pid not in self._cpu:
                self._cpu[pid] = psutil.Process(pid)
            return self._cpu[pid].cpu_percent()
        except psutil.Error:
            return 0.0


# ---------------------------------------------------------------- course of the demonstration


class Demonstration:
    """The stream, its viewers and their leaves and joins, in a laboratory of ready nodes."""

    def __init__(self, lab: Lab, instances: list[Instance], screen: demo_view.Screen) -> None:
        self.lab = lab
        self.studio = instances[0]
        self.viewers = [Viewer(name, host) for name, host in zip(NAMES[1:], lab.hosts[1:], strict=True)]
        self.observer = Observer(instances, self.viewers)
        self.screen = screen
        self.started_at = time.monotonic()
        self._members_expected: set[str] | None = None
        self._changed_at = 0.0

    def play(self, seconds: float) -> None:
        """Stream for this time; meanwhile viewer-2 leaves and joins again."""
        for viewer in self.viewers:
            viewer.join()
        self.studio.wait_members(GROUP, self.observer.instances[1:])
        encoder = [require("ffmpeg"), "-nostdin", "-v", "warning", "-re", *_ENCODER, _SEND_URL]
        source = self.studio.host.spawn(encoder, label="ffmpeg")
        self.started_at = time.monotonic()
        self.screen.event(0, f"studio sends MPEG-TS, {STREAM_MBIT} Mbit/s, to {GROUP}:{PORT}; two viewers receive it")
        last = self.viewers[-1]
        while (elapsed := time.monotonic() - self.started_at) < seconds:
            if last.is_watching and len(last.sessions) == 1 and elapsed >= LEAVE_AT * seconds:
                last.leave()
                self._expect(self.observer.instances[1:-1], f"{last.name} leaves")
            elif not last.is_watching and elapsed >= REJOIN_AT * seconds:
                last.join()
                self._expect(self.observer.instances[1:], f"{last.name} joins again")
            self._watch_members()
            self.screen.update(elapsed, self.observer.sample())
            if not source.alive():
                raise PipelineError(f"ffmpeg ended: {source.log.strip()[-200:]}")
            time.sleep(max(0.0, TICK_S - (time.monotonic() - self.started_at - elapsed)))
        for viewer in self.viewers:
            viewer.leave()
        source.stop()

    def _expect(self, members: list[Instance], text: str) -> None:
        self._members_expected = {member.name for member in members}
        self._changed_at = time.monotonic()
        self.screen.event(self._changed_at - self.started_at, text)

    def _watch_members(self) -> None:
        """Show an event when the studio's node has learnt of a leave or a join."""
        if self._members_expected is None:
            return
        found: list[str] = next((row["members"] for row in self.studio.show("groups") if row["group"] == GROUP), [])
        if set(found) == self._members_expected:
            self._members_expected = None
            now = time.monotonic()
            count = "1 viewer" if len(found) == 1 else f"{len(found)} viewers"
            self.screen.event(now - self.started_at, f"studio sends to {count} from now on")

    def report(self) -> demo_view.Row:
        """Return the summary, except for the values that are known only after the removal."""
        viewers = [viewer.report(self.started_at) for viewer in self.viewers]
        nodes = [
            {"name": name, "pss_mb": round(instance.pss_bytes() / 1e6, 1), "cpu_s": round(instance.cpu_s(), 2)}
            for name, instance in zip(NAMES, self.observer.instances, strict=True)
        ]
        return {
            "ok": all(viewer.is_served for viewer in self.viewers),
            "group": GROUP,
            "seconds": round(time.monotonic() - self.started_at, 1),
            "viewers": viewers,
            "nodes": nodes,
            "native_multicast_dropped": self.lab.multicast_packets(),
        }


def run(*, seconds: float = 30, workers: int = 4, json: bool = False) -> int:
    """Run the demonstration for this time; return 1 if a viewer has missed any of the stream, else 0."""
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise UsageError(f"--seconds {seconds:g}: a demonstration takes {SECONDS_MIN} to {SECONDS_MAX} seconds")
    began = time.monotonic()
    require("ffmpeg")
    with _sigterm_unwinds():
        with Lab(len(NAMES)) as lab, demo_view.Screen(silent=json, seconds=seconds - OVERHEAD_S) as screen:
            launched = time.monotonic()
            instances = launch_all(lab, key=network_key(lab), workers=workers)
            ready_s = time.monotonic() - launched
            screen.event(0, f"three hosts; their nodes were ready and linked after {ready_s:.2f} s")
            demonstration = Demonstration(lab, instances, screen)
            demonstration.play(seconds - OVERHEAD_S)
            report = demonstration.report()
            report["ready_s"] = round(ready_s, 3)
            report["workers"] = workers
        report["removed"] = not any((NETNS_DIR / host.netns).exists() for host in lab.hosts)
        report["ok"] = report["ok"] and report["removed"]
        report["total_s"] = round(time.monotonic() - began, 1)
    demo_view.summary(report, as_json=json)
    return 0 if report["ok"] else 1


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Make SIGTERM unwind the stack as SIGINT does, so that everything is removed."""

    def leave(number: int, _: Any) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
