"""Checked configuration of a command, from flags and files, and its text for `config show`.

Four checks are here because config.py cannot make them: the engine exists, the CPUs exist, the key file is usable, and
the certificate is for this node.  A node without configured addresses takes those of its certificate.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config, Origins, load_with_origins
from pipeline.errors import ConfigError, UsageError
from pipeline.keys import file as key_file
from pipeline.terminal import printable


def effective(flags: Mapping[str, object], file: str | None, *, launching: bool = False) -> tuple[Config, Origins]:
    """Return the configuration and the origin of each value; with `launching` a key (or --insecure) is required."""
    settings, origins = load_with_origins(flags, os.environ, Path(file) if file else None, require_key=launching)
    _check_engine(settings, origins)
    _check_cpus(settings, origins)
    if settings.node.key:
        key_file.load_network_key(Path(settings.node.key))
    return _with_certificate(settings, origins)


def _with_certificate(settings: Config, origins: Origins) -> tuple[Config, Origins]:
    from pipeline.io import credentials

    certificate = credentials.load(settings).certificate
    if certificate is None or settings.tun.addresses or not certificate.addresses:
        return settings, origins
    tun = msgspec.structs.replace(settings.tun, addresses=credentials.addresses_of(certificate))
    origin = f"certificate {credentials.certificate_path(settings)}"
    return msgspec.structs.replace(settings, tun=tun), {**origins, "tun.addresses": origin}


def _check_engine(settings: Config, origins: Origins) -> None:
    from pipeline.engines import load, names
    from pipeline.engines.api import EngineContext

    try:
        load(settings.overlay.engine)
    except ConfigError as error:
        origin = origins["overlay.engine"]
        if origin.startswith("flag "):
            raise UsageError(f"{origin.removeprefix('flag ')} {settings.overlay.engine}: {error}") from error
        raise ConfigError(f"{origin.removeprefix('file ')}: overlay.engine: {error}") from error
    for engine, options in settings.overlay.options.items():
        where = origins["overlay.options"].removeprefix("file ")
        if engine not in names():
            raise ConfigError(f"{where}: [overlay.{engine}]: no such engine; there are {', '.join(names())}")
        try:  # only the engine knows its options, so it reads them
            load(engine)(EngineContext(node_id=1, random=lambda: 0.0, options=options), 0.0)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error


def _check_cpus(settings: Config, origins: Origins) -> None:
    from pipeline.io.process import absent_cpus

    absent = absent_cpus(settings.workers.affinity)
    if absent:
        where = origins["workers.affinity"].removeprefix("file ")
        raise ConfigError(f"{where}: workers.affinity: no CPU {', '.join(map(str, absent))} here; lscpu lists them")


def jsonable(settings: Config, origins: Origins | None) -> dict[str, Any]:
    """Return sections of keys; with origins each key is an object of `value` and `origin`."""
    plain: dict[str, dict[str, Any]] = msgspec.to_builtins(settings)
    if origins is None:
        return plain
    return {
        section: {key: {"value": value, "origin": origins[f"{section}.{key}"]} for key, value in table.items()}
        for section, table in plain.items()
    }


def as_toml(settings: Config, origins: Origins | None) -> str:
    """Return a TOML file that gives the same configuration; keys without a value are comments."""
    lines: list[str] = []
    tables: dict[str, dict[str, Any]] = msgspec.to_builtins(settings)
    options = tables["overlay"].pop("options")
    for section, table in tables.items():
        lines += ["", f"[{section}]"]
        for key, value in table.items():
            text = f"# {key} =" if value is None else f"{key} = {_toml(value)}"
            lines.append(f"{text:<48}  # {printable(origins[f'{section}.{key}'])}" if origins else text)
    for engine, table in options.items():
        lines += ["", f"[overlay.{engine}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines[1:]) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    text = msgspec.json.encode(value).decode()  # strings and numbers have the same form in JSON and TOML
    return "".join(character if character.isprintable() else f"\\U{ord(character):08x}" for character in text)
