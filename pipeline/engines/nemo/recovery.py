"""Lateral recovery: a missing packet is requested after 2 RTT from the node that should have sent it, then from others.

    missing ──2 RTT──▶ Nack to the parent in the tree of the packet's stripe (the first of forwarding.providers)
        packet arrives                    done
        NackReply with the number         the parent lacks it too, and will pass it on: wait, then request again,
                                          together with everything that is missing by then
        NackReply without the number      the packet is under way; if it does not arrive, try the next provider
        nothing within 2 RTT              the parent is suspected (failure_detector.py), and skipped for SILENT_S;
                                          the next provider is tried, and the Nack names the suspect

A node that lacks the packet itself replies with the providers that it would try, those towards the source first: a node
that represents a cluster in another stripe knows where its packets come from, and so which node is there in the stripe
of the missing ones.  So the search finds its way around a dead parent, although a node knows only the clusters next to
its own.  A packet is repaired once for each child of a dead node and goes down the trees below; nodes further down wait
for it.  A packet that has just been passed on to a peer is not sent again if the peer's Nack has crossed it.

Trees of different stripes differ in depth, so packets overtake each other without any loss.  The delay is learnt for
each stream, and nothing is requested before it has passed.  This file sees no packets: the data plane retransmits them
from its history.  With `repair = "none"` no packet is requested, but the parent is still probed with an empty Nack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from pipeline import limits
from pipeline.address import Address, NodeId
from pipeline.engines.api import Resend
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.messages import Crew, Nack, NackReply
from pipeline.timers import TtlMap

LATE_MAX_S = 0.5
"""Upper bound of the learnt delay."""
LATE_STEP_S = 0.01
LATE_SHARE = 0.9
"""Share of the packets that arrive by themselves which arrive within the learnt delay."""
VIAS_MAX = 4
"""Last senders remembered of a stream: one for each stripe of the paper's crew, and one that has repaired packets."""
NUMBERS_MAX = 64
"""Packets in one Nack: twice the paper's buffer."""
PARENT_RETRIES_MAX = 3
"""Repeated requests to a parent that lacks the packet itself, each after twice the time, before others are tried."""
SILENT_S = 2.0
"""Time for which a node that has not answered is skipped: by then its cluster has replaced it."""
RECOVERED_MAX = 256
"""Repaired packets whose time is remembered: eight buffers."""


@dataclass(slots=True)
class _Missing:
    """A missing packet."""

    due: float
    """Time of the next request."""
    since: float
    tries: int = 0
    requested_from: NodeId = 0
    """Node whose reply is outstanding; 0: none."""
    is_parent: bool = False
    """Whether that node is the parent."""
    parent_retries: int = 0
    answer_at: float = 0.0
    """Earliest time at which the packet can be an answer to the last request."""
    tried: set[NodeId] = field(default_factory=set)
    """Nodes that have been tried in vain."""
    referred: Crew = ()
    """Providers named in the last reply."""


class Recovery:
    """Missing packets of one group."""

    def __init__(
        self,
        group: Address,
        context: Context,
        providers: Callable[[NodeId, int, Sequence[NodeId]], list[NodeId]],
        suspect: Callable[[NodeId, float], None],
    ) -> None:
        self._group = group
        self._context = context
        self._providers = providers
        """Function (origin, stream sequence number, last senders) → nodes that may have the packet, parent first."""
        self._suspect = suspect
        self._missing: dict[NodeId, dict[int, _Missing]] = {}
        """By origin and stream sequence number."""
        self._vias: dict[NodeId, tuple[NodeId, ...]] = {}
        """By origin with missing packets: its last senders, the latest first."""
        self._late_s: dict[NodeId, float] = {}
        """By origin: learnt delay of packets that overtake each other."""
        self._silent: TtlMap[NodeId] = TtlMap()
        """Nodes that have not answered; they are skipped."""
        self._parent_backoff: dict[tuple[NodeId, NodeId], tuple[float, int]] = {}
        """By origin and parent that lacks packets too: time of its next request, and the number of its retries."""
        self._recovered: dict[tuple[NodeId, int], float] = {}
        """By origin and number: time at which the packet arrived after all."""
        self.due: float | None = None

    @property
    def _repairs(self) -> bool:
        return self._context.options.repair == "nack"

    # ---- missing packets

    def handle_gap(self, origin: NodeId, numbers: Collection[int], via: NodeId | None, now: float) -> None:
        """The missing packets of an origin's stream are now these; `via` has sent the last packet."""
        present = self._missing.get(origin, {})
        self._learn_delay(origin, present, numbers, now)
        for number in present:
            if number not in numbers:
                if len(self._recovered) >= RECOVERED_MAX:
                    del self._recovered[next(iter(self._recovered))]
                self._recovered[origin, number] = now
        if numbers:
            if via is not None:
                others = (node for node in self._vias.get(origin, ()) if node != via)
                self._vias[origin] = (via, *others)[:VIAS_MAX]
            due = now + self._patience_s(origin, via)
            self._missing[origin] = {number: present.get(number) or _Missing(due, now) for number in numbers}
        else:
            self._missing.pop(origin, None)
            self._vias.pop(origin, None)
        self._set_due()

    def _learn_delay(self, origin: NodeId, present: dict[int, _Missing], numbers: Collection[int], now: float) -> None:
        """Packets that have arrived without a request were only late."""
        oldest = min(numbers, default=0)
        for number, each in present.items():
            if number not in numbers and number >= oldest and (not each.tries or now < each.answer_at):
                old_s = self._late_s.get(origin, 0.0)
                step_s = LATE_STEP_S * (LATE_SHARE if now - each.since > old_s else LATE_SHARE - 1)
                self._late_s[origin] = min(max(0.0, old_s + step_s), LATE_MAX_S)

    def _patience_s(self, origin: NodeId, peer: NodeId | None) -> float:
        """Return the missing-packet timer."""
        rtt_s = self._context.rtt(peer) if peer else 0.0
        return max(2 * rtt_s, self._late_s.get(origin, 0.0), self._context.options.nack_floor_s)

    # ---- requests

    def handle_timeout(self, now: float) -> None:
        """Send the requests that are due."""
        if self.due is None or now < self.due:
            return
        requests: dict[tuple[NodeId, NodeId, NodeId], list[int]] = {}
        for origin, missing in self._missing.items():
            for number, each in missing.items():
                if each.due <= now:
                    self._choose_provider(origin, number, each, requests, now)
        for (peer, origin, suspect), numbers in requests.items():
            named = tuple(sorted(numbers)[-NUMBERS_MAX:]) if self._repairs else ()
            self._context.send(peer, Nack(self._group, origin, named, suspect), (suspect,))
        self._set_due()

    def _choose_provider(
        self,
        origin: NodeId,
        number: int,
        each: _Missing,
        requests: dict[tuple[NodeId, NodeId, NodeId], list[int]],
        now: float,
    ) -> None:
        """Add one packet to the requests, by (provider, origin, suspect), or move it to a later time."""
        if each.requested_from:
            self._silent.add(each.requested_from, now + SILENT_S, now)
            self._suspect(each.requested_from, now)
            each.tried.add(each.requested_from)
            each.requested_from = 0
        parent, *others = self._providers(origin, number, self._vias.get(origin, ())) or [0]
        is_silent = self._silent.has(parent, now)
        candidates = [parent, *each.referred, *others]
        usable = [node for node in candidates if node not in each.tried and not self._silent.has(node, now)]
        usable = [node for node in usable if node not in (0, self._context.own)]
        backoff_until, retries = self._parent_backoff.get((origin, parent), (now, 0))
        if backoff_until > now and each.parent_retries < retries and usable[:1] == [parent]:
            each.parent_retries, each.due = retries, backoff_until
            return
        tries_max = self._context.options.nack_tries if self._repairs else 1
        each.tries += 1
        if each.tries > tries_max:
            each.due = math.inf
        elif not usable:
            each.tried.clear()
            each.due = now + self._patience_s(origin, parent) * (1 + each.tries)
        else:
            provider = usable[0]
            each.requested_from, each.is_parent = provider, provider == parent
            each.due = now + self._answer_s(provider)
            each.answer_at = now + 0.8 * self._context.rtt(provider)
            requests.setdefault((provider, origin, parent if is_silent else 0), []).append(number)

    def _answer_s(self, peer: NodeId) -> float:
        """Return the time for which a reply is awaited."""
        return max(2 * self._context.rtt(peer), self._context.options.nack_floor_s)

    # ---- replies

    def handle_nack_reply(self, peer: NodeId, reply: NackReply, now: float) -> None:
        """A provider is alive, and has listed the requested packets that it lacks too."""
        self._silent.discard(peer)
        lacking = set(reply.numbers)
        for number, each in self._missing.get(reply.origin, {}).items():
            if each.requested_from != peer:
                continue
            each.requested_from = 0
            if number not in lacking:
                each.tried.add(peer)
                each.due = now + self._answer_s(peer) / 2
            elif each.is_parent and not reply.is_circular and each.parent_retries < PARENT_RETRIES_MAX:
                each.parent_retries += 1
                each.due = now + self._patience_s(reply.origin, peer) * 2**each.parent_retries
                self._parent_backoff = {key: held for key, held in self._parent_backoff.items() if held[0] > now}
                self._parent_backoff[reply.origin, peer] = each.due, each.parent_retries
            else:
                each.tried.add(peer)
                each.referred = reply.providers
                each.due = now
        self._set_due()

    def handle_nack(self, peer: NodeId, nack: Nack, now: float) -> None:
        """A peer requests packets, which the data plane may have; without any, it probes whether this node is alive."""
        if nack.suspect not in (0, self._context.own):
            self._suspect(nack.suspect, now)
        missing = self._missing.get(nack.origin, {})
        lacking = tuple(number for number in nack.numbers if number in missing)
        since = now - self._context.rtt(peer)
        resent = tuple(
            number
            for number in nack.numbers
            if number not in missing and self._recovered.get((nack.origin, number), since) <= since
        )
        if resent and self._repairs:
            self._context.outputs.append(Resend(peer, self._group, nack.origin, resent))
        found = self._providers(nack.origin, lacking[-1], self._vias.get(nack.origin, ())) if lacking else []
        named = tuple(node for node in (*found[1:], *found[:1]) if node not in (0, peer))[: limits.STRIPES_MAX]
        is_circular = found[:1] == [peer]
        self._context.send(peer, NackReply(self._group, nack.origin, lacking, named, is_circular=is_circular), named)

    def _set_due(self) -> None:
        due = min((each.due for missing in self._missing.values() for each in missing.values()), default=None)
        self.due = None if due == math.inf else due
