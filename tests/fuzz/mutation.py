"""Mutations of the corpus without coverage guidance, for unit tests and for hosts without atheris."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline import messages
from pipeline.messages import (
    Content,
    DirectorySummary,
    DirectoryUpdate,
    EngineMessage,
    Goodbye,
    Heartbeat,
    Hello,
    Refusal,
    RefusalReason,
    Request,
    Revocations,
)
from pipeline.overlay import records
from tests.fuzz import nemo, overlay_node
from tests.fuzz.targets import TARGETS, new_node
from tests.unit.overlay_net import Forger

CORPUS = Path(__file__).parent / "corpus"


def seeds() -> list[bytes]:
    """Return the packets of the corpus, and a message of each type in each form in which it is decoded."""
    node, peer = new_node()
    record, head = node.record, peer.header()
    other = Forger("c", at="192.0.2.9:4747").record
    kinds = [
        Hello(number=2, record=records.unsigned(peer.record), **head),
        Heartbeat(number=3, acked_stamp=record.stamp, directory_digest=bytes(8), **head),
        Goodbye(number=4, **head),
        DirectorySummary(entries=[(7, 5, 1), (8, 1, 1)], is_reply_requested=True, **head),
        DirectoryUpdate(records=[records.unsigned(each) for each in (record, other)], **head),
        Refusal(reason=RefusalReason.NAME, detail="in use", **head),
        Revocations(revocation_list=b"list", **head),
        EngineMessage(engine="mesh", body=b"", **head),
    ]
    update = DirectoryUpdate(**head)
    attached = [records.on_wire(each, has_keys=True) for each in (record, other)]
    forms = [
        *map(messages.encode_unsigned, kinds),
        *map(messages.encode_message, kinds),
        peer.envelopes.greeting(peer.record, record.endpoint),
        peer.seal(node, Hello(number=2, **head)),
        msgspec.msgpack.encode(Content(msgspec.Raw(messages.encode_message(update)), attached)),
        other.body,
    ]
    packets = [path.read_bytes() for path in sorted((CORPUS / "python").iterdir())]
    transport = [packet[24:] for packet in packets] + [packet[48:] for packet in packets]
    return [*packets, *transport, *forms, messages.encode_local(Request("show", "links")), node.snapshot(0.0)]


def mutants(rng: random.Random) -> Iterator[bytes]:
    """Yield changed seeds without end: bits and bytes changed, cut, doubled, spliced; and scripts of a malicious
    peer."""
    pool, scripts, nemo_scripts = seeds(), overlay_node.scripts(rng), nemo.scripts(rng)
    for number in itertools.count():
        data = bytearray(pool[number % len(pool)])
        for _ in range(rng.choice((0, 1, 1, 2, 5, 20))):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(6):
                case 0 if data:
                    data[at % len(data)] ^= 1 << rng.randrange(8)
                case 1 if data:
                    data[at % len(data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
                case 2:
                    del data[at:]
                case 3:
                    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8)))
                case 4:
                    data[at:at] = data[: rng.randrange(1 + min(len(data), 64))]
                case _:
                    data[at:] = rng.choice(pool)[at:]
        yield bytes(data[:4096])
        yield next(scripts)
        yield next(nemo_scripts)


def run(seconds: float, seed: int = 0) -> int:
    """Run every target with mutants for a time of the CPU; return their number.

    A finding is raised with its input as a note.
    """
    end = time.process_time() + seconds
    for count, data in enumerate(mutants(random.Random(seed)), start=1):
        for name, target in TARGETS.items():
            try:
                target(data)
            except Exception as error:
                error.add_note(f"{name}: {data.hex()}")
                raise
        if time.process_time() >= end:
            return count
    raise AssertionError("mutants are endless")
