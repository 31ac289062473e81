"""Prometheus metrics of a running instance, also beside connections that stay silent or read nothing."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

import pytest

from pipeline.lab.programs import wait_until
from tests.netns.network import Network, worker_pid
from tests.netns.sockets import Sockets

PORT = 9477
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n"


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


def scrape(sockets: Sockets, network: Network, address: str, host: bytes) -> bytes:
    """Return the response to one request of the first host to itself."""
    client = sockets.open(network.hosts[0], socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(2.0)
    client.connect((address, PORT))
    client.sendall(SCRAPE % host)
    response = b""
    while data := client.recv(65536):
        response += data
    client.close()
    return response


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0"])
def test_web_page_of_another_name_reads_no_metrics(
    make_network: Callable[..., Network], sockets: Sockets, listen: str
) -> None:
    """Goal: a web page whose name resolves to 127.0.0.1 reads nothing through a browser, on any listen address.
    Method: requests to 127.0.0.1 with several values of Host; other hosts may use any name."""
    network = make_network(1, extra=["--metrics", f"{listen}:{PORT}"])
    assert scrape(sockets, network, "127.0.0.1", b"attacker.example").startswith(b"HTTP/1.1 403 ")
    for host in (b"127.0.0.1:9477", b"localhost:9477", network.instances[0].name.encode()):
        assert scrape(sockets, network, "127.0.0.1", host).startswith(b"HTTP/1.1 200 ")
    if listen == "0.0.0.0":
        assert scrape(sockets, network, network.hosts[0].underlay, b"n1.example").startswith(b"HTTP/1.1 200 ")


def test_silent_connections_block_no_scrape(make_network: Callable[..., Network], sockets: Sockets) -> None:
    """Goal: connections that send nothing, or read nothing, keep no scraper out, and end soon.
    Method: 200 silent connections and 50 that request the metrics and read nothing; each of ten scrapes succeeds, and
    6 s later control has no connection to the port."""
    network = make_network(1, extra=["--metrics", f"127.0.0.1:{PORT}"])
    control = worker_pid(network.instances[0], "control")
    descriptors = len(os.listdir(f"/proc/{control}/fd"))
    for number in range(250):
        client = sockets.open(network.hosts[0], socket.AF_INET, socket.SOCK_STREAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", PORT))
        if number % 5 == 0:
            client.sendall(SCRAPE % b"127.0.0.1")
    for _ in range(10):
        assert scrape(sockets, network, "127.0.0.1", b"127.0.0.1").startswith(b"HTTP/1.1 200 ")
    assert len(os.listdir(f"/proc/{control}/fd")) <= descriptors + 40
    time.sleep(6)
    assert len(os.listdir(f"/proc/{control}/fd")) <= descriptors + 2
