"""Fixtures for tests in network namespaces: a network that most tests share, and networks for single tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.lab.netns import Lab
from tests.netns.network import Network
from tests.netns.sockets import Sockets

SHARED_HOSTS = 4
HERE = Path(__file__).parent
_open_networks: list[Network] = []
"""Networks that run now; a failed test reports their logs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this directory as one that needs root and namespaces."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.netns)


class _SharedNetwork:
    """The network that tests share. It is rebuilt when a test has left it unhealthy."""

    def __init__(self) -> None:
        self.network: Network | None = None

    def get(self) -> Network:
        if self.network is not None and not self.network.is_healthy():
            self.close()
        if self.network is None:
            self.network = _open(Network(SHARED_HOSTS))
        return self.network

    def close(self) -> None:
        if self.network is not None:
            _close(self.network)
            self.network = None


def _open(network: Network) -> Network:
    network.__enter__()
    _open_networks.append(network)
    return network


def _close(network: Network) -> None:
    network.close()
    _open_networks.remove(network)


@pytest.fixture(scope="session")
def _shared_network() -> Iterator[_SharedNetwork]:
    holder = _SharedNetwork()
    yield holder
    holder.close()


@pytest.fixture
def network(_shared_network: _SharedNetwork) -> Iterator[Network]:
    """Four linked hosts, sealed, with 4 workers each. A test must leave the instances running."""
    shared = _shared_network.get()
    yield shared
    shared.tidy()


@pytest.fixture
def make_network() -> Iterator[Callable[..., Network]]:
    """Factory: `make_network(hosts, **options)` starts a network for this test only."""
    networks: list[Network] = []

    def make(hosts: int, **options: Any) -> Network:
        networks.append(_open(Network(hosts, **options)))
        return networks[-1]

    yield make
    for each in networks:
        _close(each)


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """Factory: `make_lab(hosts, **options)` makes a laboratory in which no program runs yet."""
    with ExitStack() as stack:
        yield lambda hosts, **options: stack.enter_context(Lab(hosts, **options))


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Sockets in hosts, closed at the end of the test."""
    opened = Sockets()
    yield opened
    opened.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the logs of all running instances to the report of a failed test."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for each in _open_networks:
            report.sections.append((f"instances of {each.lab.tag}", each.logs()))
