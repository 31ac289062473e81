"""Several moderate streams at once: CPU of the sending node, and loss.

Method: 7 programs on host 1 each send 11 Mbit/s in datagrams of 1316 bytes to a group of their own, and every receiver
has joined all groups. The figure is the CPU time of all processes of the sending node (schedstat) during the streams,
in percent of one core. For comparison: the first such overlay took a quarter of a 3 GHz CPU of 2006 for 80 Mbit/s.

    python perf/streams.py [--quick] [--streams 7] [--mbit 11] [--seconds 60] [--receivers 1] [--json]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from perf.contenders import Pipeline
from perf.measure import Load, background_share, group_addresses, settled
from perf.report import Goal, Result, arguments, goal_table, log_progress, run, table
from tests.netns.traffic import PAYLOAD, Receiver, Sender

GRACE_S = 30.0


def measure(network: Pipeline, streams: int, mbit: float, seconds: float) -> dict[str, Any]:
    """Run all streams at once, from start to end."""
    groups = group_addresses(streams)
    receivers = [
        Receiver(host, f"{groups[0]}+{streams}", streams=streams, interface=network.interface)
        for host in network.receivers
    ]
    sending_node, receiving_node = network.instances[0], network.instances[1]
    sending_cpu_s, receiving_cpu_s, began = sending_node.cpu_s(), receiving_node.cpu_s(), time.monotonic()
    senders = [
        Sender(network.sender, group, stream=number, mbit=mbit, seconds=seconds, interface=network.interface)
        for number, group in enumerate(groups, 1)
    ]
    reports = [sender.report(seconds + GRACE_S) for sender in senders]
    seconds_taken = time.monotonic() - began
    sending_cpu_s = sending_node.cpu_s() - sending_cpu_s
    receiving_cpu_s = receiving_node.cpu_s() - receiving_cpu_s
    accounts = [receiver.account() for receiver in receivers]
    rows = []
    for number, report in enumerate(reports, 1):
        counts = [account.stream(number) for account in accounts]
        rows.append(
            {
                "stream": number,
                "sent": report["sent"],
                "mbit": report["sent"] * PAYLOAD * 8 / report["seconds"] / 1e6,
                "lost": max(report["sent"] - count["unique"] for count in counts),
                "reordered": sum(count["reordered"] for count in counts),
            }
        )
    return {
        "streams": rows,
        "seconds": seconds_taken,
        "sender_percent": 100 * sending_cpu_s / seconds_taken,
        "receiver_percent": 100 * receiving_cpu_s / seconds_taken,
        "programs_percent": 100 * sum(report["cpu_s"] for report in reports) / seconds_taken,
        "p99_us": max(account.latency_us["p99"] for account in accounts),
    }


def result(found: dict[str, Any], *, streams: int, mbit: float, background: float) -> Result:
    lost = sum(row["lost"] for row in found["streams"])
    reached = [
        (Goal("sending node, % of a core", 3.0, 1.5, at_most=True), found["sender_percent"]),
        (Goal("datagrams lost at the worst receiver", 0, at_most=True), lost),
    ]
    goal_rows = [{"goal": goal.what, "value": value, "verdict": goal.verdict(value)} for goal, value in reached]
    report = Result("streams", {**found, "goals": goal_rows, "background_share": background})
    rows = [[str(row["stream"]), row["sent"], row["mbit"], row["lost"], row["reordered"]] for row in found["streams"]]
    title = f"{streams} streams of {mbit:g} Mbit/s for {found['seconds']:.0f} s"
    report.add(title, table(["stream", "sent", "Mbit/s", "lost", "reordered"], rows))
    cpu = [["sending node", found["sender_percent"]], ["one receiving node", found["receiver_percent"]]]
    cpu.append(["the sending programs", found["programs_percent"]])
    report.add("CPU", table(["processes", "% of a core"], cpu))
    report.add("To reach", goal_table(reached))
    report.add("Remarks", f"- other work before the measurement: {background:.1%} of all CPUs")
    return report


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__ or "", seconds=60.0)
    parser.add_argument("--streams", type=int, default=7)
    parser.add_argument("--mbit", type=float, default=11.0, help="payload rate of each stream")
    parser.add_argument("--receivers", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4, choices=(1, 2, 4, 8))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    seconds = min(options.seconds, 10.0) if options.quick else options.seconds
    background = background_share()
    load = Load(groups=options.streams)
    with Pipeline(options.receivers + 1, workers=options.workers) as network, settled(network, load):
        log_progress(f"{options.streams} streams for {seconds:.0f} s")
        found = measure(network, options.streams, options.mbit, seconds)
    result(found, streams=options.streams, mbit=options.mbit, background=background).publish(as_json=options.json)
    return 0


if __name__ == "__main__":
    run(main)
