"""Fixtures of the tests in namespaces: one network that most of them share, and networks of their own."""

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
_open: list[Network] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and namespaces; what shares the network runs in one go, so that it is built once."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.netns)


class _Shared:
    """The network that tests share; built anew if one has left it broken."""

    def __init__(self) -> None:
        self.network: Network | None = None

    def get(self) -> Network:
        if self.network is not None and not self.network.is_healthy():
            self.close()
        if self.network is None:
            self.network = _opened(Network(SHARED_HOSTS))
        return self.network

    def close(self) -> None:
        if self.network is not None:
            _closed(self.network)
            self.network = None


def _opened(network: Network) -> Network:
    network.__enter__()
    _open.append(network)
    return network


def _closed(network: Network) -> None:
    network.close()
    _open.remove(network)


@pytest.fixture(scope="session")
def _shared() -> Iterator[_Shared]:
    holder = _Shared()
    yield holder
    holder.close()


@pytest.fixture
def network(_shared: _Shared) -> Iterator[Network]:
    """Four hosts, sealed, 4 workers each, linked.  A test leaves its instances running."""
    shared = _shared.get()
    yield shared
    shared.tidy()


@pytest.fixture
def make_network() -> Iterator[Callable[..., Network]]:
    """make_network(hosts, **options): a network of the test's own."""
    mine: list[Network] = []

    def make(hosts: int, **options: Any) -> Network:
        mine.append(_opened(Network(hosts, **options)))
        return mine[-1]

    yield make
    for each in mine:
        _closed(each)


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """make_lab(hosts, **options): a laboratory in which nothing runs yet."""
    with ExitStack() as stack:
        yield lambda hosts, **options: stack.enter_context(Lab(hosts, **options))


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    opened = Sockets()
    yield opened
    opened.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows the logs of the instances that were running."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for each in _open:
            report.sections.append((f"instances of {each.lab.tag}", each.logs()))
