"""Goal: packets pass a path with a smaller MTU than the interface, and an unusable address is refused in one line.
Method: read the options of the sockets; tests/netns/test_path_mtu.py has such a path."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

import pytest

from pipeline.errors import PipelineError
from pipeline.io import sockets


def open_metrics_listener(listen: str) -> object:
    return sockets.open_listener("--metrics", listen, backlog=1)


def open_two_data_sockets(listen: str) -> object:
    return sockets.open_data_sockets(listen, 2)


@pytest.mark.parametrize("listen", ["127.0.0.1:19478", "[::]:19478"])
@pytest.mark.parametrize("lanes", [1, 2])
def test_data_sockets_never_set_dont_fragment(listen: str, lanes: int) -> None:
    """Goal: routers may fragment IPv4 datagrams, also those of an IPv6 socket.  Method: read the options back."""
    for sock in sockets.open_data_sockets(listen, lanes):
        with sock:
            assert sock.getsockopt(socket.IPPROTO_IP, sockets.IP_MTU_DISCOVER) == sockets.PMTUDISC_DONT
            if sock.family == socket.AF_INET6:
                assert sock.getsockopt(socket.IPPROTO_IPV6, sockets.IPV6_MTU_DISCOVER) == sockets.PMTUDISC_DONT


def test_absent_interface_of_a_scope_id_is_named() -> None:
    """Goal: the error is one line with the interface.  Method: an interface that no host has."""
    with pytest.raises(PipelineError, match=r"--metrics \[fe80::1%none0\]:9100: no interface none0 on this host"):
        sockets.open_listener("--metrics", "[fe80::1%none0]:9100", backlog=1)


@pytest.mark.parametrize("open_sockets", [open_metrics_listener, open_two_data_sockets])
def test_kernel_without_ipv6_is_explained(
    monkeypatch: pytest.MonkeyPatch, open_sockets: Callable[[str], object]
) -> None:
    """Goal: one line with the remedy.  Method: the error of a kernel without IPv6 at the creation of a socket."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(PipelineError, match=r"\[::\]:19480: the kernel has no IPv6: give an IPv4 address"):
        open_sockets("[::]:19480")


def test_link_local_address_without_interface_is_explained() -> None:
    """Goal: one line with the remedy.  Method: a link-local address without scope id."""
    with pytest.raises(PipelineError, match=r"--metrics \[fe80::1\]:9100: fe80::1 is valid on one link only"):
        sockets.open_listener("--metrics", "[fe80::1]:9100", backlog=1)


@pytest.mark.parametrize(("listen", "target"), [("127.0.0.1:19479", "127.0.0.1"), ("[::]:19479", "::1")])
def test_both_ends_of_a_connection_use_small_segments(listen: str, target: str) -> None:
    """Goal: the listening socket limits the segments of both ends.  Method: connect, read TCP_MAXSEG at both."""
    with sockets.open_listener("--listen", listen, backlog=1) as listener:
        listener.setblocking(True)
        with socket.create_connection((target, 19479)) as caller, listener.accept()[0] as accepted:
            for end in (caller, accepted):
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= sockets.SEGMENT_BYTES_MAX
