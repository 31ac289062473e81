"""Fuzz target: a member of a group that says any well-formed thing to a few honest members, and then is gone.

A script is a row of frames (overlay_node.py): whom, two bytes length, and bytes that are

    0 … 7   a body for the engine of that member    8 … 13   the same to all members   14, 15   nothing: time passes

Whatever is said, no engine raises anything, all that they say is well formed, no message provokes messages without end,
and a while after the liar has gone every member gets every packet of every other in every turn.
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
LIAR, NOBODY = 99, 4242
OPTIONS = {"k": 2}
"""More than one cluster, and a layer above."""
TIME = 14
"""Frames from this number on are nothing but time."""
DELAY_S = 0.002
LINK_DOWN_S = 2.5
SAID_MAX = 2000
"""By all members in one second: a message that provokes messages without end makes 250 with this delay alone."""
REPAIR_S = 120.0
"""Twice until the rendezvous forgets a root, and four times until a silent leader is followed."""


class Circle:
    """Honest engines that reach each other and the liar."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said = 0
        self.engines: dict[NodeId, Nemo] = {}
        self.routes: dict[NodeId, dict[RouteKey, tuple[frozenset[NodeId], ...]]] = {node: {} for node in HONEST}
        self._under_way: list[tuple[float, int, NodeId, NodeId, bytes]] = []
        self._count = itertools.count()
        for node in HONEST:
            context = EngineContext(node_id=node, random=random.Random(node).random, options=OPTIONS)
            engine = self.engines[node] = Nemo(context, 0.0)
            for other in (*HONEST, LIAR):
                if other != node:
                    engine.handle_link(other, LinkState.UP, 0.0, rtt_s=2 * DELAY_S)
            engine.join(GROUP, ANY_SOURCE, 0.0)
            self._drain(node)
        self.passes(10.0)

    def hears(self, node: NodeId, body: bytes) -> None:
        """What the liar says to one member."""
        self.engines[node].handle_message(LIAR, body, self.now)
        self._drain(node)

    def bury_the_liar(self) -> None:
        """It is gone, and that is seen."""
        self.passes(LINK_DOWN_S)
        for node, engine in self.engines.items():
            engine.handle_link(LIAR, LinkState.DOWN, self.now)
            self._drain(node)

    def passes(self, seconds: float) -> None:
        """Time."""
        end = self.now + seconds
        while True:
            due = [(at, node) for node, engine in self.engines.items() if (at := engine.poll_timeout()) is not None]
            at, node = min(due)
            if self._under_way and self._under_way[0][0] <= at:
                at = self._under_way[0][0]
                if at > end:
                    break
                self._goes_on(at)
                _, _, sender, receiver, message = heapq.heappop(self._under_way)
                reason = self.engines[receiver].handle_message(sender, message, self.now)
                assert reason is None, f"{sender} says to {receiver} what is {reason}"
                self._drain(receiver)
            elif at > end:
                break
            else:
                self._goes_on(at)
                self.engines[node].handle_timeout(self.now)
                self._drain(node)
        self._goes_on(end)

    def _goes_on(self, now: float) -> None:
        if int(now) > int(self.now):
            self.said = 0
        self.now = max(self.now, now)

    def _drain(self, node: NodeId) -> None:
        while (output := self.engines[node].poll_output()) is not None:
            match output:
                case Transmit(peer=peer, message=message):
                    self.said += 1
                    assert self.said < SAID_MAX, "they never stop"
                    messages.decoder.decode(message)
                    if peer in self.engines:
                        at = self.now + DELAY_S
                        heapq.heappush(self._under_way, (at, next(self._count), node, peer, message))
                case RouteChanged(key=key, next_hops=None):
                    del self.routes[node][key]
                case RouteChanged(key=key, next_hops=hops, stripes=stripes):
                    self.routes[node][key] = (hops or frozenset(), *stripes)
                case LinkWanted() | Resend():
                    pass

    def reached(self, origin: NodeId, stripe: int) -> set[NodeId]:
        """Who gets a packet of that turn."""
        got = {origin}
        under_way: list[tuple[NodeId, NodeId | None]] = [(origin, None)]
        while under_way:
            node, via = under_way.pop(0)
            routes = self.routes[node]
            side = Side.HOST if via is None else Side.OVERLAY
            sets = routes.get(RouteKey(side, GROUP, via=via)) or routes.get(RouteKey(side, GROUP), ())
            for hop in sets[stripe % len(sets)] if sets else ():
                if hop in self.engines and hop not in got:
                    got.add(hop)
                    under_way.append((hop, node))
        return got

    def assert_whole(self) -> None:
        """Everybody gets everything."""
        for origin in HONEST:
            for stripe in range(Options().crew_size):
                assert self.reached(origin, stripe) == set(HONEST), f"packets of {origin} in stripe {stripe}"


def run_script(data: bytes) -> None:
    """The target.  What is not well formed is the overlay_node targets' (overlay_node.py)."""
    said = [(what, body) for what, body in frames(data) if what % 16 >= TIME or _is_well_formed(body)]
    if all(what % 16 >= TIME for what, _ in said):
        return
    circle = Circle()
    for what, body in said:
        match what % 16:
            case number if number >= TIME:
                circle.passes(len(body) * STEP_S)
            case number if number >= len(HONEST):
                for node in HONEST:
                    circle.hears(node, body)
            case number:
                circle.hears(HONEST[number], body)
    circle.bury_the_liar()
    circle.passes(REPAIR_S)
    circle.assert_whole()


def _is_well_formed(body: bytes) -> bool:
    try:
        return messages.decoder.decode(body).group == GROUP
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


TARGETS: Mapping[str, Callable[[bytes], None]] = {"nemo": run_script}


# ---------------------------------------------------------------- what is said


def body(rng: random.Random) -> bytes:
    """A well-formed message with values that nobody would say."""

    def node() -> NodeId:
        return rng.choice((*HONEST, *HONEST, LIAR, NOBODY, 0))

    def crew() -> tuple[NodeId, ...]:
        return tuple(node() for _ in range(rng.choice((0, 1, 2, 3, 3))))

    def members(*sure: NodeId) -> dict[NodeId, tuple[NodeId, ...]]:
        some = rng.choice(((), (node(),), HONEST, HONEST, (*HONEST, LIAR), range(1000, 1250), range(1, 255)))
        return {each: crew() if rng.random() < 0.3 else () for each in (*sure, *some)}

    layer = rng.choice((0, 0, 0, 1, 1, 2, 3, 14, 15))
    version = rng.choice((0, 1, 10, 100, 1 << 40, messages.VERSION_SANE - 1, messages.VERSION_SANE, (1 << 62) - 1))
    ms = rng.choice((0.0, 1e-9, 1.0, 1e9))
    numbers = tuple(rng.choice(((), (0,), range(64), ((1 << 32) - 1,))))
    kinds: tuple[Callable[[], messages.Message], ...] = (
        lambda: messages.RootQuery(GROUP, node(), node(), layer),
        lambda: messages.RootReply(GROUP, node()),
        lambda: messages.Query(GROUP, layer, rng.choice((0, layer, 15)), version),
        lambda: messages.Answer(GROUP, layer, rng.randrange(1, 9), list(members()), rng.randrange(messages.LAYERS_MAX)),
        lambda: messages.Join(GROUP, layer, crew(), node()),
        lambda: messages.Leave(GROUP, layer, node(), crew()),
        lambda: messages.View(GROUP, layer, version, leader := node(), members(leader), crew(), crew()),
        lambda: messages.View(GROUP, layer, version, leader := node(), members(leader), (leader, *crew()[:2]), crew()),
        lambda: messages.Redirect(GROUP, layer, node()),
        lambda: messages.Heartbeat(GROUP, layer, node(), version, crew(), ms, ms, ms, dict.fromkeys(members(), ms)),
        lambda: messages.Source(GROUP, node(), version),
        lambda: messages.Nack(GROUP, node(), numbers, node()),
        lambda: messages.NackReply(GROUP, node(), numbers, crew(), is_yours=rng.random() < 0.5),
    )
    return messages.encode(rng.choice(kinds)())


def scripts(rng: random.Random) -> Iterator[bytes]:
    """Scripts of such messages; without end."""
    while True:
        row = []
        for _ in range(rng.choice((1, 3, 8, 31))):
            what = rng.randrange(16)
            row.append(frame(what, bytes(rng.choice((1, 8, 64, 320))) if what >= TIME else body(rng)))
        yield b"".join(row)


def seeds() -> list[bytes]:
    """A few of them."""
    return list(itertools.islice(scripts(random.Random(1)), 50))


def twisted_script(rng: random.Random, data: bytes) -> bytes:
    """The script with one message more, or another in the place of one."""
    row = list(frames(data))
    at = rng.randrange(len(row) + 1)
    row[at : at + rng.randrange(2)] = [(rng.randrange(TIME), body(rng))]
    return b"".join(frame(*each) for each in row)
