"""`pipeline trace --membership`: the events of a running node on stdout, a line each, until Ctrl-C.

It asks again and again, ten times a second: the node keeps the events between two questions, and ceases to when
nobody asks any more.  What the events mean is not known here.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from pipeline.client import Client, not_running, running_pid

ASK_INTERVAL_S = 0.1
"""As soon as an eye sees it, and a thousandth of a core."""

NAME_WIDTH = 24
"""Columns of a group and of a host: most addresses of both families, longer ones move their own line only."""


def follow(name: str, *, seconds: float | None, as_json: bool) -> None:
    """Print what happens from now on; Ctrl-C is the usual end, NotRunningError that of the instance."""
    if running_pid(name) is None:
        raise not_running(name)
    client = Client(name)
    deadline = None if seconds is None else time.monotonic() + seconds
    after = ""
    try:
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                answer = client.ask("trace", "membership", arguments={"after": after})
                after = str(answer["after"])
                _print(answer, as_json=as_json)
                left = ASK_INTERVAL_S if deadline is None else min(ASK_INTERVAL_S, deadline - time.monotonic())
                if left <= 0:
                    return
                time.sleep(left)
    finally:
        client.close()


def _print(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if answer["lost"]:
        sys.stderr.write(f"pipeline: {answer['lost']} events lost: more than this trace can keep\n")
    for event in answer["events"]:
        text = json.dumps({"schema": 1, "trace": event}, ensure_ascii=False) if as_json else _line(event)
        sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _line(event: Mapping[str, Any]) -> str:
    """One event: 12:00:00.123, the group, the host (or "-"), the rule."""
    seconds, milliseconds = divmod(int(event["time_s"] * 1000), 1000)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{milliseconds:03}"
    group, host = (str(event[key] or "-").ljust(NAME_WIDTH) for key in ("group", "host"))
    return f"{clock}  {group}  {host}  {event['rule']}"
