"""The effective configuration: one frozen object, made of flags, environment, TOML file and defaults.

This module knows the keys, their bounds and the origin of each value.  It does not know the use of a value.  It opens
no socket and reads nothing of the machine but the host name and the files that are named to it.

    flags > environment (MCAST_PIPELINE_SECTION_KEY, and short forms of the flags) > TOML > defaults

A value that cannot be used is an error of one line with its origin: a UsageError for a flag, a ConfigError otherwise.
configs/pipeline.toml describes the keys; a test keeps it complete.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args, get_origin

import msgspec

from pipeline import limits
from pipeline.config_checks import CHECKS
from pipeline.errors import ConfigError, PipelineError, UsageError

ENV_PREFIX = "MCAST_PIPELINE_"
SHOWN_ITEMS_MAX = 8
"""Items of a list in an error line, which is still readable then."""
FILE_KEYS = frozenset({"node.key", "node.identity", "node.certificate", "security.authority", "security.revocations"})
"""Keys whose values are paths; those in a file are relative to its directory."""
KEY_FLAGS = "--key FILE (make one with `pipeline keygen FILE`), or --insecure to send unencrypted"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the TOML file."""


class NodeSection(_Section, frozen=True):
    """[node]: name and endpoint of this node, its peers, keys and certificate."""

    name: str = ""  # the host name by default
    listen: str = f"0.0.0.0:{limits.PORT}"
    peers: tuple[str, ...] = ()
    key: str | None = None
    insecure: bool = False
    identity: str | None = None  # in the state directory by default
    certificate: str | None = None  # in the state directory by default


class TunSection(_Section, frozen=True):
    """[tun]: the interface that programs use."""

    interface: str = "mcast0"
    mtu: int | Literal["auto"] = "auto"
    addresses: tuple[str, ...] = ()
    routes: tuple[str, ...] = ("224.0.0.0/4", "ff00::/8")
    queue_length: int = 4096


class WorkersSection(_Section, frozen=True):
    """[workers]: the processes of the data plane."""

    count: int = 4
    idle: Literal["adaptive", "busy", "sleep"] = "adaptive"
    moderation_us: int = 2000
    affinity: tuple[int, ...] = ()


class RingsSection(_Section, frozen=True):
    """[rings]: slots of the two rings of each lane."""

    host_slots: int = 1024
    overlay_slots: int = 64


class OverlaySection(_Section, frozen=True):
    """[overlay]: the engine that decides the routes, the options of each engine ([overlay.NAME]), nodes' networks."""

    engine: str = "mesh"
    prefixes: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = {}


class GroupsSection(_Section, frozen=True):
    """[groups]: the groups to which this host may send or listen, and the rates."""

    send_allow: tuple[str, ...] = ()
    send_deny: tuple[str, ...] = ()
    receive_allow: tuple[str, ...] = ()
    receive_deny: tuple[str, ...] = ()
    send_pps: int = 0
    receive_pps: int = 0


class SecuritySection(_Section, frozen=True):
    """[security]: the authority, changes of keys, source addresses and rates of peers, unicast."""

    authority: str | None = None
    revocations: str | None = None  # in the state directory by default

    rotate_interval_s: float = 3600.0
    rotate_packets: int = 1 << 32
    key_grace_s: float = 10.0
    allow_foreign_sources: bool = False
    accept_protocol_1: bool = True
    peer_pps: int = 0
    unicast: Literal["all", "discovery", "none"] = "all"
    unicast_ports: tuple[str, ...] = ()


class MembershipConfig(_Section, frozen=True):
    """[membership]: the querier's variables, RFC 9776 §8 and RFC 9777 §9, with their defaults."""

    robustness: int = 2
    query_interval_s: float = 125.0
    query_response_interval_s: float = 10.0
    last_member_query_interval_s: float = 1.0
    startup_query_interval_s: float | None = None
    startup_query_count: int | None = None
    igmp_version: int = 3
    mld_version: int = 2
    querier_address: str | None = None
    fast_leave: bool = False
    older_hosts: bool = True


class MetricsSection(_Section, frozen=True):
    """[metrics]: the endpoint for Prometheus; none by default."""

    listen: str | None = None


class LogSection(_Section, frozen=True):
    """[log]: the lines on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The checked configuration of an instance, which supervisor, control and workers share."""

    node: NodeSection = NodeSection()
    tun: TunSection = TunSection()
    workers: WorkersSection = WorkersSection()
    rings: RingsSection = RingsSection()
    overlay: OverlaySection = OverlaySection()
    groups: GroupsSection = GroupsSection()
    security: SecuritySection = SecuritySection()
    membership: MembershipConfig = MembershipConfig()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()

    @property
    def lanes(self) -> int:
        """Return the number of lanes: 1, 2 and 4 workers are one lane."""
        return max(1, self.workers.count // 4)


Origins: TypeAlias = Mapping[str, str]
"""`section.key` → origin of its value, as `config show --origin` prints it."""

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "node.name": "--name",
        "node.listen": "--listen",
        "node.peers": "--peer",
        "node.key": "--key",
        "node.insecure": "--insecure",
        "tun.interface": "--tun",
        "tun.addresses": "--address",
        "workers.count": "--workers",
        "overlay.engine": "--overlay",
        "metrics.listen": "--metrics",
    }
)
"""Flags of `launch` by the key that they set."""

_SHORT_ENV = {
    "NAME": "node.name",
    "LISTEN": "node.listen",
    "PEERS": "node.peers",
    "KEY": "node.key",
    "INSECURE": "node.insecure",
    "TUN": "tun.interface",
    "ADDRESSES": "tun.addresses",
    "WORKERS": "workers.count",
    "OVERLAY": "overlay.engine",
    "METRICS": "metrics.listen",
}
_OTHER_ENV = frozenset({"CONFIG", "DEBUG"})  # read by the command line

_SECTIONS: dict[str, type[_Section]] = {f.name: f.type for f in msgspec.structs.fields(Config)}
_FIELDS = {
    f"{section}.{field.name}": field for section, kind in _SECTIONS.items() for field in msgspec.structs.fields(kind)
}


class _Setting(msgspec.Struct, frozen=True):
    """An unchecked value with its origin."""

    value: object
    origin: str  # "flag --workers", "environment MCAST_PIPELINE_NAME", "file PATH", "default"
    rank: int  # 0 flag, 1 environment, 2 file, 3 default
    base: Path | None = None  # of a file: the directory to which its paths are relative

    def error(self, key: str, why: str) -> PipelineError:
        """Return the error for a value that cannot be used."""
        if self.rank == 0:
            return UsageError(f"{self.origin.removeprefix('flag ')} {_show(self.value)}: {why}")
        if self.rank == 1:
            return ConfigError(f"{self.origin.removeprefix('environment ')}={self.value}: {why}")
        if self.rank == 2:
            return ConfigError(f"{self.origin.removeprefix('file ')}: {key} = {_show(self.value)}: {why}")
        return ConfigError(f"{key}: {why}")


# ---------------------------------------------------------------- loading, in the order of the steps


def load(flags: Mapping[str, object], env: Mapping[str, str], path: Path | None, *, require_key: bool = True) -> Config:
    """Return the effective configuration.

    `flags` maps keys ("workers.count") to the values on the command line: text, a sequence of texts, or True.  None and
    an empty sequence stand for flags that are absent.  `path` is the TOML file, if any.  With `require_key` one of
    `node.key` and `node.insecure` must be set, as for launch.
    """
    return load_with_origins(flags, env, path, require_key=require_key)[0]


def load_with_origins(
    flags: Mapping[str, object], env: Mapping[str, str], path: Path | None, *, require_key: bool = True
) -> tuple[Config, Origins]:
    """Return the effective configuration and the origin of each value; arguments as in `load`."""
    settings = _from_file(path) | _from_environment(env) | _from_flags(flags)
    for key, field in _FIELDS.items():
        if key not in settings:
            settings[key] = _Setting(os.uname().nodename if key == "node.name" else _default(field), "default", 3)
    values = {key: _check(key, settings[key]) for key in _FIELDS}
    _settle_key(values, settings)
    _check_together(values, settings)
    if require_key and not values["node.key"] and not values["node.insecure"]:
        raise ConfigError(f"no network key: give {KEY_FLAGS}")
    sections: dict[str, Any] = {
        section: kind(**{f.name: values[f"{section}.{f.name}"] for f in msgspec.structs.fields(kind)})
        for section, kind in _SECTIONS.items()
    }
    return Config(**sections), {key: settings[key].origin for key in _FIELDS}


def _from_flags(flags: Mapping[str, object]) -> dict[str, _Setting]:
    return {
        key: _Setting(value, f"flag {FLAGS[key]}", 0)
        for key, value in flags.items()
        if value is not None and value is not False and value != ()
    }


def _from_environment(env: Mapping[str, str]) -> dict[str, _Setting]:
    """Return the values of MCAST_PIPELINE_…; the long name of a key wins over its short one."""
    known = {key.replace(".", "_").upper(): key for key in _FIELDS if key != "overlay.options"}
    found: dict[str, _Setting] = {}
    for names in (_SHORT_ENV, known):
        for name, key in names.items():
            variable = ENV_PREFIX + name
            if variable in env:
                found[key] = _Setting(env[variable], f"environment {variable}", 1)
    for variable in sorted(env):
        name = variable.removeprefix(ENV_PREFIX)
        if name != variable and name not in known and name not in _SHORT_ENV and name not in _OTHER_ENV:
            hint = suggest_nearest(name, [*known, *_SHORT_ENV, *_OTHER_ENV], ENV_PREFIX)
            raise ConfigError(f"{variable}: no such setting{hint}")
    return found


def _from_file(path: Path | None) -> dict[str, _Setting]:
    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    found: dict[str, _Setting] = {}
    for section, table in document.items():
        if section not in _SECTIONS:
            raise ConfigError(f"{path}: {section}: no such section{suggest_nearest(section, list(_SECTIONS))}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {section}: must be a table, [{section}]")
        if section == "overlay":
            table = _split_options(table)  # noqa: PLW2901
        keys = [field.name for field in msgspec.structs.fields(_SECTIONS[section])]
        for name, value in table.items():
            if name not in keys:
                raise ConfigError(f"{path}: {section}.{name}: no such key{suggest_nearest(name, keys, section + '.')}")
            found[f"{section}.{name}"] = _Setting(value, f"file {path}", 2, path.parent)
    return found


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _split_options(table: dict[str, Any]) -> dict[str, Any]:
    """Collect the tables [overlay.NAME], the options of engine NAME, which only that engine can check."""
    options = {name: value for name, value in table.items() if isinstance(value, dict)}
    rest = {name: value for name, value in table.items() if name not in options}
    return rest | ({"options": options} if options else {})


def _check(key: str, setting: _Setting) -> Any:
    """Return a value in its type and canonical form; an error if it is out of its bounds."""
    value = setting.value
    if isinstance(value, str) and get_origin(_FIELDS[key].type) is tuple:
        value = tuple(filter(None, (part.strip() for part in value.split(","))))
    try:
        value = msgspec.convert(value, _FIELDS[key].type, strict=setting.rank >= 2)
    except msgspec.ValidationError as error:
        raise setting.error(key, describe_expected(_FIELDS[key].type, error)) from error
    if key in FILE_KEYS and value is not None and setting.base is not None:
        value = str(setting.base / value)
    check = CHECKS.get(key)
    if check is None or value is None:
        return value
    try:
        return check(value)
    except ValueError as error:
        why = str(error)
        if key == "node.name" and setting.rank == 3:
            why = f"the host name {value!r} is not usable as the node's name ({why}): give --name"
        raise setting.error(key, why) from error


def _settle_key(values: dict[str, Any], settings: Mapping[str, _Setting]) -> None:
    """Keep `node.key` or `node.insecure`, the one of the stronger origin; both of one origin are an error."""
    if not (values["node.key"] and values["node.insecure"]):
        return
    key, insecure = settings["node.key"], settings["node.insecure"]
    if key.rank == insecure.rank:
        raise key.error("node.key", "contradicts --insecure (node.insecure): give one of the two")
    if key.rank < insecure.rank:
        values["node.insecure"] = False
    else:
        values["node.key"] = None


def _check_together(values: Mapping[str, Any], settings: Mapping[str, _Setting]) -> None:
    """Check the rules for two keys together."""
    response, interval = values["membership.query_response_interval_s"], values["membership.query_interval_s"]
    if response >= interval:  # RFC 9776 §8.3, RFC 9777 §9.3
        keys = ("membership.query_response_interval_s", "membership.query_interval_s")
        key = min(keys, key=lambda key: settings[key].rank)
        why = f"query_response_interval_s ({response:g}) must be less than query_interval_s ({interval:g})"
        raise settings[key].error(key, why)
    cpus = values["workers.affinity"]
    if len(cpus) not in (0, 1, values["workers.count"]):
        why = f"name one CPU for all workers or one for each of the {values['workers.count']}"
        raise settings["workers.affinity"].error("workers.affinity", why)


# ---------------------------------------------------------------- texts of errors

_TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "int | float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
    "str | null": "text",
    "float | null": "a number",
    "int | null": "a whole number",
    "int | str": "a whole number or text",
}


def suggest_nearest(word: str, known: list[str], prefix: str = "") -> str:
    """Return “ (did you mean crew_size?)” for an unknown word, or nothing if no word is known."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
    return f" (did you mean {prefix}{found[0]}?)" if found else ""


def describe_expected(kind: Any, error: msgspec.ValidationError) -> str:
    """Return the text for a value of the wrong type: “expected a whole number, got text”."""
    return _choices(kind) or _translate(str(error))


def _choices(kind: Any) -> str:
    """Return “expected one of: adaptive, busy, sleep” for a type with literal words; empty for any other."""
    parts = [kind] if get_origin(kind) is Literal else get_args(kind)
    if not any(get_origin(part) is Literal for part in parts):
        return ""
    words = [word for part in parts for word in (get_args(part) if get_origin(part) is Literal else ["a whole number"])]
    return f"expected one of: {', '.join(words)}"


def _translate(message: str) -> str:
    """Translate msgspec's message for users: "Expected `int`, got `str`" → "expected a whole number, got text"."""
    for name, words in _TYPE_NAMES.items():
        message = message.replace(f"`{name}`", words)
    return (message[:1].lower() + message[1:]).replace("`", "").replace(" - at $", " at ")


def _show(value: object) -> str:
    """Return the text of a value; of a long list its beginning, as the reason names the wrong item."""
    if not isinstance(value, (list, tuple)):
        return str(value)
    rest = f", … ({len(value)} in all)" if len(value) > SHOWN_ITEMS_MAX else ""
    return ", ".join(map(str, value[:SHOWN_ITEMS_MAX])) + rest
