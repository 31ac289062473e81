"""A network with an authority: members are the nodes that it has signed, until it revokes them.

Method: real daemons with state directories of their own, whose certificates the command line signs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import NodeSection
from pipeline.io import identity_file
from pipeline.io.credentials import public_key_text
from pipeline.keys.identity import Identity
from pipeline.lab.instance import Instance, launch_command, network_key, program, wait_linked
from pipeline.lab.netns import Host, Lab
from pipeline.lab.programs import require, run_program, wait_until
from tests.netns.network import fresh_group
from tests.netns.traffic import Receiver, Sender

MakeLab = Callable[..., Lab]
Measured = Callable[..., None]
REVOKED_S = 5.0
REPAIRED_LOSS_MAX = 0.005


class Authority:
    """A signing key in the directory of a laboratory, and the state directories of the nodes."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.run("init", str(lab.dir))

    def run(self, *args: str) -> str:
        """Run `pipeline authority` in the directory of the key."""
        done = run_program([require("env"), "-C", str(self.lab.dir), program(), "authority", *args], timeout_s=10)
        return str(done.stdout)

    def state_of(self, name: str) -> Path:
        """Return the state directory of a node."""
        path = self.lab.dir / f"state-{name}"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def sign(self, host: Host, *options: str) -> None:
        """Sign a certificate of a host's node, whose identity is made if there is none."""
        state = self.state_of(host.name)
        seed, _ = identity_file.load_or_make(NodeSection(name=host.name, identity=str(state / "identity")))
        key = self.lab.dir / f"{host.name}.pub"
        key.write_text(public_key_text("node", Identity(seed).public_key))
        addresses = ("--address", f"10.77.0.{host.index}/16", "--address", f"fd77::{host.index:x}/64")
        out = str(state / "certificate")
        self.run("sign", str(key), "--name", host.name, *addresses, "--replace", "--out", out, *options)

    def launch(self, host: Host, peers: Sequence[Host], *, key: Path | None, **options: Any) -> Instance:
        """Launch a node of the network."""
        command = launch_command(host, key=key, peers=peers, **options)
        setting = f"MCAST_PIPELINE_SECURITY_AUTHORITY={self.lab.dir / 'authority.pub'}"
        return Instance(host, [require("env"), setting, f"STATE_DIRECTORY={self.state_of(host.name)}", *command])

    def reload(self, node: Instance) -> None:
        """Run `pipeline reload` for a node."""
        run_program([program(), "reload", "--name", node.name], timeout_s=10)


def links_up(node: Instance) -> set[str]:
    """Return the names of the peers whose links are up."""
    return {link["peer"] for link in node.show("links") if link["state"] == "up"}


@pytest.mark.parametrize(("is_sealed", "engine"), [(True, "mesh"), (False, "mesh"), (True, "nemo")])
def test_revoked_node_is_excluded_within_5_s_and_no_other_is_touched(
    make_lab: MakeLab, measured: Measured, is_sealed: bool, engine: str
) -> None:
    """Goal: a revocation that reaches any node excludes the revoked one, and disturbs no other.
    Method: a stream from n1 to n2, n3 and n4; n4 is revoked by a list that n3 reads.  n4 receives nothing after 5 s and
    ends with one line; n2 and n3 miss no datagram (nemo: those that repair cannot bring back) and keep their links."""
    lab = make_lab(4)
    authority = Authority(lab)
    key = network_key(lab) if is_sealed else None
    for host in lab.hosts:
        authority.sign(host)
    extra = ("--overlay", engine)
    nodes = [authority.launch(host, lab.hosts[:1], key=key, extra=extra) for host in lab.hosts]
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    first, _, third, revoked = nodes
    group = fresh_group()
    receivers = [Receiver(node.host, group, streams=2) for node in nodes[1:]]
    Sender(first.host, group, stream=2, pps=100, seconds=3).sent()  # nemo makes its tree when a source sends
    sender = Sender(first.host, group, pps=1000, seconds=10)
    time.sleep(2)
    revocations = authority.state_of(third.name) / "revocations"
    authority.run("revoke", revoked.name, "--reason", "stolen", "--out", str(revocations))
    began = time.monotonic()
    authority.reload(third)
    wait_until(lambda: all(revoked.name not in links_up(node) for node in nodes[:3]), REVOKED_S, "no link to it is up")
    measured(excluded_s=time.monotonic() - began)
    assert revoked.process.wait(REVOKED_S) == 1
    measured(ended_s=time.monotonic() - began)
    lines = [line for line in revoked.process.log.splitlines() if line.startswith("pipeline: ")]
    assert lines == ["pipeline: this node is no member any more: its certificate is revoked"], revoked.process.log
    sent = sender.sent()
    for receiver in receivers[:2]:
        account = receiver.account()
        measured(lost=account.stream()["lost"])
        if engine == "mesh":
            account.assert_perfect(sent)
        else:  # nemo repairs what the revoked node had to forward, except a few datagrams
            assert account.stream()["lost"] <= sent * REPAIRED_LOSS_MAX
    assert receivers[2].stop().stream()["unique"] < sent / 2
    for node in nodes[:3]:
        assert links_up(node) == {each.name for each in nodes[:3] if each is not node}
        assert node.process.log.count("link down") == 1, "of the revoked node only"
    again = authority.launch(revoked.host, lab.hosts[:1], key=key)
    assert again.process.wait(10) in {1, 78}
    assert "revoked" in again.process.log


def test_node_without_a_certificate_is_refused_with_the_reason(make_lab: MakeLab) -> None:
    """Goal: the network key alone makes no member.  Method: a node of an open network with the key."""
    lab = make_lab(3)
    authority = Authority(lab)
    key, (a, b, c) = network_key(lab), lab.hosts
    for host in (a, b):
        authority.sign(host)
    nodes = [authority.launch(host, [a], key=key) for host in (a, b)]
    command = launch_command(c, key=key, peers=[a, b])
    stranger = Instance(c, [require("env"), f"STATE_DIRECTORY={authority.state_of(c.name)}", *command])
    for node in (*nodes, stranger):
        node.wait_ready()
    wait_linked(nodes)
    wait_until(lambda: "refuses this node" in stranger.process.log, 5, "it logs the reason")
    time.sleep(2)
    assert links_up(stranger) == set()
    assert links_up(nodes[0]) == {b.name}
    assert "it has no certificate of this network's authority" in stranger.process.log
    assert f"{c.name} at {c.underlay}:4747 is refused" in nodes[0].process.log


def test_certificate_is_renewed_without_a_restart(make_lab: MakeLab) -> None:
    """Goal: a renewed certificate reaches the peers by `pipeline reload`, and takes no link down.
    Method: a node's certificate is signed again with another serial; the old serial is then revoked."""
    lab = make_lab(2)
    authority = Authority(lab)
    key = network_key(lab)
    for host in lab.hosts:
        authority.sign(host)
    nodes = [authority.launch(host, lab.hosts[:1], key=key) for host in lab.hosts]
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    old = authority.lab.dir / "old"
    old.write_bytes((authority.state_of(lab.hosts[1].name) / "certificate").read_bytes())
    authority.sign(lab.hosts[1])
    authority.reload(nodes[1])
    time.sleep(1)
    authority.run("revoke", str(old), "--out", str(authority.state_of(nodes[0].name) / "revocations"))
    authority.reload(nodes[0])
    time.sleep(3)
    assert [links_up(node) for node in nodes] == [{nodes[1].name}, {nodes[0].name}]
    assert [node.process.log.count("link down") for node in nodes] == [0, 0]


@pytest.mark.slow
def test_revocation_outlives_partitions_and_restarts(make_lab: MakeLab, measured: Measured) -> None:
    """Goal: a node that was cut off learns a revocation with its next link, and none forgets it.
    Method: n3 and n4 are cut off, n4 is revoked at n1, the partition is healed.  Then n1 and n2 are gone, and n3
    restarts with what it has kept; n4 starts again, with its old certificate and no list."""
    lab = make_lab(4)
    authority = Authority(lab)
    key = network_key(lab)
    for host in lab.hosts:
        authority.sign(host)
    nodes = [authority.launch(host, lab.hosts, key=key) for host in lab.hosts]
    for node in nodes:
        node.wait_ready()
    wait_linked(nodes)
    first, second, cut_off, revoked = nodes
    lab.partition([cut_off.host, revoked.host])
    wait_until(lambda: cut_off.name not in links_up(first), 10, "the partition is noticed")
    authority.run("revoke", revoked.name, "--out", str(authority.state_of(first.name) / "revocations"))
    authority.reload(first)
    assert revoked.name in links_up(cut_off)
    lab.heal()
    wait_until(lambda: cut_off.name in links_up(first), 30, "the partition has ended")
    began = time.monotonic()
    wait_until(lambda: revoked.name not in links_up(cut_off), REVOKED_S, "the revoked node is excluded")
    measured(excluded_s=time.monotonic() - began)
    wait_until((authority.state_of(cut_off.name) / "revocations").exists, 5, "the list is kept")
    for node in (first, second, cut_off):
        assert node.stop() == 0
    (authority.state_of(revoked.name) / "revocations").unlink(missing_ok=True)
    again = [authority.launch(node.host, lab.hosts, key=key) for node in (cut_off, revoked)]
    again[0].wait_ready()
    assert again[1].process.wait(10) in {1, 78}
    assert links_up(again[0]) == set()


def test_node_of_another_authority_is_refused(make_lab: MakeLab) -> None:
    """Goal: two networks with one network key stay apart.  Method: a node with a certificate of another authority."""
    lab, other = make_lab(2), make_lab(1)
    key, (a, b) = network_key(lab), lab.hosts
    authority, stranger = Authority(lab), Authority(other)
    authority.sign(a)
    stranger.sign(b)
    nodes = [authority.launch(a, [b], key=key), stranger.launch(b, [a], key=key)]
    for node in nodes:
        node.wait_ready()
    wait_until(lambda: all("another authority" in node.process.log for node in nodes), 5, "both log the reason")
    assert links_up(nodes[0]) == links_up(nodes[1]) == set()
