"""Goal: directory, address owners, link indices, id conflicts and the peer table follow their rules, in any
order of records.

Method: every order of a few records; hypothesis for digests; examples for conflicts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import limits
from pipeline.address import derive_node_id
from pipeline.messages import NodeRecord
from pipeline.overlay.directory import Directory, Merge
from pipeline.overlay.directory_view import DirectoryView, FullView, PartialView
from pipeline.overlay.envelopes import Envelopes
from pipeline.overlay.id_conflicts import Finding, IdConflicts
from pipeline.overlay.link import LinkTable
from pipeline.overlay.members import OpenMembers
from pipeline.overlay.peer import Action, Signal
from pipeline.overlay.peer_table import PeerTable
from pipeline.overlay.transmitter import Transmitter
from tests.unit.overlay_net import identity_of, record

PROTOCOL_1: dict[str, Any] = {"public_key": b"", "signature": b""}
"""Fields of a record of protocol 1."""


def merge(directory: Directory, each: NodeRecord, *, is_alive: bool = False, is_direct: bool = False) -> Merge:
    return directory.merge(each, is_alive=is_alive, is_direct=is_direct)


# ---- directory


def test_newest_record_wins_in_every_order() -> None:
    """Goal: nodes that get the same records in any order agree.  Method: three records in all orders."""
    records = [
        record(2, incarnation=1, version=9),
        record(2, incarnation=2, version=1),
        record(2, incarnation=2, version=2),
    ]
    for order in itertools.permutations(records):
        directory = Directory(record(1))
        for each in order:
            merge(directory, each)
        assert directory.get(2) == records[2]


@given(st.lists(st.tuples(st.integers(2, 5), st.integers(0, 2), st.integers(0, 2)), max_size=20), st.randoms())
def test_equal_directories_have_equal_digests(ages: list[tuple[int, int, int]], generator: object) -> None:
    """Goal: equal digests mean that nothing has to be exchanged, and different ones name the difference.
    Method: random records in two orders, then one more."""
    records = [record(node, incarnation=incarnation, version=version) for node, incarnation, version in ages]
    one, other = Directory(record(1)), Directory(record(1))
    for each in records:
        merge(one, each)
    for each in sorted(records, key=lambda each: each.stamp):
        merge(other, each)
    assert one.digest == other.digest
    assert not one.lacks(other.summary())
    assert one.newer_than(other.summary()) == []
    merge(one, record(6))
    assert one.digest != other.digest
    assert other.lacks(one.summary())
    assert one.newer_than(other.summary()) == [record(6)]


def test_records_of_protocol_1_are_in_no_digest() -> None:
    """Goal: nodes whose directories differ only by records that do not travel exchange nothing.
    Method: a record without a signature is added, changed and removed."""
    directory = Directory(record(1))
    digest = directory.digest
    for version in (1, 2):
        assert merge(directory, record(2, version=version, **PROTOCOL_1)) in {Merge.NEW, Merge.NEWER}
        assert directory.digest == digest
    directory.replace_by_tombstone(2, now=0.0)
    assert directory.digest == digest


@pytest.mark.parametrize("changes", [{}, PROTOCOL_1], ids=["signed", "protocol 1"])
def test_older_process_keeps_its_identity_while_it_is_alive(changes: dict[str, Any]) -> None:
    """Goal: a second node of the same identity does not replace a live one.
    Method: the same identity from another host, from the same host, and after the death of the first."""
    directory = Directory(record(1))
    merge(directory, record(2, incarnation=1, **changes))
    clone = record(2, incarnation=2, host="192.0.2.7", **changes)
    assert merge(directory, clone, is_alive=True) is Merge.CLONE
    restarted = record(2, incarnation=2, **changes)
    assert merge(directory, restarted, is_alive=True) is Merge.NEWER, "the same host has restarted"
    moved = record(2, incarnation=3, host="192.0.2.7", **changes)
    assert merge(directory, moved) is Merge.NEWER, "the old one is dead"


@pytest.mark.parametrize("is_direct", [True, False], ids=["own message", "report"])
@pytest.mark.parametrize("host", ["192.0.2.9", "192.0.2.7"], ids=["same host", "another host"])
@pytest.mark.parametrize(
    "theirs",
    [
        {"incarnation": limits.INCARNATION_MAX, **PROTOCOL_1},
        {"version": (1 << 63) - 1, **PROTOCOL_1},
        {"name": "a", **PROTOCOL_1},
        {"name": "a"},
        {"public_key": bytes(32)},
        {"public_key": bytes(32), "incarnation": limits.INCARNATION_MAX, "version": (1 << 63) - 1},
    ],
    ids=str,
)
def test_live_node_is_replaced_by_no_record_of_another_identity(
    theirs: dict[str, Any], host: str, is_direct: bool
) -> None:
    """Goal: a member cannot replace the record of a live node.  The node's own record is still taken.
    Method: records with the node's id, unsigned ones and those of an identity with a smaller key, with a higher
    incarnation and version, by report and from their own node; then the node's next version."""
    directory = Directory(record(1))
    merge(directory, record(2))
    assert merge(directory, record(2, host=host, **theirs), is_alive=True, is_direct=is_direct) is Merge.ID_TAKEN
    assert directory.get(2) == record(2)
    following = record(2, version=2)
    assert merge(directory, following, is_alive=True, is_direct=True) is Merge.NEWER


def test_signed_record_replaces_one_of_protocol_1() -> None:
    """Goal: a node that is upgraded, or that has an identity, is not kept out by messages in its name.
    Method: an unsigned record is held and alive, with every field at its highest; then the signed one, and the
    unsigned one once more, after the signed node has become silent, too."""
    directory = Directory(record(1))
    forged = record(2, incarnation=limits.INCARNATION_MAX, version=(1 << 63) - 1, **PROTOCOL_1)
    assert merge(directory, forged, is_direct=True) is Merge.NEW
    assert merge(directory, record(2), is_alive=True) is Merge.NEWER
    assert merge(directory, forged, is_direct=True) is Merge.ID_TAKEN
    assert directory.get(2) == record(2)


def test_node_of_protocol_1_replaces_its_record_when_it_was_silent() -> None:
    """Goal: a clock that was set back does not keep such a node out.
    Method: a record with the highest incarnation and version is held; an older one comes from its node itself."""
    directory = Directory(record(1))
    newest = record(2, incarnation=limits.INCARNATION_MAX, version=(1 << 63) - 1, **PROTOCOL_1)
    merge(directory, newest, is_direct=True)
    older = record(2, host="192.0.2.7", **PROTOCOL_1)
    assert merge(directory, older, is_alive=True, is_direct=True) is Merge.OLDER
    assert merge(directory, older) is Merge.OLDER
    assert merge(directory, older, is_direct=True) is Merge.NEWER
    assert directory.get(2) == older


def test_older_signed_record_replaces_none() -> None:
    """Goal: a record that somebody has kept does not bring back an address or key that its node has given up.
    Method: an older version and an older incarnation, from the node itself and by report, alive and silent."""
    directory = Directory(record(1))
    merge(directory, record(2, incarnation=2, version=5))
    for old in (record(2, incarnation=2, version=4), record(2, incarnation=1, version=9, host="192.0.2.7")):
        for is_alive, is_direct in itertools.product((True, False), repeat=2):
            assert merge(directory, old, is_alive=is_alive, is_direct=is_direct) is Merge.OLDER


def test_endpoint_of_a_held_record_follows_its_node_only() -> None:
    """Goal: a member cannot move a node that listens on all addresses, whose record names no address.
    Method: the held record with another endpoint by report, then from its node."""
    directory = Directory(record(1))
    merge(directory, record(2))
    elsewhere = record(2, host="192.0.2.7")
    assert merge(directory, elsewhere) is Merge.SAME
    assert merge(directory, elsewhere, is_alive=True) is Merge.SAME
    assert directory.get(2) == record(2)
    assert merge(directory, elsewhere, is_alive=True, is_direct=True) is Merge.NEWER


def test_record_with_keys_completes_one_without() -> None:
    """Goal: keys that arrive after a Greeting are taken, and a record without keys does not remove them.
    Method: a record of a node that seals, without its key, with it, without it again, and of its next start."""
    directory = Directory(record(1))
    bare = record(2, is_sealing=True)
    keyed = msgspec.structs.replace(bare, sender_key=bytes(32))
    assert merge(directory, bare) is Merge.NEW
    assert merge(directory, keyed) is Merge.NEWER
    newer = msgspec.structs.replace(bare, version=2)
    for each in (bare, newer):
        assert merge(directory, each, is_alive=True) is Merge.SAME
        assert directory.get(2) == keyed
    assert merge(directory, msgspec.structs.replace(bare, incarnation=2), is_alive=True) is Merge.NEWER


def test_smaller_public_key_keeps_a_node_id_in_every_order() -> None:
    """Goal: all nodes agree which of two silent nodes keeps the id.  Method: two identities in both orders."""
    records = [
        record(2, name="z", public_key=b"a".ljust(32), incarnation=1),
        record(2, name="b", public_key=b"b".ljust(32), incarnation=5),
    ]
    for order in itertools.permutations(records):
        directory = Directory(record(1))
        for each in order:
            merge(directory, each)
        held = directory.get(2)
        assert held is not None
        assert held.name == "z"


def test_forgotten_record_returns_only_from_its_own_node_until_the_tombstone_expires() -> None:
    """Goal: an old record that peers still send does not revive a forgotten node.
    Method: merge it from others and from the node itself, before and after the expiry."""
    directory, old = Directory(record(1)), record(2)
    merge(directory, old)
    digest = directory.digest
    directory.replace_by_tombstone(2, now=0.0)
    assert directory.digest == digest, "a peer that still has the record need not send it"
    assert merge(directory, old) is Merge.OLDER
    assert merge(directory, old, is_direct=True) is Merge.NEW
    directory.replace_by_tombstone(2, now=0.0)
    directory.expire_tombstones(limits.NODE_FORGET_S)
    assert directory.digest != digest
    assert merge(directory, old) is Merge.NEW


def test_number_of_tombstones_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: nodes that come and go do not fill the directory.  Method: a lowered bound."""
    monkeypatch.setattr(limits, "NODES_MAX", 2)
    directory = Directory(record(1))
    for node in range(2, 9):
        merge(directory, record(node))
        directory.replace_by_tombstone(node, now=0.0)
    assert len(directory.summary()) == 3
    directory.expire_tombstones(limits.NODE_FORGET_S)
    assert directory.digest == Directory(record(1)).digest


def test_number_of_nodes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: above the bound no node is added, and known ones are still updated.  Method: a lowered bound."""
    monkeypatch.setattr(limits, "NODES_MAX", 2)
    directory = Directory(record(1))
    assert [merge(directory, record(node)) for node in (2, 3, 4)] == [Merge.NEW, Merge.NEW, Merge.FULL]
    assert merge(directory, record(2, version=2)) is Merge.NEWER


@given(st.binary(min_size=32, max_size=32), st.integers(0, limits.NODE_ID_ATTEMPTS_MAX - 1))
def test_derived_node_id_is_stable_and_never_zero(public_key: bytes, attempt: int) -> None:
    """Goal: a node has the same id at each start; 0 means no node.  Method: random public keys."""
    assert 0 < derive_node_id(public_key, attempt) < 1 << 32
    assert derive_node_id(public_key, attempt) == derive_node_id(public_key, attempt)


# ---- link indices


def test_released_link_index_is_used_again_last() -> None:
    """Goal: counters of a link are not mixed with those of its predecessor, and indices survive a restart.
    Method: allocate, release and restore."""
    links = LinkTable()
    assert [links.allocate(node) for node in (7, 8, 7)] == [0, 1, 0]
    assert links.release(7) == 0
    assert links.allocate(9) == 2
    again = LinkTable()
    again.restore(links.as_mapping())
    assert (again.get(8), again.get(9), again.allocate(10)) == (1, 2, 0)
    with pytest.raises(ValueError, match="clash"):
        again.restore({1: 3, 2: 3})


def test_no_link_index_beyond_nodes_max() -> None:
    """Goal: no index exceeds the tables in shared memory.  Method: one allocation too many."""
    links = LinkTable()
    assert [links.allocate(node) for node in range(1, limits.NODES_MAX + 1)] == list(range(limits.NODES_MAX))
    assert links.allocate(5000) is None


# ---- id conflicts


SMALLER_KEY, GREATER_KEY = {"public_key": bytes(32)}, {"public_key": b"\xff" * 32}


@pytest.mark.parametrize(
    ("theirs", "finding"),
    [
        (PROTOCOL_1, Finding.ID_IS_OURS),
        ({"incarnation": limits.INCARNATION_MAX, **PROTOCOL_1}, Finding.ID_IS_OURS),
        (SMALLER_KEY, Finding.ID_IS_THEIRS),
        (GREATER_KEY, Finding.ID_IS_OURS),
        ({"version": 6}, Finding.SENT_BEFORE_RESTORE),
        ({"version": 4}, Finding.NOTHING),
        ({"incarnation": 8}, Finding.CLOCK_WAS_AHEAD),
        ({"incarnation": limits.INCARNATION_MAX}, Finding.NOTHING),
        ({"incarnation": 8, "host": "192.0.2.8"}, Finding.CLONE),
        ({"incarnation": 6}, Finding.NOTHING),
        ({"incarnation": 6, "host": "192.0.2.8"}, Finding.NOTHING),
    ],
    ids=str,
)
def test_finding_for_a_record_with_our_node_id(theirs: dict[str, object], finding: Finding) -> None:
    """Goal: each kind of conflict has its finding.
    Method: records that differ in public key, incarnation, version and host."""
    own = record(1, name="b", incarnation=7, version=5)
    received = record(1, **{"name": "b", "incarnation": 7, "version": 5, **theirs})  # type: ignore[arg-type]
    assert IdConflicts().judge(own, received, 0.0, has_links=False, is_direct=False) is finding


@pytest.mark.parametrize("theirs", [PROTOCOL_1, SMALLER_KEY, GREATER_KEY, {"incarnation": 8}], ids=str)
def test_report_changes_nothing_at_a_node_with_links(theirs: dict[str, Any]) -> None:
    """Goal: a member cannot make a linked node take its links down.  Method: reports that an unlinked node follows."""
    own = record(1, name="b", incarnation=7, version=5)
    received = record(1, **{"name": "b", "incarnation": 7, "version": 5, **theirs})
    finding = IdConflicts().judge(own, received, 0.0, has_links=True, is_direct=False)
    assert finding in {Finding.NOTHING, Finding.ID_IS_OURS}


def test_other_process_of_this_identity_is_no_former_one() -> None:
    """Goal: a node on a wildcard address recognises a clone.
    Method: the record of a newer process, which it sends itself."""
    own = record(1, incarnation=7, host="0.0.0.0")
    clone = record(1, incarnation=8)
    for has_links in (False, True):
        assert IdConflicts().judge(own, clone, 0.0, has_links=has_links, is_direct=True) is Finding.CLONE


Judge = Callable[[IdConflicts, NodeRecord, NodeRecord, float, bool], Finding]


def by_id(conflicts: IdConflicts, own: NodeRecord, theirs: NodeRecord, now: float, has_links: bool) -> Finding:
    return conflicts.judge(own, theirs, now, has_links=has_links, is_direct=False)


def by_name(conflicts: IdConflicts, own: NodeRecord, theirs: NodeRecord, now: float, has_links: bool) -> Finding:
    theirs = msgspec.structs.replace(theirs, node_id=2, public_key=b"other".ljust(32))
    return conflicts.judge_namesake(own, theirs, now, has_links=has_links)


@pytest.mark.parametrize("judged", [by_id, by_name])
@pytest.mark.parametrize("host", ["192.0.2.9", "0.0.0.0"])
def test_name_is_taken_when_an_older_node_is_reported_for_longer_than_a_dead_one(host: str, judged: Judge) -> None:
    """Goal: a node gives up its name only if a live node has it.
    Method: reports by time, with and without links; the node listens on one address or on all; the other one has its
    identity or only its name."""
    own, older = record(1, incarnation=7, host=host), record(1, incarnation=6, host="192.0.2.8")
    oldest = msgspec.structs.replace(older, incarnation=5)
    conflicts, late = IdConflicts(), limits.NAME_TAKEN_S

    def judge(theirs: NodeRecord, now: float, *, has_links: bool = False) -> Finding:
        return judged(conflicts, own, theirs, now, has_links)

    assert judge(older, 0.0) is Finding.NOTHING
    assert judge(older, late - 0.1) is Finding.NOTHING
    assert judge(older, late) is Finding.TAKEN
    assert judge(oldest, late) is Finding.NOTHING, "another node: the time begins anew"
    assert judge(oldest, 2 * late, has_links=True) is Finding.NOTHING, "a link shows that we have the name"
    assert judge(oldest, 3 * late) is Finding.NOTHING, "and the time begins anew"
    assert judge(oldest, 4 * late) is Finding.TAKEN


# ---- peer table, views


def peer_table(view: type[DirectoryView]) -> PeerTable:
    directory, envelopes = Directory(record(1)), Envelopes(identity_of("n1"))
    chosen = view(directory, Transmitter(directory, envelopes), engine_options={}, engine_nodes=tuple)
    return PeerTable(directory, chosen, members=OpenMembers(), envelopes=envelopes, random=lambda: 0.5)


def test_unkept_session_times_out_only_after_it_is_kept() -> None:
    """Goal: a peer that had no duty to send is not silent at once when the engine needs a link to it, and its record
    stays as long as the link is needed.

    Method: a partial view with an engine heartbeat of 10 s, so 30 s in sessions, and a grace of 15 s, so 45 s.
    """
    table = peer_table(PartialView)
    table.learn(record(2), 0.0, is_direct=True)
    peer = table.peers[2]
    table.signal(peer, Signal.ACKNOWLEDGED, 0.0, "linked")
    table.set_link_wanted(2, 100.0, is_wanted=True)
    assert peer.next_action(100.0) is Action.SEND
    peer.keepalive_sent(100.0)
    assert peer.next_action(144.9) is not Action.TIME_OUT
    assert peer.next_action(145.0) is Action.TIME_OUT
    table.signal(peer, Signal.TIMEOUT, 145.0, "silent")
    assert peer.next_action(145.0) is Action.FORGET
    assert not table.forget(peer, 145.0)
    table.set_link_wanted(2, 150.0, is_wanted=False)
    assert table.forget(peer, 200.0)


def test_full_view_keeps_every_session_and_leaves_tombstones() -> None:
    """Goal: the engine's wish for a link changes nothing, and a forgotten record stays away.  Method: by hand."""
    table = peer_table(FullView)
    table.learn(record(2), 0.0, is_direct=True)
    table.set_link_wanted(2, 0.0, is_wanted=False)
    assert table.peers[2].is_kept
    assert table.forget(table.peers[2], 1.0)
    table.learn(record(2), 2.0, is_direct=False)
    assert not table.peers


def test_partial_view_evicts_peers_silent_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a full directory makes room, but not at the cost of nodes that the engine uses.  Method: nine records."""
    monkeypatch.setattr(limits, "NODES_MAX", 8)
    table = peer_table(PartialView)
    table.set_link_wanted(2, 0.0, is_wanted=True)
    for node in range(2, 11):
        each = record(node, public_key=identity_of(f"n{node}").public_key)
        table.learn(each, float(node), is_direct=False)
    assert set(table.peers) == {2, *range(4, 11)}


def test_hello_is_in_flight_for_half_a_second_of_one_incarnation() -> None:
    """Goal: a record is not sent again while its Hello may still be acknowledged.
    Method: times after a Hello, after a restart of the peer, and after the acknowledgement."""
    table = peer_table(FullView)
    table.learn(record(2), 0.0, is_direct=True)
    peer, own = table.peers[2], table.own.stamp
    assert not peer.holds(own, 0.0)
    peer.hello_sent(own, 0.0)
    assert peer.holds(own, 0.4)
    assert not peer.holds(own, 0.6)
    peer.hello_sent(own, 1.0)
    table.signal(peer, Signal.RESTARTED, 1.1, "restarted")
    assert not peer.holds(own, 1.2), "the Hello went to the former incarnation"
    table.signal(peer, Signal.ACKNOWLEDGED, 1.3, "linked")
    peer.acked_stamp = own
    assert peer.holds(own, 99.0)
