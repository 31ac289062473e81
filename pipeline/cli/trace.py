"""`pipeline trace --membership`: the events of a running node on stdout, one line each, until Ctrl-C.

The client requests new events ten times a second.  The node records events only while a client requests them.  This
module does not know the meaning of the events.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from pipeline.client import Client, not_running, running_pid
from pipeline.terminal import printable

REQUEST_INTERVAL_S = 0.1
"""Short enough for a reader not to notice the delay; costs a thousandth of a core."""

NAME_WIDTH = 24
"""Width of the columns of group and host: enough for most addresses; a longer one shifts the rest of its line."""


def follow(name: str, *, seconds: float | None, as_json: bool) -> None:
    """Print events from now on until Ctrl-C or the end of the time; NotRunningError if the instance ends."""
    if running_pid(name) is None:
        raise not_running(name)
    client = Client(name)
    deadline = None if seconds is None else time.monotonic() + seconds
    after = ""
    try:
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                answer = client.request("trace", "membership", arguments={"after": after})
                after = str(answer["after"])
                _print(answer, as_json=as_json)
                left = REQUEST_INTERVAL_S if deadline is None else min(REQUEST_INTERVAL_S, deadline - time.monotonic())
                if left <= 0:
                    return
                time.sleep(left)
    finally:
        client.close()


def _print(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if answer["lost"]:
        sys.stderr.write(f"pipeline: {answer['lost']} events lost: more than a trace can hold\n")
    for event in answer["events"]:
        text = json.dumps({"schema": 1, "trace": event}, ensure_ascii=False) if as_json else _line(event)
        sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _line(event: Mapping[str, Any]) -> str:
    """Return the line of an event: 12:00:00.123, the group, the host (or "-"), the rule."""
    seconds, milliseconds = divmod(int(event["time_s"] * 1000), 1000)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{milliseconds:03}"
    group, host = (str(event[key] or "-").ljust(NAME_WIDTH) for key in ("group", "host"))
    return printable(f"{clock}  {group}  {host}  {event['rule']}")
