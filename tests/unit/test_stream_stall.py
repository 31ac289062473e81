"""Goal: a steady stream that stops is reported once.  Method: sequence numbers by hand, one mapping a tick."""

from __future__ import annotations

from pipeline.forwarding.stream_stall import StreamStallDetector


def test_stalled_stream_is_reported_once_until_it_is_steady_again() -> None:
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
    detector = StreamStallDetector[str]()
    for number in (0, 10):
        detector.tick({"a": number})
    assert detector.tick({}) == []
    assert detector.tick({"a": 10}) == []


def test_stall_after_the_sequence_number_wraps() -> None:
    detector = StreamStallDetector[str]()
    found = [detector.tick({"a": number % 2**32}) for number in (2**32 - 10, 2**32 - 5, 2**32 + 5, 2**32 + 5)]
    assert found == [[], [], [], ["a"]]
