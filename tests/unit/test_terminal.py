"""Goal: text of users, files and peers cannot control the terminal, and styles can be turned off.

Method: control characters in texts, in arguments of commands, in log lines and in tables.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import structlog
from rich.text import Text

from pipeline import logs
from pipeline.cli.tables import render, table_of
from pipeline.config import LogSection
from pipeline.terminal import has_styles, one_line, printable

COMMAND = [sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())"]
RED = "\x1b[31m"
LINK = {"peer": f"b{RED}", "endpoint": "192.0.2.2:4747", "addresses": [], "state": "up", "rtt_ms": 1.0, "loss": 0.0,
        "tx_bytes": 0, "rx_bytes": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("b ≤ 3 µs – “ü”", "b ≤ 3 µs – “ü”"),
        (f"a{RED}b\x07\x7f", r"a\x1b[31mb\x07\x7f"),
        ("a\x9b31m", r"a\x9b31m"),
        ("a\u202eb", r"a\u202eb"),
        (os.fsdecode(b"a\xff"), r"a\udcff"),
    ],
)
def test_unprintable_characters_are_escaped(text: str, shown: str) -> None:
    """Goal: escape sequences (7 and 8 bits), bidirectional controls and invalid bytes are shown, not obeyed."""
    assert printable(text) == shown


def test_one_line_joins_lines() -> None:
    """Goal: a text with line breaks is one line.  Method: breaks, a tab and an escape code."""
    assert one_line(f" two\r\nlines\t{RED}") == r"two lines \x1b[31m"


@pytest.mark.parametrize(
    "words",
    [
        [f"lanch{RED}"],
        [f"--bogus{RED}"],
        ["show", f"links{RED}"],
        ["show", "links", f"extra{RED}"],
        ["show", "graph", "--format", RED],
        ["status", "--name", RED],
        ["status", "--wait", RED],
        ["launch", "--insecure", "--listen", RED],
        ["launch", "--insecure", "--peer", RED],
        ["launch", "--insecure", "--overlay", RED],
        ["launch", "--key", f"/nowhere/{RED}"],
        ["launch", "--insecure", "--config", f"/nowhere/{RED}"],
        ["config", "check", f"/nowhere/{RED}"],
        ["keygen", f"/nowhere/{RED}"],
        ["simulate", "--topology", RED],
        ["simulate", "--trace", f"/nowhere/{RED}"],
    ],
)
def test_error_lines_have_no_escape_codes(words: list[str]) -> None:
    """Goal: an error of one line that shows the wrong word and cannot colour the terminal."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr
    assert r"\x1b[31m" in done.stderr


def test_config_commands_escape_paths(tmp_path: object) -> None:
    """Goal: `config check` and `config show --origin` show a path without obeying it.
    Method: a file with an escape code and a newline in its name, which could end the comment that the path is in."""
    path = f"{tmp_path}/a{RED}\nb.toml"
    with open(path, "w") as file:
        file.write("[tun]\nmtu = 1400\n")
    for words in (["config", "check", path], ["config", "show", path, "--origin"]):
        done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=30, check=True)
        assert "\x1b" not in done.stdout
        assert r"a\x1b[31m\nb.toml" in done.stdout


def test_config_show_escapes_values(tmp_path: Path) -> None:
    """Goal: `config show` prints TOML that has no control characters and gives the same configuration.
    Method: a key file with control characters of 7 and 8 bits in its name; the output is read again."""
    key = tmp_path / "k\x1b\x7f\x9b"
    subprocess.run([*COMMAND, "keygen", str(key)], timeout=30, check=True)
    path = tmp_path / "a.toml"
    path.write_text(f'[node]\nkey = "{tmp_path}/k\\u001b\\u007f\\u009b"\n')
    shown = subprocess.run([*COMMAND, "config", "show", path], capture_output=True, text=True, timeout=30, check=True)
    assert shown.stdout.replace("\n", "").isprintable()
    assert tomllib.loads(shown.stdout)["node"]["key"] == str(key)


def test_top_has_no_styles_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: what textual draws for `top` has no styles under NO_COLOR.  Method: a table, with and without it."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for value, expected in (("1", {""}), ("", {"bold", "green"})):
        monkeypatch.setenv("NO_COLOR", value)
        table = table_of("links", [LINK])
        state = next(iter(table.columns[3].cells))
        assert isinstance(state, Text)
        assert {str(table.header_style), str(state.style)} == expected


def test_log_lines_have_no_escape_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a text or field of an event that comes from a peer cannot control the terminal.
    Method: a text log and a JSON log of an event with escape codes in both."""
    monkeypatch.setenv("NO_COLOR", "1")
    for style in ("text", "json"):
        logs.configure(LogSection(format=style))
        structlog.get_logger().warning(f"name{RED} is taken", peer=f"b{RED}")
    structlog.reset_defaults()
    logs.print_error(f"port {RED} is in use")
    written = capsys.readouterr().err
    assert "\x1b" not in written
    assert len(written.splitlines()) == 3


def test_tables_have_no_escape_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a peer's name cannot control the terminal.  Method: a table, an object and a status with escape codes."""
    render("links", [LINK], detail=False)
    render("graph", {"nodes": [f"a{RED}"], f"x{RED}": 1}, detail=False)
    status = {"name": f"a{RED}", "ready": True, "state": "ready", "interface": "mcast0", "addresses": [RED],
              "workers": 4, "peers_up": 1, "peers_known": 1, "groups_local": 12, "uptime_s": 7500.0}  # fmt: skip
    render("status", status, detail=False)
    render("counters", {f"drops{RED}": 1}, detail=False)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_and_dumb_terminals_have_no_styles(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: neither colours nor bold.  Method: FORCE_COLOR makes rich take the output for a terminal."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    render("links", [LINK], detail=False)
    assert "\x1b[1m" in capsys.readouterr().out
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    render("links", [LINK], detail=False)
    render("counters", {"drops": {"replay": 1}}, detail=False)
    assert "\x1b" not in capsys.readouterr().out


def test_log_styles_follow_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: NO_COLOR, TERM=dumb and pipes turn the styles of log lines off.  Method: a pseudo-terminal and a pipe."""
    master, slave = os.openpty()
    reader, writer = os.pipe()
    with os.fdopen(slave, "w") as terminal, os.fdopen(writer, "w") as pipe:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert has_styles(terminal)
        assert not has_styles(pipe)
        monkeypatch.setenv("TERM", "dumb")
        assert not has_styles(terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "1")
        assert not has_styles(terminal)
    os.close(master)
    os.close(reader)
