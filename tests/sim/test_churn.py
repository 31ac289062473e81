"""Goal: a churn trace is the same as text, and a wrong line is named.  Method: a random trace, and texts by hand."""

from __future__ import annotations

import random

import pytest

from pipeline.sim import churn


def test_trace_survives_text() -> None:
    """Goal: reading undoes writing.  Method: a trace of five hosts, written twice."""
    events = churn.exponential(range(1, 6), begin_s=10, end_s=500, mttf_s=60, mttr_s=20, generator=random.Random(1))
    assert churn.write(churn.read(churn.write(events), 6)) == churn.write(events)


def test_hosts_fail_before_they_return() -> None:
    """Goal: each host is up at the beginning, so its first event is a failure.  Method: the first two of each."""
    events = churn.exponential(range(1, 6), begin_s=10, end_s=500, mttf_s=60, mttr_s=20, generator=random.Random(1))
    for host in range(1, 6):
        assert [event.is_up for event in events if event.host == host][:2] == [False, True]


def test_wrong_line_is_named() -> None:
    """Goal: a user finds the line.  Method: a word that is neither up nor down in the second one."""
    with pytest.raises(ValueError, match="line 2"):
        churn.read("1 2 up\n1 2 sideways\n", 5)
