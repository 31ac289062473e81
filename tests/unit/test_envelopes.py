"""Goal: a sealed message is opened by the node and start for which it was sealed, as it was sealed, and once.

Method: two identities seal and open messages; every part is changed in turn.  The window against replays is compared
with a set of all numbers.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import limits, messages
from pipeline.errors import WireError
from pipeline.messages import Content, Goodbye, Heartbeat, Hello, NodeRecord, SealedMessage
from pipeline.overlay import records
from pipeline.overlay.envelopes import Envelopes, ReplayWindow
from tests.unit.overlay_net import Forger, identity_of, key_of

A, B, M = Forger("a", at="192.0.2.1:4747"), Forger("b", at="192.0.2.2:4747"), Forger("m")


def sealed(number: int = 1, message: messages.AnyNodeMessage | None = None) -> SealedMessage:
    """Return a message of A for B."""
    message = message or Goodbye(number=number, **A.header())
    frame = messages.decode_frame(A.envelopes.seal(A.record, B.record, number, message))
    assert isinstance(frame, SealedMessage)
    return frame


def opened(frame: SealedMessage, *, by: Forger = B, sender: NodeRecord = A.record) -> Content | None:
    return by.envelopes.open(by.record, sender, frame)


# ---- seals


def test_message_is_opened_by_its_receiver() -> None:
    """Goal: the receiver gets the message, its records and keys.  Method: a message of each form."""
    content = opened(sealed())
    assert content is not None
    assert messages.decode_message(content.message) == Goodbye(number=1, **A.header())
    hello = sealed(2, Hello(number=2, record=A.record, **A.header()))
    assert hello.record is not None
    assert (hello.record.sender_key, hello.record.second_key) == (b"", b""), "keys are sealed"
    content = opened(hello)
    assert content is not None
    assert content.keys == (key_of("a"), b"")
    update = sealed(3, messages.DirectoryUpdate(records=[M.record], **A.header()))
    content = opened(update)
    assert content is not None
    assert [each.sender_key for each in content.records] == [key_of("m")]


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": 1},
        {"sender": M.record.node_id},
        {"incarnation": 2},
        {"receiver": M.record.node_id},
        {"receiver_incarnation": 2},
        {"number": 2},
        {"endpoint": "192.0.2.99:4747"},
    ],
    ids=str,
)
def test_changed_header_opens_nothing(changes: dict[str, Any]) -> None:
    """Goal: nobody on the way can change the sender, the receiver, the starts of both, the number or the endpoint for
    replies.  Method: one field changed at a time, with the records that fit to the changed header."""
    frame = msgspec.structs.replace(sealed(), **changes)
    sender = msgspec.structs.replace(A.record, node_id=frame.sender, incarnation=frame.incarnation)
    receiver = msgspec.structs.replace(B.record, node_id=frame.receiver, incarnation=frame.receiver_incarnation)
    assert B.envelopes.open(receiver, sender, frame) is None
    assert opened(frame) is None


def test_changed_or_cut_seal_opens_nothing() -> None:
    """Goal: a changed message is not taken.  Method: each bit of some bytes, and every length of the sealed part."""
    frame = sealed()
    for at in range(0, len(frame.sealed), 5):
        for bit in range(8):
            changed = bytearray(frame.sealed)
            changed[at] ^= 1 << bit
            assert opened(msgspec.structs.replace(frame, sealed=bytes(changed))) is None
    for length in range(len(frame.sealed)):
        assert opened(msgspec.structs.replace(frame, sealed=frame.sealed[:length])) is None


@pytest.mark.parametrize(
    ("by", "sender"),
    [
        (B, M.record),
        (M, A.record),
        (Forger("b", incarnation=2), A.record),
        (B, Forger("a", incarnation=2).record),
        (A, B.record),
    ],
    ids=["another sender", "another receiver", "later start of the receiver", "later start of the sender", "reflected"],
)
def test_other_node_or_start_opens_nothing(by: Forger, sender: NodeRecord) -> None:
    """Goal: a relayed message is useless: for another node, for a later start of the node, back to its sender, and in
    the name of another sender.  Method: the header is made to fit, so that only the key decides."""
    frame = msgspec.structs.replace(
        sealed(),
        sender=sender.node_id,
        incarnation=sender.incarnation,
        receiver=by.record.node_id,
        receiver_incarnation=by.record.incarnation,
    )
    assert opened(frame, by=by, sender=sender) is None


def test_keys_of_a_node_are_those_of_its_present_record() -> None:
    """Goal: keys that were derived for a former start are not used again.
    Method: the same objects seal and open for one start, then the next one, and the first again."""
    again = Forger("b", at="192.0.2.2:4747", incarnation=2)
    for receiver in (B.record, again.record, B.record):
        data = A.envelopes.seal(A.record, receiver, 1, Goodbye(number=1, **A.header()))
        frame = messages.decode_frame(data)
        assert isinstance(frame, SealedMessage)
        for each in (B.record, again.record):
            assert (B.envelopes.open(each, A.record, frame) is not None) is (each is receiver)


def test_malformed_content_is_an_error_of_its_sender() -> None:
    """Goal: a peer that seals garbage is cut off, others are not.
    Method: sealed bytes that are no content; the same bytes, changed on the way."""
    header = (A.record.node_id, 1, B.record.node_id, 1, 1, A.record.endpoint)
    key = A.envelopes._keys_with(A.record, B.record).send
    garbage = A.envelopes.signer.seal(key, b"\xff" * 9, msgspec.msgpack.encode(header))
    frame = SealedMessage(*header, garbage)
    with pytest.raises(WireError, match="message_malformed"):
        opened(frame)
    assert opened(msgspec.structs.replace(frame, sealed=garbage[:-1])) is None


def test_same_message_is_never_sealed_to_the_same_bytes() -> None:
    """Goal: a restored snapshot of a host repeats no nonce.  Method: the same message and number twice."""
    assert sealed().sealed != sealed().sealed


def test_probe_keys_are_those_of_the_pair_and_differ_from_all_others() -> None:
    """Goal: no third member can answer probes, and no probe key opens messages.
    Method: the keys of two nodes, of a third one, and of a later start."""
    ours, theirs = A.envelopes.probe_keys(A.record, B.record), B.envelopes.probe_keys(B.record, A.record)
    assert ours == theirs[::-1]
    later = Forger("b", incarnation=2).record
    others = [
        *A.envelopes.probe_keys(A.record, later),
        *A.envelopes.probe_keys(A.record, M.record),
        *M.envelopes.probe_keys(M.record, A.record),
        *M.envelopes.probe_keys(M.record, B.record),
        *A.envelopes._keys_with(A.record, B.record)[1:],
    ]
    assert len(set(ours)) == 2
    assert not set(ours) & set(others)
    assert all(len(key) == 32 for key in ours)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31), b"\xff" * 32, b"short"], ids=repr)
def test_public_key_without_a_secret_pair_key_is_refused(point: bytes) -> None:
    """Goal: a key of small order, with which anybody knows the pair key, belongs to no node.  Method: such points."""
    assert not A.envelopes.can_pair(point)
    assert A.envelopes.can_pair(B.record.public_key)


def test_number_of_kept_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: invented identities do not fill memory with keys.  Method: a lowered bound."""
    monkeypatch.setattr(limits, "NODES_MAX", 2)
    envelopes = Envelopes(identity_of("a"))
    for number in range(10):
        receiver = Forger(f"invented{number}").record
        envelopes.seal(A.record, receiver, 1, Heartbeat(number=1, acked_stamp=None, directory_digest=b"", **A.header()))
    assert len(envelopes._keys) <= 4
    assert len(envelopes._pair_keys) <= 4


def test_refused_node_gets_no_keys_of_others() -> None:
    """Goal: sender keys go to members only.  Method: a refusal with the record that is in the way."""
    refusal = messages.Refusal(reason=messages.RefusalReason.NAME, records=[M.record], **A.header())
    content = opened(sealed(4, refusal))
    assert content is not None
    assert [(each.body, each.sender_key, each.second_key) for each in content.records] == [(M.record.body, b"", b"")]
    assert key_of("m") not in msgspec.msgpack.encode(content)


# ---- replays


@given(st.lists(st.integers(0, 3 * limits.MESSAGE_WINDOW), max_size=300))
@settings(deadline=None)
def test_window_takes_each_number_once(numbers: list[int]) -> None:
    """Goal: no number is taken twice, and a number that is late by less than the window is taken.
    Method: random numbers, compared with the set of those that were taken."""
    window, taken, highest = ReplayWindow(), set[int](), -1
    for number in numbers:
        is_late = number <= highest - limits.MESSAGE_WINDOW
        assert window.take(number) is (number not in taken and not is_late)
        taken.add(number)
        highest = max(highest, number)
        assert window.highest == highest


def test_window_of_a_restored_checkpoint_takes_nothing_old() -> None:
    """Goal: messages that arrived before a restart of control do not arrive again.
    Method: restart at a number; the numbers up to it, and the next ones."""
    window = ReplayWindow()
    window.restart(1000)
    assert not any(window.take(number) for number in range(1001))
    assert window.take(1001)
    assert not window.take(1001)


def test_huge_number_costs_no_memory() -> None:
    """Goal: a jump of numbers makes no large integer.  Method: the highest number after a low one."""
    window = ReplayWindow()
    assert window.take(1)
    assert window.take((1 << 63) - 1)
    assert window._received.bit_length() <= limits.MESSAGE_WINDOW
    assert not window.take(1)


def test_records_of_a_message_travel_as_they_were_signed() -> None:
    """Goal: a relay changes nothing of what it forwards.  Method: body and signature before and after."""
    content = opened(sealed(9, messages.DirectoryUpdate(records=[M.record], **A.header())))
    assert content is not None
    assert [(each.body, each.signature) for each in content.records] == [(M.record.body, M.record.signature)]
    assert records.verify(content.records[0], identity_of("b")) is not None
