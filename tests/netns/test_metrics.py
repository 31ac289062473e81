"""Prometheus metrics of a running instance."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from pipeline.lab.programs import wait_until
from tests.netns.network import Network, worker_pid


def test_metrics_are_served_and_survive_control(make_network: Callable[..., Network]) -> None:
    """Goal: `--metrics` serves figures of links, workers and drops, also after a restart of control.
    Method: scrape in the host's namespace, kill control, scrape again."""
    network = make_network(2, extra=["--metrics", "127.0.0.1:9477"])
    instance = network.instances[0]
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9477/metrics', timeout=3).read().decode())"

    def scrape() -> str:
        return instance.host.run(["python3", "-c", fetch], check=False).stdout

    text = scrape()
    assert f'mcast_link_up{{peer="{network.instances[1].name}"}} 1.0' in text
    assert 'mcast_drops_total{reason="replay"} 0.0' in text
    assert 'mcast_worker_up{lane="0",role="classify"} 1.0' in text
    os.kill(worker_pid(instance, "control"), signal.SIGKILL)
    wait_until(
        lambda: 'mcast_worker_restarts_total{lane="0",role="control"} 1.0' in scrape(), 5.0, "metrics are served again"
    )
