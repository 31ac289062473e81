"""Goal: a steady stream that stops is reported once.  Method: sequence numbers by hand, one mapping a tick."""

from __future__ import annotations

from pipeline.forwarding.stream_stall import StreamStallDetector


def test_stalled_stream_is_reported_once_until_it_is_steady_again() -> None:
    """Goal: one report for each stall, and none for a rare stream.  Method: a steady and a rare stream."""
    detector = StreamStallDetector[str]()
    assert detector.tick({"steady": 10, "rare": 10}) == []
    assert detector.tick({"steady": 20, "rare": 11}) == []
    assert detector.tick({"steady": 20, "rare": 11}) == ["steady"]
    assert detector.tick({"steady": 20, "rare": 11}) == [], "it was reported"
    assert detector.tick({"steady": 21, "rare": 11}) == []
    assert detector.tick({"steady": 21, "rare": 11}) == [], "it was not steady again"
    assert detector.tick({"steady": 24, "rare": 11}) == []
    assert detector.tick({"steady": 24, "rare": 11}) == ["steady"]


def test_removed_stream_is_new_when_it_returns() -> None:
    """Goal: a stream that was removed meanwhile is not reported.  Method: one tick without it."""
    detector = StreamStallDetector[str]()
    for number in (0, 10):
        detector.tick({"a": number})
    assert detector.tick({}) == []
    assert detector.tick({"a": 10}) == []


def test_stall_after_the_sequence_number_wraps() -> None:
    """Goal: the wrap of 32 bits does not look like a stall.  Method: numbers around the wrap."""
    detector = StreamStallDetector[str]()
    found = [detector.tick({"a": number % 2**32}) for number in (2**32 - 10, 2**32 - 5, 2**32 + 5, 2**32 + 5)]
    assert found == [[], [], [], ["a"]]
