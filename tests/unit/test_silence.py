"""Goal: a stream that stops is told once.  Method: looks at numbers by hand."""

from __future__ import annotations

from pipeline.forwarding.stream_stall import StreamStallDetector


def test_a_stream_stops() -> None:
    watch = StreamStallDetector[str]()
    assert watch.look({"steady": 10, "rare": 10}) == []
    assert watch.look({"steady": 20, "rare": 11}) == []
    assert watch.look({"steady": 20, "rare": 11}) == ["steady"]
    assert watch.look({"steady": 20, "rare": 11}) == [], "it is known"
    assert watch.look({"steady": 21, "rare": 11}) == []
    assert watch.look({"steady": 21, "rare": 11}) == [], "it has not come steadily again"
    assert watch.look({"steady": 24, "rare": 11}) == []
    assert watch.look({"steady": 24, "rare": 11}) == ["steady"]


def test_a_stream_is_forgotten() -> None:
    watch = StreamStallDetector[str]()
    for number in (0, 10):
        watch.look({"a": number})
    assert watch.look({}) == []
    assert watch.look({"a": 10}) == [], "it is new"


def test_numbers_wrap() -> None:
    watch = StreamStallDetector[str]()
    found = [watch.look({"a": number % 2**32}) for number in (2**32 - 10, 2**32 - 5, 2**32 + 5, 2**32 + 5)]
    assert found == [[], [], [], ["a"]]
