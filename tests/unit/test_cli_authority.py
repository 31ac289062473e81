"""Goal: `pipeline authority` and `pipeline identity` lead from an empty directory to a network of certified nodes.

Method: the commands in an empty directory.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.config import NodeSection
from pipeline.io import credentials, identity_file
from pipeline.keys.identity import Identity

COMMAND = [sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())"]


@dataclass(frozen=True)
class Done:
    """Outputs of a command."""

    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`pipeline WORDS` in the test's directory, with that exit code and a line on stderr with the words of `error`.

    It runs in this process, which takes a tenth of the time; `launch`, which forks, runs in another one.
    """
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MCAST_PIPELINE_")]:
        monkeypatch.delenv(name)

    def call(*words: object, code: int | None = 0, error: tuple[str, ...] = (), text: str = "", **env: str) -> Done:
        arguments = list(map(str, words))
        if arguments[0] == "launch":
            ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False,
                                   env=os.environ | env)  # fmt: skip
            found, done = ended.returncode, Done(ended.stdout, ended.stderr)
        else:
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
                for name, value in env.items():
                    patch.setenv(name, value)
                found, done = main(arguments), Done(*capsys.readouterr())
        assert code is None or found == code, done.stderr
        assert "Traceback" not in done.stderr
        if code:
            assert (len(done.stderr.splitlines()), done.stdout) == (1, ""), done.stderr
        for word in error:
            assert word in done.stderr
        return done

    return call


def make_node(run: Run, tmp_path: Path, name: str) -> dict[str, str]:
    """Make a node's identity, as its first launch does, and the file NAME.pub; return the environment of the node."""
    env = {"MCAST_PIPELINE_NODE_IDENTITY": str(tmp_path / f"{name}.identity"), "MCAST_PIPELINE_NAME": name}
    identity_file.load_or_make(NodeSection(name=name, identity=env["MCAST_PIPELINE_NODE_IDENTITY"]))
    (tmp_path / f"{name}.pub").write_text(run("identity", "show", **env).stdout)
    return env


def listing(run: Run) -> dict[str, Any]:
    answer = json.loads(run("authority", "list", "--json").stdout)
    assert answer["schema"] == 1
    found: dict[str, Any] = answer["authority"]
    return found


# ---------------------------------------------------------------- authority init


def test_init_makes_a_private_key_a_public_one_and_a_register(run: Run, tmp_path: Path) -> None:
    """Goal: the secret is private, and nothing is overwritten.  Method: here, by a file, by a directory."""
    assert len(run("authority", "init").stdout.splitlines()) == 1
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"authority.key": 0o600, "authority.pub": 0o644, "authority.register": 0o600}
    before = (tmp_path / "authority.key").read_bytes()
    run("authority", "init", code=1, error=("authority.register", "exists"))
    assert (tmp_path / "authority.key").read_bytes() == before
    (tmp_path / "dir").mkdir()
    run("authority", "init", "dir")
    run("authority", "init", "studio.key")
    assert {path.name for path in (tmp_path / "dir").iterdir()} == set(modes)
    assert (tmp_path / "studio.pub").exists() and (tmp_path / "studio.register").exists()
    run("authority", "init", "none/x.key", code=1, error=("none",))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("chmod 644 authority.key", ["authority.key", "chmod 600"]),
        ("rm authority.key", ["authority.key", "authority init"]),
        ("echo x > authority.key", ["authority.key", "not a signing key"]),
        ("cp authority.pub authority.key; chmod 600 authority.key", ["authority.key", "not a signing key"]),
        ("rm authority.register", ["authority.register", "restore it"]),
        ("echo x > authority.register", ["authority.register", "not a register"]),
        ('sed -i \'s/"schema": 1/"schema": 9/\' authority.register', ["authority.register", "another version"]),
        ("cp other.register authority.register", ["authority.register", "another signing key"]),
        ("rm authority.key; mkfifo -m 600 authority.key", ["authority.key", "not a regular file"]),
    ],
)
def test_unusable_files_of_an_authority_are_named(run: Run, tmp_path: Path, damage: str, words: list[str]) -> None:
    """Goal: exit code 78, and one line with path and remedy.  Method: damage to key and register."""
    run("authority", "init")
    run("authority", "init", "other.key")
    subprocess.run(damage, shell=True, check=True, cwd=tmp_path)
    run("authority", "list", code=78, error=tuple(words))


# ---------------------------------------------------------------- authority sign


def test_signed_node_can_start(run: Run, tmp_path: Path) -> None:
    """Goal: what `identity show` and `authority sign` print is all that a node needs.
    Method: one node by file, one by a pipe, one by text; a node checks its files as at its start."""
    run("authority", "init")
    for name, how in (("a", "file"), ("b", "stdin"), ("c", "text")):
        env = make_node(run, tmp_path, name)
        shown = json.loads(run("identity", "show", "--json", **env).stdout)["identity"]
        printed = (tmp_path / f"{name}.pub").read_text()
        assert all(shown[key] in printed for key in ("name", "node_id", "fingerprint", "public_key"))
        key = {"file": f"{name}.pub", "stdin": "-", "text": shown["public_key"]}[how]
        told = run("authority", "sign", key, "--name", name, text=printed).stdout
        assert told.startswith(f"{name}.certificate: node {name}, serial ")
        env |= {
            "MCAST_PIPELINE_NODE_CERTIFICATE": f"{name}.certificate",
            "MCAST_PIPELINE_SECURITY_AUTHORITY": "authority.pub",
        }
        assert "certificate" in run("config", "show", "--origin", **env).stdout
        rows = json.loads(run("check", "--json", "--listen", "127.0.0.1:47471", code=None, **env).stdout)["check"]
        assert {row["name"]: row["state"] for row in rows}["certificate"] == "ok"
        assert shown["fingerprint"] in {row["name"]: row["detail"] for row in rows}["identity"]


def test_certificate_can_be_written_to_stdout(run: Run, tmp_path: Path) -> None:
    """Goal: a certificate can be sent through a pipe, and --out names its file.  Method: "-" and a path."""
    run("authority", "init")
    make_node(run, tmp_path, "a")
    (tmp_path / "piped").write_text(run("authority", "sign", "a.pub", "--name", "a", "--out", "-").stdout)
    run("authority", "sign", "--name", "a", "--out", "named")
    serials = [credentials.load_certificate(tmp_path / name)[0].serial for name in ("piped", "named")]
    assert serials == [1, 2] and not (tmp_path / "a.certificate").exists()


def test_flags_are_in_the_certificate(run: Run, tmp_path: Path) -> None:
    """Goal: addresses, networks, relay and period are those of the flags.  Method: all flags once."""
    run("authority", "init")
    make_node(run, tmp_path, "a")
    run("authority", "sign", "a.pub", "--name", "a", "--address", "10.77.0.1/16", "--address", "fd77::1/64",
        "--prefix", "192.0.2.0/24", "--no-relay", "--days", "0.5")  # fmt: skip
    (row,) = listing(run)["certificates"]
    assert row["addresses"] == ["10.77.0.1/16", "fd77::1/64"] and row["prefixes"] == ["192.0.2.0/24"]
    certificate, _ = credentials.load_certificate(tmp_path / "a.certificate")
    assert not certificate.relay and certificate.not_after - certificate.not_before == 43_200
    run("authority", "sign", "--name", "a")
    assert [row["prefixes"] for row in listing(run)["certificates"]] == [["192.0.2.0/24"]] * 2
    run("authority", "sign", "--name", "a", "--prefix", "none")
    assert listing(run)["certificates"][-1]["prefixes"] == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["a.pub"], ["--name"]),
        (["a.pub", "--name", "a b"], ["--name", "a b"]),
        (["a.pub", "--name", "studiо"], ["--name", "studi"]),
        (["a.pub", "--name", "a", "--address", "10.77.0.1"], ["--address", "10.77.0.1"]),
        (["a.pub", "--name", "a", "--address", "239.1.1.1/8"], ["--address", "239.1.1.1/8"]),
        (["a.pub", "--name", "a", "--prefix", "192.0.2.1/24"], ["--prefix", "192.0.2.1/24"]),
        (
            ["a.pub", "--name", "a", *[word for n in range(17) for word in ("--prefix", f"10.{n}.0.0/16")]],
            ["--prefix", "17"],
        ),
        (["a.pub", "--name", "a", "--days", "0"], ["--days", "0"]),
        (["a.pub", "--name", "a", "--days", "soon"], ["--days", "soon"]),
        (["a.pub", "--name", "a", "--days", "nan"], ["--days", "nan"]),
        (["none.pub", "--name", "a"], ["none.pub"]),
        (["public-key:AAAA", "--name", "a"], ["public-key:AAAA"]),
        (["public-key:" + "A" * 43 + "=", "--name", "a"], ["not a usable"]),
        (["authority.pub", "--name", "a"], ["authority itself"]),
    ],
)
def test_wrong_value_is_a_usage_error(run: Run, tmp_path: Path, words: list[str], named: list[str]) -> None:
    """Goal: exit code 2, and one line with the value; nothing is signed.  Method: one wrong value."""
    run("authority", "init")
    make_node(run, tmp_path, "a")
    run("authority", "sign", *words, code=2, error=tuple(named))
    assert listing(run)["certificates"] == []


def test_secret_is_never_signed_as_a_public_key(run: Run, tmp_path: Path) -> None:
    """Goal: no secret gets into a certificate.  Method: the identity, the network key and the signing key as KEY."""
    run("authority", "init")
    run("keygen")
    make_node(run, tmp_path, "a")
    for name in ("a.identity", "authority.key", "network.key"):
        run("authority", "sign", name, "--name", "a", code=78, error=(name, "not a public key"))


def test_signing_at_the_same_time_gives_each_serial_once(run: Run, tmp_path: Path) -> None:
    """Goal: a script can sign nodes in parallel.  Method: six commands at once."""
    run("authority", "init")
    keys = [credentials.public_key_text("x", Identity(bytes([number]) * 32).public_key) for number in range(6)]
    processes = []
    for number, key in enumerate(keys):
        (tmp_path / f"{number}.pub").write_text(key)
        words = ["authority", "sign", f"{number}.pub", "--name", f"n{number}"]
        processes.append(subprocess.Popen([*COMMAND, *words], cwd=tmp_path, stdout=subprocess.DEVNULL))
    assert [process.wait(timeout=60) for process in processes] == [0] * 6
    rows = listing(run)["certificates"]
    assert [row["serial"] for row in rows] == [1, 2, 3, 4, 5, 6] and len({row["name"] for row in rows}) == 6


def test_replacement_writes_a_revocation_list(run: Run, tmp_path: Path) -> None:
    """Goal: a node with a new identity takes its name over, and the old identity is out.
    Method: another key for a name, without and with --replace."""
    run("authority", "init")
    make_node(run, tmp_path, "a")
    make_node(run, tmp_path, "b")
    run("authority", "sign", "a.pub", "--name", "a")
    run("authority", "sign", "b.pub", "--name", "a", code=1, error=("--replace",))
    done = run("authority", "sign", "b.pub", "--name", "a", "--replace")
    assert "authority.revocations" in done.stderr and (tmp_path / "authority.revocations").exists()
    assert [row["state"] for row in listing(run)["certificates"]] == ["revoked", "valid"]


# ---------------------------------------------------------------- authority revoke


def test_name_serial_and_certificate_are_revoked(run: Run, tmp_path: Path) -> None:
    """Goal: each of them makes the next version of the list.  Method: one node each, then what cannot be revoked."""
    run("authority", "init")
    for name in "abc":
        make_node(run, tmp_path, name)
        run("authority", "sign", f"{name}.pub", "--name", name)
    run("authority", "sign", "--name", "b")
    assert "version 1" in run("authority", "revoke", "a", "--reason", "stolen").stdout
    assert "authority revoke b" in run("authority", "revoke", "2").stderr
    assert "version 3" in run("authority", "revoke", "c.certificate", "--out", "list").stdout
    assert (tmp_path / "list").exists()
    found = listing(run)
    assert [row["state"] for row in found["certificates"]] == ["revoked", "revoked", "revoked", "valid"]
    assert found["revocations_version"] == 3 and found["revocations"][0]["reason"] == "stolen"
    assert [row["serial"] for row in found["revocations"]] == [None, 2, 3]
    for word in ("a", "2", "c.certificate"):
        run("authority", "revoke", word, code=1, error=("revoked already",))
    run("authority", "revoke", "nobody", code=1, error=("nobody",))
    run("authority", "revoke", "99", code=1, error=("serial 99",))
    run("authority", "revoke", "b", "--reason", "w\u00f6rter", code=2, error=("--reason",))
    run("authority", "revoke", "authority.pub", code=78, error=("not a certificate",))
    run("authority", "init", "other.key")
    run("authority", "sign", "a.pub", "--name", "a", "--authority", "other.key")
    run("authority", "revoke", "a.certificate", code=1, error=("another authority",))


def test_revoked_node_does_not_start(run: Run, tmp_path: Path) -> None:
    """Goal: exit code 78, and one line with the reason.  Method: `config check` with the list of its authority."""
    run("authority", "init")
    env = make_node(run, tmp_path, "a")
    run("authority", "sign", "a.pub", "--name", "a")
    env |= {
        "MCAST_PIPELINE_NODE_CERTIFICATE": "a.certificate",
        "MCAST_PIPELINE_SECURITY_AUTHORITY": "authority.pub",
        "MCAST_PIPELINE_SECURITY_REVOCATIONS": "authority.revocations",
    }
    run("config", "check", **env)
    run("authority", "revoke", "a")
    run("config", "check", code=78, error=("a.certificate", "revoked"), **env)


def test_list_is_a_table(run: Run, tmp_path: Path) -> None:
    """Goal: a person sees what is valid.  Method: the columns for one certificate, and an empty register."""
    run("authority", "init")
    assert "certificates" in run("authority", "list").stdout
    make_node(run, tmp_path, "a")
    run("authority", "sign", "a.pub", "--name", "a", "--address", "10.77.0.1/16")
    lines = run("authority", "list").stdout.splitlines()
    assert any(line.split()[:4] == ["1", "a", "valid", "10.77.0.1/16"] for line in lines)


# ---------------------------------------------------------------- identity


def test_identity_that_is_not_made_yet_is_an_error(run: Run, tmp_path: Path) -> None:
    """Goal: exit code 78, and the line names path and launch.  Method: a directory without an identity."""
    env = {"MCAST_PIPELINE_NODE_IDENTITY": str(tmp_path / "identity")}
    run("identity", "show", code=78, error=(str(tmp_path / "identity"), "pipeline launch"), **env)
    assert list(tmp_path.iterdir()) == []


def test_launch_without_certificate_makes_the_identity_first(run: Run, tmp_path: Path) -> None:
    """Goal: a node of a network with an authority is signed after its first start.  Method: launch (78), identity show,
    authority sign; the next launch has another error, as this one has no rights for its interface."""
    run("authority", "init")
    env = {
        "MCAST_PIPELINE_NODE_IDENTITY": str(tmp_path / "a.identity"),
        "MCAST_PIPELINE_NODE_CERTIFICATE": "a.certificate",
        "MCAST_PIPELINE_SECURITY_AUTHORITY": "authority.pub",
        "MCAST_PIPELINE_NAME": "a",
    }
    run("launch", "--insecure", code=78, error=("a.certificate", "identity show", "authority sign"), **env)
    (tmp_path / "a.pub").write_text(run("identity", "show", **env).stdout)
    run("authority", "sign", "a.pub", "--name", "b", "--out", "a.certificate")
    run("launch", "--insecure", code=78, error=("a.certificate", "the name b"), **env)
