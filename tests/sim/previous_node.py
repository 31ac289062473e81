"""Program: an OverlayNode of whichever version PYTHONPATH names, driven by pickled calls on its standard input.

Each reply is (result, messages to send, peers whose link went down, time of the next timeout).
"""

from __future__ import annotations

import pickle
import random
import sys
from typing import Any

from pipeline.address import ANY_SOURCE
from pipeline.overlay.events import PeerChanged
from pipeline.overlay.node import NodeConfig, OverlayNode


def call(node: OverlayNode, name: str, arguments: tuple[Any, ...]) -> Any:
    match name:
        case "links":
            return [(link.name, link.endpoint, link.is_up) for link in node.links()]
        case "join":
            group, now = arguments
            return node.join(group, ANY_SOURCE, now)
        case "message":
            hint, data, now, _ = arguments  # it does not read the mark of a connection
            return node.handle_message(hint, data, now)
        case _:
            return getattr(node, name)(*arguments)


def main() -> None:
    options, seed, now = pickle.load(sys.stdin.buffer)
    node = OverlayNode(NodeConfig(**options), random=random.Random(seed).random, now=now)
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        result = call(node, name, arguments)
        downs = []
        while (event := node.poll_event()) is not None:
            if isinstance(event, PeerChanged) and not event.is_up:
                downs.append(event.record.name)
        sent = []
        while (transmit := node.poll_transmit()) is not None:
            sent.append(transmit)
        pickle.dump((result, sent, downs, node.poll_timeout()), sys.stdout.buffer)
        sys.stdout.buffer.flush()


main()
