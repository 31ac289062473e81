"""Local sources.  Goal: a group is a source from its first punted packet until its entry is idle for two sweeps.
Method: packets and sweeps by hand.
"""

from __future__ import annotations

import pytest

from pipeline import limits
from pipeline.address import parse
from pipeline.forwarding.sources import LocalSources

GROUP, OTHER = parse("239.1.2.3"), parse("ff15::1")


def test_group_is_new_once() -> None:
    """Goal: the engine gets one register_source for a group, however many packets are punted."""
    sources = LocalSources()
    assert sources.add(GROUP)
    assert not sources.add(GROUP)
    assert sources.add(OTHER)
    assert len(sources) == 2


def test_group_expires_after_two_idle_sweeps() -> None:
    """Goal: a pause shorter than a sweep does not end a source.  Method: sweeps with and without use of the entry."""
    sources = LocalSources()
    sources.add(GROUP)
    assert sources.expire_idle(set()) == []
    assert sources.expire_idle({GROUP}) == []
    assert sources.expire_idle(set()) == []
    sources.add(GROUP)
    assert sources.expire_idle(set()) == []
    assert sources.expire_idle(set()) == [GROUP]
    assert sources.add(GROUP)


def test_number_of_groups_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a program that sends to random groups does not grow the table without end."""
    monkeypatch.setattr(limits, "GROUPS_MAX", 1)
    sources = LocalSources()
    assert sources.add(GROUP)
    assert not sources.add(OTHER)
    assert not sources.add(GROUP)
    assert len(sources) == 1
