"""Comparison of nemo on twelve real daemons with the same run in the simulator.

Method: one host sends 1.5 Mbit/s in datagrams of 1316 bytes to a group that all hosts have joined.  Every link loses
0 or 1 % of the datagrams; repair is on or off.  The daemons run with `--workers 1` in namespaces on one bridge, without
offloads; packets are measured after their trees have settled.  The simulator has the same number of nodes, the same
stream and loss, and a round-trip time of 0.2 ms between any two nodes.  The daemons' counters give copies, duplicates
and repairs; control is all other traffic on the bridge, less the probes of the stages.

    python perf/nemo_real.py [--nodes 12] [--seconds 15] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.lab.instance import Instance
from pipeline.sim.experiment import Scenario, run
from tests.netns.network import Network, fresh_group
from tests.netns.traffic import PAYLOAD, PORT, Receiver, Sender
from tests.netns.trees import wait_settled

MBIT = 1.5
RATE = MBIT * 1e6 / 8 / PAYLOAD
SETTLE_S = 60.0
RTT_MS = 0.2
UNDERLAY_BYTES = 28
"""IPv4 and UDP header before each datagram."""
VARIANTS = [(loss, repair) for loss in (0.0, 0.01) for repair in ("nack", "none")]

Figures = dict[str, float]


def simulated(nodes: int, loss: float, repair: str) -> Figures:
    """Run the simulator, and return its figures."""
    found = run(
        Scenario(
            engine="nemo",
            options={"repair": repair},
            nodes=nodes,
            topology="matrix",
            matrix=[[0.0 if one == other else RTT_MS for other in range(nodes)] for one in range(nodes)],
            rate_pps=RATE,
            packet_bytes=PAYLOAD,
            loss=loss,
            join_s=5,
            warmup_s=60,
            duration_s=120,
        )
    )
    receivers = nodes - 1
    return {
        "delivered_percent": 100 * found["delivery_ratio"],
        "duplicates_per_packet": found["duplicates_per_packet"],
        "repair_percent": 100 * found["resent_per_packet"] / receivers,
        "degree_mean": found["out_degree"]["mean"],
        "degree_max": found["out_degree"]["max"],
        "latency_p50_ms": found["latency_ms"]["p50"],
        "latency_p99_ms": found["latency_ms"]["p99"],
        "control_bytes_per_node_s": found["control_bytes_per_node_s"],
    }


def totals(instances: list[Instance]) -> dict[str, list[int]]:
    """Return some counters, each with its value at every node."""
    counters = [each.show("counters") for each in instances]
    names = ("overlay_tx_datagrams", "overlay_tx_bytes", "resent")
    found = {name: [each[name] for each in counters] for name in names}
    return found | {"replay": [each["drops"]["replay"] for each in counters]}


def link_bytes(instances: list[Instance]) -> int:
    """Return the bytes of data and probes that all links have sent."""
    return sum(link["tx_bytes"] for each in instances for link in each.show("links"))


def control_bytes_per_node_s(network: Network, seconds: float) -> float:
    """Return the traffic on the bridge while no program sends, less the probes of the stages."""
    before, sent_before = sum(network.lab.pair_bytes().values()), link_bytes(network.instances)
    time.sleep(seconds)
    crossed = sum(network.lab.pair_bytes().values()) - before
    bytes_sent = link_bytes(network.instances) - sent_before
    probe_count = (
        2 * len(network.hosts) * (len(network.hosts) - 1) * seconds
    )  # one probe and one echo per link and second
    return (crossed - bytes_sent - probe_count * UNDERLAY_BYTES) / seconds / len(network.hosts)


def measured(nodes: int, loss: float, repair: str, seconds: float) -> Figures:
    """Run the daemons, and return their figures."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "nemo.toml")
        config.write_text(f'[overlay.nemo]\nrepair = "{repair}"\n')
        extra = ("--overlay", "nemo", "--config", str(config))
        with Network(nodes, workers=1, extra=extra, offloads=False) as network:
            return _measured(network, loss, seconds)


def _measured(network: Network, loss: float, seconds: float) -> Figures:
    group = fresh_group()
    source, *members = network.hosts
    for host in network.hosts:
        Receiver(host, group, port=PORT + 1)
    wait_settled(network.instances, network.instances[0], [group], SETTLE_S)
    control = control_bytes_per_node_s(network, 5.0)
    receivers = [Receiver(host, group) for host in members]
    for host in network.hosts:
        network.lab.loss(host, 100 * loss)
    before = totals(network.instances)
    sent = Sender(source, group, mbit=MBIT, seconds=seconds).sent()
    time.sleep(0.5)
    after = totals(network.instances)
    network.lab.heal()
    increase = {name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in before}
    accounts = [receiver.stop() for receiver in receivers]
    unique = sum(account.stream()["unique"] for account in accounts)
    copies = [datagrams / sent for datagrams in increase["overlay_tx_datagrams"]]
    return {
        "delivered_percent": 100 * unique / sent / len(members),
        "duplicates_per_packet": sum(increase["replay"]) / sent,
        "repair_percent": 100 * sum(increase["resent"]) / sent / len(members),
        "degree_mean": sum(copies) / len(copies),
        "degree_max": max(copies),
        "latency_p50_ms": sorted(account.latency_us["p50"] for account in accounts)[len(accounts) // 2] / 1e3,
        "latency_p99_ms": max(account.latency_us["p99"] for account in accounts) / 1e3,
        "control_bytes_per_node_s": control,
    }


def main() -> None:
    """Print the table, one row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for loss, repair in VARIANTS:
        real = measured(options.nodes, loss, repair, options.seconds)
        predicted = simulated(options.nodes, loss, repair)
        rows.append({"loss_percent": 100 * loss, "repair": repair, "daemons": real, "simulator": predicted})
    if options.json:
        print(json.dumps({"schema": 1, "nodes": options.nodes, "rows": rows}))
        return
    print("| loss, repair | figure | daemons | simulator |")
    print("| ------------ | ------ | ------: | --------: |")
    for row in rows:
        for name, value in row["daemons"].items():
            variant = f"{row['loss_percent']:g} %, {row['repair']}"
            print(f"| {variant} | {name} | {value:.4g} | {row['simulator'][name]:.4g} |")


if __name__ == "__main__":
    main()
