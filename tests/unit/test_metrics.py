"""Goal: `--metrics` serves the values of `show` in the text format of Prometheus, and refuses malformed requests.
Method: the collector with values of the test; the HTTP response as bytes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from pipeline.control import metrics
from pipeline.control.nouns import Noun
from pipeline.errors import PipelineError
from pipeline.shm import counters


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry whose collector reads values of the test."""
    status = {"name": "a", "version": "1", "interface": "mcast0", "overlay": "mesh", "node_id": "1", "ready": True,
              "degraded": {"interface": "interface mcast0 is down"}}  # fmt: skip
    worker = {"role": "classify", "lane": 1, "state": "ready", "restarts": 4, "packets": 5}
    traffic = dict.fromkeys(("tx_bytes", "rx_bytes", "tx_datagrams", "rx_datagrams", "tx_errors"), 9)
    link = {"peer": 'b"\n', "state": "up", "rtt_ms": 1.5, "loss": 0.25, **traffic}
    group = {"group": "239.1.2.3", "local": True, "members": ["b", "c"]}
    drops = {reason: number for number, reason in enumerate([*counters.DROPS, "tun_queue"])}
    counts = {"drops": drops, "membership": {"reports": 3}, "refused": {"parts": 4}, "sources": 2}
    values: dict[str, Any] = {
        "status": {**status, "uptime_s": 1.0},
        Noun.COUNTERS: {**dict.fromkeys(counters.EVENTS, 7), **counts},
        Noun.WORKERS: [worker],
        Noun.LINKS: [link, {**link, "peer": None}],
        Noun.GROUPS: [group, {**group, "group": "239.1.2.4", "local": False}],
    }
    found = CollectorRegistry()
    found.register(metrics.Collector(values.__getitem__))
    return found


def test_scrape_has_counters_workers_links_and_groups(registry: CollectorRegistry) -> None:
    """Goal: Prometheus' own parser reads the values.  Method: one scrape, parsed."""
    head, _, body = metrics.respond(registry, b"GET /metrics HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    found = {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert found["mcast_sealed_total", ()] == 7
    assert found["mcast_drops_total", ("replay",)] == counters.DROPS.index("replay")
    assert found["mcast_drops_total", ("tun_queue",)] == len(counters.DROPS)
    assert found["mcast_refused_total", ("parts",)] == 4
    assert found["mcast_worker_restarts_total", ("1", "classify")] == 4
    assert found["mcast_link_rtt_seconds", ('b"\n',)] == 0.0015
    assert found["mcast_link_tx_bytes_total", ('b"\n',)] == 9
    assert found["mcast_groups", ("true",)] == found["mcast_groups", ("false",)] == 1
    assert found["mcast_group_members", ("239.1.2.3",)] == 2
    assert found["mcast_degraded", ("interface",)] == 1
    assert found["mcast_degraded", ("shared_memory",)] == 0
    assert all(re.match(r"mcast_[a-z_]+$", name) for name, _ in found)


HEADS = (b"", b"\r\n\r\n", b"GET\r\n", b"POST /metrics HTTP/1.1\r\n", b"GET /etc HTTP/1.1\r\n", b"\xff" * 99)


@pytest.mark.parametrize("head", HEADS)
def test_other_requests_are_refused(registry: CollectorRegistry, head: bytes) -> None:
    """Goal: other requests get an error and no metrics.  Method: malformed request lines, other methods and paths."""
    assert metrics.respond(registry, head).startswith(b"HTTP/1.1 404 ")


NAMES = frozenset({"localhost", "n1"})


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            (host, 200)
            for host in ("127.0.0.1", "127.0.0.1:9477", "[::1]:9477", "[::1]", "192.0.2.1", "LOCALHOST:9477")
        ),
        *((host, 200) for host in ("localhost", "n1", "N1:9477")),
        *((host, 403) for host in ("attacker.example", "attacker.example:9477", "127.0.0.1.attacker.example", "")),
        *((host, 403) for host in ("localhost.attacker.example", "x\r\nHost: localhost", "localhost\r\nhost:x", "[x]")),
    ],
)
def test_request_for_the_name_of_a_web_page_is_refused(registry: CollectorRegistry, host: str, status: int) -> None:
    """Goal: a web page whose name resolves to 127.0.0.1 reads no metrics through a browser of this host.
    Method: the names that Host may have on a loopback address, others, and two of them in one request."""
    head = f"GET /metrics HTTP/1.1\r\nAccept: */*\r\nHost: {host}\r\n\r\n".encode()
    assert metrics.respond(registry, head, names=NAMES).startswith(f"HTTP/1.1 {status} ".encode())
    assert metrics.respond(registry, head).startswith(b"HTTP/1.1 200 ")


def test_head_has_no_body(registry: CollectorRegistry) -> None:
    """Goal: the response to HEAD has no body.  Method: one request."""
    assert metrics.respond(registry, b"HEAD /metrics HTTP/1.1\r\n").endswith(b"\r\n\r\n")


def test_port_in_use_is_one_line() -> None:
    """Goal: a port in use is an error that names the flag.  Method: two endpoints on one port."""
    first = metrics.Endpoint("127.0.0.1:19477", name="n1")
    with pytest.raises(PipelineError, match=r"--metrics 127\.0\.0\.1:19477: TCP port 19477 is in use"):
        metrics.Endpoint("127.0.0.1:19477", name="n1")
    first.close()
