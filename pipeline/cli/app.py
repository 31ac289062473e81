"""Commands and their flags.  Each command imports the module that does its work when it is called.

Flags arrive as text.  config.py checks them, so that a wrong value gets the same error from a flag, a file or the
environment.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from pipeline import __version__
from pipeline.cli import completion
from pipeline.cli.authority import authority
from pipeline.cli.identity import identity
from pipeline.cli.shared import Group, config_flag, instance_flag, json_flag, print_value
from pipeline.control.nouns import Noun
from pipeline.errors import UsageError
from pipeline.terminal import printable

STOP_TIMEOUT_S = 10.0
"""An instance ends within tenths of a second: farewells to peers, workers, netlink.  The rest is for a busy host."""
TOPOLOGIES = ("plane", "transit-stub", "power-law")
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def run(arguments: Sequence[str]) -> int:
    """Parse and run a command; return its exit code.  A usage error of click becomes a UsageError of one line."""
    if completion.VARIABLE in os.environ:
        return completion.respond(app, os.environ[completion.VARIABLE])
    try:
        with app.make_context("pipeline", list(arguments)) as context:
            return int(app.invoke(context) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.UsageError as error:
        path = "pipeline" if error.ctx is None else error.ctx.command_path
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            raise UsageError(f"which command? `{path} --help` lists them") from None
        text = error.format_message().rstrip(".")
        raise UsageError(f"{text[:1].lower()}{text[1:]}; see `{path} --help`") from None


@click.group(
    cls=Group,
    context_settings=SETTINGS,
    epilog=f'Shell completion: eval "$({completion.VARIABLE}=bash_source pipeline)", or zsh_source, fish_source.',
)
@click.version_option(__version__, prog_name="mcast-pipeline", message="%(prog)s %(version)s")
def app() -> None:
    """IP multicast for unmodified programs, across networks that carry none."""


# ---------------------------------------------------------------- launch and keys


@app.command()
@config_flag
@click.option("--workers", metavar="N", help="Processes of the data plane: 1, 2, 4, 8, 12 … 64 (default 4).")
@click.option("--name", metavar="NAME", help="Name of this node (default: the host name).")
@click.option("--key", metavar="FILE", shell_complete=completion.files,
              help="Network key, the same on all nodes; see `pipeline keygen`.")  # fmt: skip
@click.option("--insecure", is_flag=True, help="Run without a key: nothing is encrypted or authenticated.")
@click.option("--listen", metavar="ADDR:PORT", help="UDP for data, TCP for control (default 0.0.0.0:4747).")
@click.option("--peer", "peers", metavar="ADDR:PORT", multiple=True, help="Node to connect to; others are learnt.")
@click.option("--tun", metavar="IFNAME", help="Interface for local programs (default mcast0).")
@click.option("--address", "addresses", metavar="CIDR", multiple=True, help="Overlay address (default: from the name).")
@click.option("--overlay", metavar="ENGINE", shell_complete=completion.engines,
              help="Engine that decides the routes (default mesh).")  # fmt: skip
@click.option("--metrics", metavar="ADDR:PORT", help="Serve Prometheus metrics at this address.")
def launch(config: str | None, **flags: Any) -> int:
    """Run a node in the foreground until SIGTERM."""
    from pipeline.cli.settings import effective
    from pipeline.config import FLAGS

    if flags["key"] and flags["insecure"]:
        raise UsageError(f"--key {flags['key']}: contradicts --insecure: give one of the two")
    by_flag = {key: flags[name] for key, name in _parameters(FLAGS).items()}
    settings, _ = effective(by_flag, config, launching=True)
    from pipeline import supervisor

    if settings.metrics.listen is None:
        return supervisor.launch(settings)
    from pipeline.control.metrics import Endpoint

    return supervisor.launch(settings, Endpoint(settings.metrics.listen, name=settings.node.name))


def _parameters(flags: Any) -> dict[str, str]:
    """Return configuration key → the parameter of `launch` that click fills from its flag."""
    plural = {"--peer": "peers", "--address": "addresses"}
    return {key: plural.get(flag, flag.removeprefix("--")) for key, flag in flags.items()}


@app.command()
@click.argument("path", metavar="[FILE]", required=False, default="network.key", shell_complete=completion.files)
@click.option(
    "--rotate", is_flag=True, help="Add a new key to a file; the present one stays until all nodes have moved."
)
@click.option("--retire", is_flag=True, help="Remove all keys but the newest from a file, after the move.")
def keygen(*, path: str, rotate: bool, retire: bool) -> int:
    """Make a file with a network key, mode 0600 (default: network.key in this directory).

    Copy it to every node of the overlay.  An existing file is never overwritten; "-" writes the key to stdout.

    To move a running overlay to a new key, or to exclude a node: `keygen --rotate FILE` once, copy the file to every
    node that is to stay, `pipeline reload` there.  When all have moved, the old key ends by itself.
    """
    from pipeline.keys import file as key_file

    if rotate and retire:
        raise UsageError("keygen --rotate --retire: give one of the two")
    if rotate:
        key_file.add_network_key(Path(path))
    elif retire:
        key_file.retire_network_keys(Path(path))
    elif path == "-":
        sys.stdout.write(key_file.new_key_text())
    else:
        key_file.write_network_key(Path(path))
    return 0


app.add_command(authority)
app.add_command(identity)


# ---------------------------------------------------------------- a running instance


@app.command()
@instance_flag
@click.option("--wait", "wait", metavar="S", help="Wait up to S seconds until it is ready.")
@json_flag
def status(name: str | None, wait: str | None, as_json: bool) -> int:
    """Report whether a node is ready (exit code 0) or not (69)."""
    from pipeline.client import wait_ready

    value = wait_ready(name, _seconds("--wait", wait) if wait else 0.0)
    print_value("status", value, as_json=as_json)
    return 0


def _complete_noun(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(noun.value, help=noun.summary) for noun in Noun if noun.startswith(incomplete)]


@app.command(epilog="\b\n" + "\n".join(f"{noun:<9} {noun.summary}" for noun in Noun))
@click.argument("noun", metavar="|".join(Noun), shell_complete=_complete_noun)
@instance_flag
@click.option("--detail", is_flag=True, help="Show every column, list and counter in full.")
@click.option("--format", "form", metavar="FORMAT", default="text",
              shell_complete=completion.words("text", "dot", "mermaid"),
              help="Format of a graph: text (default), dot, mermaid.")  # fmt: skip
@json_flag
def show(noun: str, name: str | None, detail: bool, form: str, as_json: bool) -> int:
    """Show the state of a running node."""
    from pipeline.cli.pictures import FORMATS, draw
    from pipeline.client import instance_name, request

    if noun not in list(Noun):
        near = difflib.get_close_matches(noun, Noun, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(Noun)}"
        raise UsageError(f"show {noun}: unknown ({hint})")
    if form not in FORMATS:
        raise UsageError(f"--format {form}: one of {', '.join(FORMATS)}")
    if form != "text" and noun != "graph":
        raise UsageError(f"--format {form}: only a graph has formats")
    value = request(instance_name(name), "show", noun)
    if noun == "graph" and not as_json:
        sys.stdout.write(draw(value, form))
    else:
        print_value(noun, value, as_json=as_json, detail=detail)
    return 0


@app.command()
@click.option(
    "--membership", is_flag=True, help="Rules of IGMP and MLD as they fire (the default; there is no other trace)."
)
@instance_flag
@click.option("--seconds", metavar="S", help="End after S seconds (default: at Ctrl-C).")
@json_flag
def trace(*, membership: bool, name: str | None, seconds: str | None, as_json: bool) -> int:  # noqa: ARG001
    """Print the events of a running node: time, group, host, rule."""
    from pipeline.cli.trace import follow
    from pipeline.client import instance_name

    follow(instance_name(name), seconds=_seconds("--seconds", seconds) if seconds else None, as_json=as_json)
    return 0


@app.command()
@instance_flag
def top(name: str | None) -> int:
    """Show traffic, workers, links and groups, each second; q ends it."""
    from pipeline.cli import top as view
    from pipeline.client import instance_name

    view.watch(instance_name(name))
    return 0


@app.command()
@instance_flag
def reload(name: str | None) -> int:
    """Read key file, certificate and revocation list again.

    The node moves to the first key of the file; see `keygen --rotate`.
    """
    from pipeline import client

    client.reload(client.instance_name(name))
    return 0


@app.command()
@instance_flag
def stop(name: str | None) -> int:
    """End a node; return when everything that it has created is removed."""
    from pipeline import client

    client.stop(client.instance_name(name), STOP_TIMEOUT_S)
    return 0


# ---------------------------------------------------------------- checks, configuration, demo, simulation


@app.command()
@config_flag
@click.option("--listen", metavar="ADDR:PORT", help="Port that must be free (default 0.0.0.0:4747).")
@json_flag
def check(config: str | None, listen: str | None, as_json: bool) -> int:
    """Check whether this host can run a node.

    Checks the kernel, rights, /dev/shm, the port, identity and certificate.  Exit code 0: it can; 77: a right is
    missing; 1: other faults.
    """
    from pipeline.cli.settings import effective
    from pipeline.io import preflight

    settings, _ = effective({"node.listen": listen}, config)
    findings = preflight.findings(settings)
    print_value("check", [finding.as_dict() for finding in findings], as_json=as_json)
    return preflight.exit_code(findings)


@app.group(cls=Group, name="config")
def config_group() -> None:
    """Check a configuration file, or show the effective configuration."""


@config_group.command("check")
@click.argument("file", required=False, envvar="MCAST_PIPELINE_CONFIG", shell_complete=completion.files)
def config_check(file: str | None) -> int:
    """Check the file and the environment: exit code 0, or 78 and the key that is wrong."""
    from pipeline.cli.settings import effective

    effective({}, file)
    click.echo(f"{printable(file) if file else 'environment and defaults'}: ok")
    return 0


@config_group.command("show")
@click.argument("file", required=False, envvar="MCAST_PIPELINE_CONFIG", shell_complete=completion.files)
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@json_flag
def config_show(file: str | None, origin: bool, as_json: bool) -> int:
    """Show the effective configuration as TOML."""
    from pipeline.cli.settings import as_toml, effective, jsonable

    settings, origins = effective({}, file)
    if as_json:
        print_value("config", jsonable(settings, origins if origin else None), as_json=True)
    else:
        click.echo(as_toml(settings, origins if origin else None), nl=False)
    return 0


@app.command()
@click.option("--seconds", metavar="S", default="30", help="Length of the whole demonstration (default 30).")
@click.option("--workers", metavar="N", default="4", help="Workers of each node (default 4).")
@json_flag
def demo(seconds: str, workers: str, as_json: bool) -> int:
    """Show a video stream between three hosts in network namespaces."""
    from pipeline.config import load

    count = load({"workers.count": workers}, os.environ, None, require_key=False).workers.count
    from pipeline.cli import demo as demonstration

    return demonstration.run(seconds=_seconds("--seconds", seconds), workers=count, json=as_json)


@app.command()
@click.option("--overlay", "engine", metavar="ENGINE", default="mesh", shell_complete=completion.engines,
              help="Engine (default mesh).")  # fmt: skip
@click.option("--nodes", metavar="N", default="128", help="Number of nodes (default 128).")
@click.option("--seed", metavar="N", default="1", help="Seed of all random numbers (default 1).")
@click.option("--duration", metavar="S", default="600", help="Length of the run in virtual seconds (default 600).")
@click.option("--warmup", metavar="S", default="", help="Packets count from then on (default a quarter of --duration).")
@click.option("--rate", metavar="R", default="10", help="Packets per second (default 10).")
@click.option("--packet-bytes", metavar="B", default="100", help="Size of a packet in bytes (default 100).")
@click.option("--topology", "place", metavar="KIND", shell_complete=completion.words(*TOPOLOGIES),
              help=f"{', '.join(TOPOLOGIES)} (default {TOPOLOGIES[0]}).")  # fmt: skip
@click.option("--rtt-matrix", metavar="FILE", shell_complete=completion.files,
              help="Matrix of round-trip times in ms, instead of a topology.")  # fmt: skip
@click.option("--loss", metavar="SHARE", default="0", help="Share of datagrams that is lost, 0 to 1 (default 0).")
@click.option("--bandwidth", metavar="MBIT", help="Rate of access links in Mbit/s, each direction (default no limit).")
@click.option("--mttf", metavar="S", help="Mean time to failure of a node (default no failures).")
@click.option("--mttr", metavar="S", default="120", help="Mean time until a failed node returns (default 120).")
@click.option("--trace", metavar="FILE", shell_complete=completion.files,
              help="Failures from a file: lines of seconds, node, up or down.")  # fmt: skip
@click.option("--partition", metavar="BEGIN,END,SHARE", help="Cut off a share of the nodes from BEGIN to END.")
@click.option("--option", "options", metavar="NAME=VALUE", multiple=True, help="Option of the engine.")
@json_flag
def simulate(as_json: bool, **flags: Any) -> int:
    """Run an engine on thousands of virtual nodes that are made of the daemon's own code."""
    from pipeline.cli import simulate as simulation

    figures = simulation.run(simulation.scenario(**flags))
    if as_json:
        print_value("simulation", figures, as_json=True)
    else:
        simulation.write(figures)
    return 0


# ---------------------------------------------------------------- shared


def _seconds(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise UsageError(f"{flag} {text}: expected a number of seconds")
    return value
