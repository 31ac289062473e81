"""Lateral recovery: what is missing is asked for after 2 RTT to who should have sent it, then of others of the crews.

    missing ──2 RTT──▶ asked of the parent in the tree of its turn (forwarding.providers: first of them)
        it comes                          well
        Lack: "I lack it too"             the parent is being served itself, and passes on what it gets: wait, then ask
                                          again, and also for what else is missing by then
        Lack without the number           it is on its way; if not, the next provider
        nothing within 2 RTT              the parent is suspected (doubts.py), and passed over for SILENT_S;
                                          the next provider is asked, and told of the suspicion

Who is asked and lacks it says whom it would ask itself, first those in the direction of the source: who stands for a
cluster in another turn knows where its packets come from, and so who stands there in the turn of the missing ones.  So
the search finds its way around a dead parent, although a node knows the clusters above and below only.  A packet is
repaired once for each child of a dead node and goes down the trees below; who is further down waits for it.  What has
just been passed on to a peer is not sent again when its question comes, which has crossed it.

Trees of different turns differ in length, so packets overtake each other without any loss.  How late they come is
learnt for each stream, and nothing is asked for sooner.  It sees no packets: they are resent by the data plane out of
its own history.  With `repair = "none"` nothing is asked for, but the parent still has to answer that it lives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from pipeline import limits
from pipeline.address import Address, NodeId
from pipeline.engines.api import Resend
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.expiring import TtlMap
from pipeline.engines.nemo.messages import Crew, Nack, NackReply

LATE_MAX_S = 0.5
LATE_STEP_S = 0.01
LATE_SHARE = 0.9
"""Of the packets that come by themselves come within the time that is waited."""
VIAS_MAX = 4
"""Remembered: one of each turn of the paper's crew, and who has repaired something."""
NUMBERS_MAX = 64
"""Of one Nack: twice the paper's buffer."""
LACKS_MAX = 3
"""So often is a parent that lacks a packet itself asked again, after twice the time each, before others are."""
SILENT_S = 2.0
"""How long nobody asks again who has not answered: by then its cluster has another in its place."""
RECOVERED_MAX = 256
"""Repaired packets whose time is remembered: eight buffers."""


@dataclass(slots=True)
class _Wanted:
    due: float
    since: float
    tries: int = 0
    asked: NodeId = 0
    """Whose answer is outstanding; 0: nobody's."""
    is_parent: bool = False
    """Whether that is who should have sent it."""
    lacks: int = 0
    answer_at: float = 0.0
    """Before this it cannot be an answer to what was asked last."""
    passed: set[NodeId] = field(default_factory=set)
    """Those who have been asked in vain."""
    referred: Crew = ()
    """Whom the last of them would ask."""


class Recovery:
    """Of one group."""

    def __init__(
        self,
        group: Address,
        desk: Context,
        providers: Callable[[NodeId, int, Sequence[NodeId]], list[NodeId]],
        suspect: Callable[[NodeId, float], None],
    ) -> None:
        self._group = group
        self._desk = desk
        self._providers = providers
        """Of an origin's packet with that number, if those are who sent the last ones."""
        self._suspect = suspect
        self._missing: dict[NodeId, dict[int, _Wanted]] = {}
        self._vias: dict[NodeId, tuple[NodeId, ...]] = {}
        """Who has sent packets of each origin that lacks something, the last one first: each turn's come by another
        way."""
        self._late_s: dict[NodeId, float] = {}
        self._silent: TtlMap[NodeId] = TtlMap()
        """Those who have not answered: they are not asked."""
        self._lacking: dict[tuple[NodeId, NodeId], tuple[float, int]] = {}
        """By origin and parent: until when a parent that lacks packets too is not asked for more, and how often it has
        been."""
        self._recovered: dict[tuple[NodeId, int], float] = {}
        self.due: float | None = None

    @property
    def _repairs(self) -> bool:
        return self._desk.parameters.repair == "nack"

    # ---- what is missing

    def handle_gap(self, origin: NodeId, numbers: Collection[int], via: NodeId | None, now: float) -> None:
        """What of the origin's stream is missing now."""
        held = self._missing.get(origin, {})
        self._learn(origin, held, numbers, now)
        for number in held:
            if number not in numbers:
                if len(self._recovered) >= RECOVERED_MAX:
                    del self._recovered[next(iter(self._recovered))]
                self._recovered[origin, number] = now
        if numbers:
            if via is not None:
                others = (node for node in self._vias.get(origin, ()) if node != via)
                self._vias[origin] = (via, *others)[:VIAS_MAX]
            due = now + self._patience(origin, via)
            self._missing[origin] = {number: held.get(number) or _Wanted(due, now) for number in numbers}
        else:
            self._missing.pop(origin, None)
            self._vias.pop(origin, None)
        self._plan()

    def _learn(self, origin: NodeId, held: dict[int, _Wanted], numbers: Collection[int], now: float) -> None:
        """What has come by itself was only late."""
        oldest = min(numbers, default=0)
        for number, each in held.items():
            if number not in numbers and number >= oldest and (not each.tries or now < each.answer_at):
                old_s = self._late_s.get(origin, 0.0)
                step_s = LATE_STEP_S * (LATE_SHARE if now - each.since > old_s else LATE_SHARE - 1)
                self._late_s[origin] = min(max(0.0, old_s + step_s), LATE_MAX_S)

    def _patience(self, origin: NodeId, peer: NodeId | None) -> float:
        """The missing-packet timer, in seconds."""
        rtt_s = self._desk.rtt(peer) if peer else 0.0
        return max(2 * rtt_s, self._late_s.get(origin, 0.0), self._desk.parameters.nack_floor_s)

    # ---- asking

    def handle_timeout(self, now: float) -> None:
        """Ask for what is due."""
        if self.due is None or now < self.due:
            return
        asks: dict[tuple[NodeId, NodeId, NodeId], list[int]] = {}
        for origin, wanted in self._missing.items():
            for number, each in wanted.items():
                if each.due <= now:
                    self._ask(origin, number, each, asks, now)
        for (peer, origin, instead), numbers in asks.items():
            named = tuple(sorted(numbers)[-NUMBERS_MAX:]) if self._repairs else ()
            self._desk.send(peer, Nack(self._group, origin, named, instead), (instead,))
        self._plan()

    def _ask(
        self,
        origin: NodeId,
        number: int,
        each: _Wanted,
        asks: dict[tuple[NodeId, NodeId, NodeId], list[int]],
        now: float,
    ) -> None:
        """Choose whom to ask for a packet now."""
        if each.asked:
            self._silent.add(each.asked, now + SILENT_S, now)
            self._suspect(each.asked, now)
            each.passed.add(each.asked)
            each.asked = 0
        parent, *others = self._providers(origin, number, self._vias.get(origin, ())) or [0]
        is_silent = self._silent.has(parent, now)
        peers = [parent, *each.referred, *others]
        free = [node for node in peers if node not in each.passed and not self._silent.has(node, now)]
        free = [node for node in free if node not in (0, self._desk.own)]
        until, lacks = self._lacking.get((origin, parent), (now, 0))
        if until > now and each.lacks < lacks and free[:1] == [parent]:
            each.lacks, each.due = lacks, until
            return
        tries_max = self._desk.parameters.nack_tries if self._repairs else 1
        each.tries += 1
        if each.tries > tries_max:
            each.due = float("inf")
        elif not free:
            each.passed.clear()
            each.due = now + self._patience(origin, parent) * (1 + each.tries)
        else:
            each.asked, each.is_parent = free[0], free[0] == parent
            each.due = now + self._answer_s(free[0])
            each.answer_at = now + 0.8 * self._desk.rtt(free[0])
            asks.setdefault((free[0], origin, parent if is_silent else 0), []).append(number)

    def _answer_s(self, peer: NodeId) -> float:
        """How long an answer may take."""
        return max(2 * self._desk.rtt(peer), self._desk.parameters.nack_floor_s)

    # ---- answers

    def handle_lack(self, peer: NodeId, lack: NackReply, now: float) -> None:
        """Who was asked lives, and says what it lacks too."""
        self._silent.discard(peer)
        lacking = set(lack.numbers)
        for number, each in self._missing.get(lack.origin, {}).items():
            if each.asked != peer:
                continue
            each.asked = 0
            if number not in lacking:
                each.passed.add(peer)
                each.due = now + self._answer_s(peer) / 2
            elif each.is_parent and not lack.is_yours and each.lacks < LACKS_MAX:
                each.lacks += 1
                each.due = now + self._patience(lack.origin, peer) * 2**each.lacks
                self._lacking = {key: held for key, held in self._lacking.items() if held[0] > now}
                self._lacking[lack.origin, peer] = each.due, each.lacks
            else:
                each.passed.add(peer)
                each.referred = lack.crew
                each.due = now
        self._plan()

    def handle_nack(self, peer: NodeId, nack: Nack, now: float) -> None:
        """A peer lacks packets: the data plane may have them; or it asks only whether this node lives."""
        if nack.instead not in (0, self._desk.own):
            self._suspect(nack.instead, now)
        held = self._missing.get(nack.origin, {})
        lacks = tuple(number for number in nack.numbers if number in held)
        since = now - self._desk.rtt(peer)
        given = tuple(
            number
            for number in nack.numbers
            if number not in held and self._recovered.get((nack.origin, number), since) <= since
        )
        if given and self._repairs:
            self._desk.outputs.append(Resend(peer, self._group, nack.origin, given))
        asked = self._providers(nack.origin, lacks[-1], self._vias.get(nack.origin, ())) if lacks else []
        crew = tuple(node for node in (*asked[1:], *asked[:1]) if node not in (0, peer))[: limits.STRIPES_MAX]
        self._desk.send(peer, NackReply(self._group, nack.origin, lacks, crew, is_yours=asked[:1] == [peer]), crew)

    def _plan(self) -> None:
        due = min((each.due for wanted in self._missing.values() for each in wanted.values()), default=None)
        self.due = None if due == float("inf") else due
