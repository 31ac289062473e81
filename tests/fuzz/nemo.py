"""Fuzz target: a member of a group sends any well-formed messages to a few honest members, and then vanishes.

A script is a sequence of frames (overlay_node.py): one byte receiver, two bytes length, and bytes that are

    0 … 7   a message to that member    8 … 13   a message to all members    14, 15   ignored: time passes

Whatever is sent, no engine raises an exception, all messages of the engines are well formed, no message causes messages
without end, and some time after the forger has vanished every member receives every packet of every other one in every
stripe.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Mapping

import msgspec

from pipeline.address import ANY_SOURCE, NodeId, parse
from pipeline.engines.api import EngineContext, LinkState, LinkWanted, Resend, RouteChanged, RouteKey, Side, Transmit
from pipeline.engines.nemo import messages
from pipeline.engines.nemo.engine import Nemo
from pipeline.engines.nemo.options import Options
from tests.fuzz.overlay_node import STEP_S, frame, frames

GROUP = parse("239.1.2.3")
HONEST: tuple[NodeId, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
FORGER, NOBODY = 99, 4242
OPTIONS = {"k": 2}
"""Small clusters: eight members need several, and a layer above."""
TIME = 14
"""Frames with this receiver or a higher one let time pass."""
DELAY_S = 0.002
LINK_DOWN_S = 2.5
MESSAGES_MAX = 2000
"""Messages of all members in one second.  One message that causes messages without end makes 250 with this delay."""
REPAIR_S = 120.0
"""Twice the time until the rendezvous forgets a root, and four times until a silent leader is replaced."""


class Members:
    """Honest engines that reach each other and the forger."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent = 0
        self.engines: dict[NodeId, Nemo] = {}
        self.routes: dict[NodeId, dict[RouteKey, tuple[frozenset[NodeId], ...]]] = {node: {} for node in HONEST}
        self._in_flight: list[tuple[float, int, NodeId, NodeId, bytes]] = []
        self._count = itertools.count()
        for node in HONEST:
            context = EngineContext(node_id=node, random=random.Random(node).random, options=OPTIONS)
            engine = self.engines[node] = Nemo(context, 0.0)
            for other in (*HONEST, FORGER):
                if other != node:
                    engine.handle_link(other, LinkState.UP, 0.0, rtt_s=2 * DELAY_S)
            engine.join(GROUP, ANY_SOURCE, 0.0)
            self._drain(node)
        self.run(10.0)

    def receive(self, node: NodeId, body: bytes) -> None:
        """Let one member receive a message of the forger."""
        self.engines[node].handle_message(FORGER, body, self.now)
        self._drain(node)

    def remove_forger(self) -> None:
        """The forger vanishes, and the links to it go down."""
        self.run(LINK_DOWN_S)
        for node, engine in self.engines.items():
            engine.handle_link(FORGER, LinkState.DOWN, self.now)
            self._drain(node)

    def run(self, seconds: float) -> None:
        """Let time pass, and deliver messages."""
        end = self.now + seconds
        while True:
            due = [(at, node) for node, engine in self.engines.items() if (at := engine.poll_timeout()) is not None]
            at, node = min(due)
            if self._in_flight and self._in_flight[0][0] <= at:
                at = self._in_flight[0][0]
                if at > end:
                    break
                self._advance(at)
                _, _, sender, receiver, message = heapq.heappop(self._in_flight)
                reason = self.engines[receiver].handle_message(sender, message, self.now)
                assert reason is None, f"{sender} sends to {receiver} a message that is {reason}"
                self._drain(receiver)
            elif at > end:
                break
            else:
                self._advance(at)
                self.engines[node].handle_timeout(self.now)
                self._drain(node)
        self._advance(end)

    def _advance(self, now: float) -> None:
        if int(now) > int(self.now):
            self.sent = 0
        self.now = max(self.now, now)

    def _drain(self, node: NodeId) -> None:
        while (output := self.engines[node].poll_output()) is not None:
            match output:
                case Transmit(peer=peer, message=message):
                    self.sent += 1
                    assert self.sent < MESSAGES_MAX, "messages without end"
                    messages.decoder.decode(message)
                    if peer in self.engines:
                        at = self.now + DELAY_S
                        heapq.heappush(self._in_flight, (at, next(self._count), node, peer, message))
                case RouteChanged(key=key, next_hops=None):
                    del self.routes[node][key]
                case RouteChanged(key=key, next_hops=hops, stripes=stripes):
                    self.routes[node][key] = (hops or frozenset(), *stripes)
                case LinkWanted() | Resend():
                    pass

    def reached(self, origin: NodeId, stripe: int) -> set[NodeId]:
        """Return the nodes that receive a packet of the stripe."""
        got = {origin}
        waiting: list[tuple[NodeId, NodeId | None]] = [(origin, None)]
        while waiting:
            node, via = waiting.pop(0)
            routes = self.routes[node]
            side = Side.HOST if via is None else Side.OVERLAY
            sets = routes.get(RouteKey(side, GROUP, via=via)) or routes.get(RouteKey(side, GROUP), ())
            for hop in sets[stripe % len(sets)] if sets else ():
                if hop in self.engines and hop not in got:
                    got.add(hop)
                    waiting.append((hop, node))
        return got

    def assert_whole(self) -> None:
        """Assert that every member receives the packets of every other one."""
        for origin in HONEST:
            for stripe in range(Options().crew_size):
                assert self.reached(origin, stripe) == set(HONEST), f"packets of {origin} in stripe {stripe}"


def run_script(data: bytes) -> None:
    """Run a script.  Malformed bodies are skipped: the targets of overlay_node.py cover them."""
    script = [(receiver, body) for receiver, body in frames(data) if receiver % 16 >= TIME or _is_well_formed(body)]
    if all(receiver % 16 >= TIME for receiver, _ in script):
        return
    members = Members()
    for receiver, body in script:
        match receiver % 16:
            case number if number >= TIME:
                members.run(len(body) * STEP_S)
            case number if number >= len(HONEST):
                for node in HONEST:
                    members.receive(node, body)
            case number:
                members.receive(HONEST[number], body)
    members.remove_forger()
    members.run(REPAIR_S)
    members.assert_whole()


def _is_well_formed(body: bytes) -> bool:
    try:
        return messages.decoder.decode(body).group == GROUP
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


TARGETS: Mapping[str, Callable[[bytes], None]] = {"nemo": run_script}


# ---------------------------------------------------------------- scripts


def body(rng: random.Random) -> bytes:
    """Return a well-formed message with unlikely values."""

    def node() -> NodeId:
        return rng.choice((*HONEST, *HONEST, FORGER, NOBODY, 0))

    def crew() -> tuple[NodeId, ...]:
        return tuple(node() for _ in range(rng.choice((0, 1, 2, 3, 3))))

    def member_crews(*sure: NodeId) -> dict[NodeId, tuple[NodeId, ...]]:
        some = rng.choice(((), (node(),), HONEST, HONEST, (*HONEST, FORGER), range(1000, 1250), range(1, 255)))
        return {each: crew() if rng.random() < 0.3 else () for each in (*sure, *some)}

    layer = rng.choice((0, 0, 0, 1, 1, 2, 3, 14, 15))
    version = rng.choice((0, 1, 10, 100, 1 << 40, messages.VERSION_SANE - 1, messages.VERSION_SANE, (1 << 62) - 1))
    ms = rng.choice((0.0, 1e-9, 1.0, 1e9))
    numbers = tuple(rng.choice(((), (0,), range(64), ((1 << 32) - 1,))))
    kinds: tuple[Callable[[], messages.Message], ...] = (
        lambda: messages.RootQuery(GROUP, node(), node(), layer),
        lambda: messages.RootReply(GROUP, node()),
        lambda: messages.Query(GROUP, layer, rng.choice((0, layer, 15)), version),
        lambda: messages.Answer(
            GROUP, layer, rng.randrange(1, 9), list(member_crews()), rng.randrange(messages.LAYERS_MAX)
        ),
        lambda: messages.Join(GROUP, layer, crew(), node()),
        lambda: messages.Leave(GROUP, layer, node(), crew()),
        lambda: messages.View(GROUP, layer, version, leader := node(), member_crews(leader), crew(), crew()),
        lambda: messages.View(
            GROUP, layer, version, leader := node(), member_crews(leader), (leader, *crew()[:2]), crew()
        ),
        lambda: messages.Redirect(GROUP, layer, node()),
        lambda: messages.Heartbeat(
            GROUP, layer, node(), version, crew(), ms, ms, ms, dict.fromkeys(member_crews(), ms)
        ),
        lambda: messages.Source(GROUP, node(), version),
        lambda: messages.Nack(GROUP, node(), numbers, node()),
        lambda: messages.NackReply(GROUP, node(), numbers, crew(), is_circular=rng.random() < 0.5),
    )
    return messages.encode(rng.choice(kinds)())


def scripts(rng: random.Random) -> Iterator[bytes]:
    """Return scripts of such messages; without end."""
    while True:
        script = []
        for _ in range(rng.choice((1, 3, 8, 31))):
            receiver = rng.randrange(16)
            script.append(frame(receiver, bytes(rng.choice((1, 8, 64, 320))) if receiver >= TIME else body(rng)))
        yield b"".join(script)


def seeds() -> list[bytes]:
    """Return a few scripts."""
    return list(itertools.islice(scripts(random.Random(1)), 50))


def twisted_script(rng: random.Random, data: bytes) -> bytes:
    """Return the script with one message added or replaced."""
    script = list(frames(data))
    at = rng.randrange(len(script) + 1)
    script[at : at + rng.randrange(2)] = [(rng.randrange(TIME), body(rng))]
    return b"".join(frame(*each) for each in script)
