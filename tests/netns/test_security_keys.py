"""Change of keys in a running network: sender-key rotation by time and by count, network-key rollover by command."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.keys.file import write_network_key
from pipeline.lab.instance import Instance, launch, program, wait_linked
from pipeline.lab.netns import Lab
from pipeline.lab.programs import wait_until
from tests.netns.network import Network, drops, fresh_group, wait_route, worker_pid
from tests.netns.sockets import Sockets, read_packets
from tests.netns.traffic import Receiver, Sender

UDP_PAYLOAD = 14 + 20 + 8
MakeNetwork = Callable[..., Network]


def security_flags(directory: Path, text: str) -> Sequence[str]:
    """Write a configuration file with this text in [security]; return the flags of `launch` for it."""
    path = directory / "keys.toml"
    path.write_text(f"[security]\n{text}\n")
    return ("--config", str(path))


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "workers"), [("rotate_interval_s = 1.0", 8), ("rotate_packets = 2000", 4)])
def test_sender_key_rotation_loses_nothing(
    make_network: MakeNetwork, tmp_path: Path, rule: str, workers: int, measured: Callable[..., None]
) -> None:
    """Goal: sender keys rotate under load without a lost, duplicate or refused datagram.
    Method: every node rotates as often as the overlap of two keys allows, during a stream of 8 s.  That is one whole
    rotation of 6.1 s and the switch of the next.  Epochs are compared, and drops are read at the end."""
    network = make_network(3, workers=workers, extra=security_flags(tmp_path, rule))
    source, *members = network.instances
    group = fresh_group()
    receivers = [Receiver(member.host, group) for member in members]
    wait_route(source, group, members)
    before = source.request("status")["key_epoch"]
    sent = Sender(source.host, group, mbit=20, seconds=8, flows=4).sent()
    for receiver in receivers:
        receiver.account().assert_perfect(sent)
    rotations = (source.request("status")["key_epoch"] - before) % 256
    measured(rotations=rotations, sent=sent)
    assert rotations >= 1
    for member in members:
        found = drops(member)
        assert not {"unknown_origin", "authentication", "replay", "no_key"} & found.keys(), found


@pytest.mark.slow
def test_sender_key_rotation_survives_restarts(
    make_network: MakeNetwork, sockets: Sockets, tmp_path: Path, measured: Callable[..., None]
) -> None:
    """Goal: when control or a stage is killed during rotation, no key is lost and no nonce is used twice.
    Method: both are killed in turn under load, with two lanes.  Receivers count no replay and no forgery, and no
    sequence number appears twice on the underlay, in any epoch.  All datagrams have the same origin, so no nonce
    repeats."""
    extra = security_flags(tmp_path, "rotate_interval_s = 1.0")
    network = make_network(2, workers=8, extra=extra, offloads=False)
    source, member = network.instances
    group = fresh_group()
    receiver = Receiver(member.host, group)
    wait_route(source, group, [member])
    sniffer = sockets.sniffer(network.lab.bridge, member.host.bridge_port)
    sender = Sender(source.host, group, mbit=5, seconds=8, flows=8)
    for role in ("control", "classify") * 3:
        time.sleep(1.1)
        os.kill(worker_pid(source, role), signal.SIGKILL)
        wait_until(lambda: source.request("status")["ready"], 3.0, "all workers are ready again")
    sent = sender.sent()
    counts = receiver.account().stream()
    found = drops(member)
    assert not {"authentication", "replay"} & found.keys(), found
    assert counts["duplicates"] == 0
    assert counts["unique"] > 0.95 * sent
    address = socket.inet_aton(source.host.underlay)
    frames = read_packets(sniffer, 0.5, lambda frame: frame[23] == 17 and frame[26:30] == address, 100_000)
    headers = [frame[UDP_PAYLOAD : UDP_PAYLOAD + 20] for frame in frames]
    numbers = [header[8:16] for header in headers]
    measured(datagrams=len(numbers), epochs=len({header[3] for header in headers}), spaces=len({n[0] for n in numbers}))
    assert len(numbers) > 0.9 * counts["unique"]
    assert len(set(numbers)) == len(numbers)
    assert len({header[4:8] for header in headers}) == 1


# ---------------------------------------------------------------- the network key


def pipeline(instance: Instance, *words: str) -> None:
    instance.host.run([program(), *words], timeout_s=15)


def launch_with_key_files(lab: Lab, directory: Path, settings: str) -> tuple[list[Instance], list[Path]]:
    """Launch an instance on each host, each with its own copy of the key file, as on different machines."""
    files = [directory / f"network{host.index}.key" for host in lab.hosts]
    write_network_key(files[0])
    for path in files[1:]:
        shutil.copy2(files[0], path)
    extra = security_flags(directory, settings)
    instances = [
        launch(host, key=path, peers=lab.hosts, extra=extra) for host, path in zip(lab.hosts, files, strict=True)
    ]
    for instance in instances:
        instance.wait_ready()
    wait_linked(instances)
    return instances, files


@pytest.mark.slow
def test_network_key_rollover_excludes_a_node(
    make_lab: Callable[..., Lab], tmp_path: Path, measured: Callable[..., None]
) -> None:
    """Goal: a running network moves to a new key without loss.  A node without the new key is excluded: it cannot
    read, its datagrams are refused, and the sender keys that it had are renewed.
    Method: three of four nodes get the new key file and reload, one after the other, during a stream to all.  After the
    grace period the fourth node has no link and receives nothing, and its own stream arrives nowhere."""
    instances, files = launch_with_key_files(make_lab(4), tmp_path, "key_grace_s = 3.0")
    *staying, excluded = instances
    group, other = fresh_group(), fresh_group()
    receivers = [Receiver(member.host, group) for member in staying[1:]]
    outside = Receiver(excluded.host, group)
    from_outside = Receiver(staying[1].host, other)
    wait_route(staying[0], group, [*staying[1:], excluded])
    wait_route(excluded, other, [staying[1]])
    epochs = [instance.request("status")["key_epoch"] for instance in staying]
    sender = Sender(staying[0].host, group, mbit=10, seconds=60)
    pipeline(staying[0], "keygen", "--rotate", str(files[0]))
    for instance, path in zip(staying, files, strict=False):
        if path != files[0]:
            shutil.copyfile(files[0], path)
        pipeline(instance, "reload", "--name", instance.name)
    began = time.monotonic()
    names = {instance.name for instance in staying}

    def is_excluded() -> bool:
        return all(
            {link["peer"] for link in instance.show("links") if link["state"] == "up"} == names - {instance.name}
            for instance in staying
        )

    wait_until(is_excluded, 15.0, "no node has a link to the excluded one")
    measured(excluded_after_s=time.monotonic() - began)
    wait_until(
        lambda: not any(link["state"] == "up" for link in excluded.show("links")), 6.0, "the excluded node has no link"
    )
    late = Sender(excluded.host, other, mbit=1, seconds=1)
    late.sent()
    assert from_outside.stop().stream()["received"] == 0

    def are_renewed_twice() -> bool:
        now = [each.request("status")["key_epoch"] for each in staying]
        return all((new - old) % 256 == 2 for new, old in zip(now, epochs, strict=True))

    # The first renewal is immediate, the second follows when the other nodes no longer accept the old network key.
    wait_until(are_renewed_twice, 20.0, "sender keys are renewed twice")
    sent = sender.stop()
    for receiver in receivers:
        receiver.account().assert_perfect(sent)
    assert outside.stop().stream()["received"] < sent * 0.9
    os.kill(worker_pid(staying[1], "control"), signal.SIGKILL)
    wait_until(lambda: staying[1].request("status")["ready"], 3.0, "control is restarted")
    wait_until(is_excluded, 5.0, "the restarted control accepts only the new key")
