"""Goal: the rendezvous sends all nodes to one root, whichever node dies, returns or was separated.

Method: call one rendezvous directly.
"""

from __future__ import annotations

import pytest

from pipeline.address import parse
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.options import Options
from pipeline.engines.nemo.rendezvous import SUCCESSOR_WAIT_S, Rendezvous

GROUP = parse("239.1.2.3")
ROOT, SUCCESSOR, NEWCOMER = 1, 2, 9


@pytest.fixture
def rendezvous() -> Rendezvous:
    """Rendezvous of a group whose root leads three layers."""
    found = Rendezvous(Context(7, Options(), lambda: 0.5))
    assert found.find_root(GROUP, ROOT, 0.0, is_root=False) == ROOT, "the first node becomes root"
    assert found.find_root(GROUP, ROOT, 1.0, is_root=True, layers=3) == ROOT
    return found


def test_successor_replaces_a_dead_root(rendezvous: Rendezvous) -> None:
    """A top cluster of two disappears when one member dies: then the successor has one layer less."""
    assert rendezvous.find_root(GROUP, SUCCESSOR, 5.0, is_root=True, superseded=ROOT, layers=2) == SUCCESSOR
    assert rendezvous.find_root(GROUP, NEWCOMER, 5.1, is_root=False) == SUCCESSOR


def test_of_two_separated_roots_the_one_with_more_layers_stays(rendezvous: Rendezvous) -> None:
    """The lower root assumes that the other one is dead, and registers as its successor until it is notified."""
    assert rendezvous.find_root(GROUP, SUCCESSOR, 5.0, is_root=True, superseded=ROOT, layers=2) == SUCCESSOR
    for now in (6.0, 16.0):
        assert rendezvous.find_root(GROUP, ROOT, now, is_root=True, layers=3) == ROOT
        assert rendezvous.find_root(GROUP, SUCCESSOR, now + 1, is_root=True, superseded=ROOT, layers=2) == ROOT


def test_root_can_be_handed_over_and_back(rendezvous: Rendezvous) -> None:
    assert rendezvous.find_root(GROUP, SUCCESSOR, 5.0, is_root=True, superseded=ROOT, layers=3) == SUCCESSOR
    assert rendezvous.find_root(GROUP, ROOT, 6.0, is_root=True, superseded=SUCCESSOR, layers=3) == ROOT


def test_place_of_a_gone_root_is_kept_for_its_successor(rendezvous: Rendezvous) -> None:
    rendezvous.handle_gone(ROOT, 5.0)
    for peer in (NEWCOMER, ROOT):
        assert rendezvous.find_root(GROUP, peer, 5.1, is_root=False) == 0, "query again: a restarted root has no state"
    assert rendezvous.find_root(GROUP, SUCCESSOR, 5.2, is_root=True, superseded=ROOT, layers=3) == SUCCESSOR
    assert rendezvous.find_root(GROUP, ROOT, 5.3, is_root=False) == SUCCESSOR


def test_without_a_successor_the_next_node_founds_the_group(rendezvous: Rendezvous) -> None:
    rendezvous.handle_gone(ROOT, 5.0)
    assert rendezvous.find_root(GROUP, NEWCOMER, 5.0 + SUCCESSOR_WAIT_S, is_root=False) == NEWCOMER


def test_place_of_a_root_that_was_alone_is_not_kept(rendezvous: Rendezvous) -> None:
    assert rendezvous.find_root(GROUP, ROOT, 5.0, is_root=True, layers=0) == ROOT
    rendezvous.handle_gone(ROOT, 6.0)
    assert rendezvous.find_root(GROUP, NEWCOMER, 6.0, is_root=False) == NEWCOMER
