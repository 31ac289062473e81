"""The configuration.  Goal: values have the right precedence, and every mistake is an error of one useful line.

Method: load() with flags, environment and files that the tests make.
"""

import itertools
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from pipeline.config import FLAGS, Config, MembershipConfig, load, load_with_origins
from pipeline.engines.nemo.options import Options
from pipeline.engines.nemo.options import read as read_options
from pipeline.errors import ConfigError, UsageError

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "configs/pipeline.toml"


def load_config(flags=None, env=None, toml=None, tmp_path=None):
    path = None
    if toml is not None:
        path = tmp_path / "p.toml"
        path.write_text(toml)
    return load(flags or {}, env or {}, path, require_key=False)


# ---------------------------------------------------------------- precedence and origins


def test_defaults_apply_without_input():
    """Goal: the defaults are the documented ones.  Method: load without flags, environment and file."""
    config = load_config()
    assert config.node.name and config.node.listen == "0.0.0.0:4747" and config.tun.interface == "mcast0"
    assert config.workers.count == 4 and config.lanes == 1 and config.overlay.engine == "mesh"
    assert config.membership == MembershipConfig()
    assert set(config.tun.routes) == {"224.0.0.0/4", "ff00::/8"}


def test_flags_win_over_environment_over_file_over_defaults(tmp_path):
    """Goal: the strongest origin of a value wins.  Method: remove the strongest one, one at a time."""
    toml = "[workers]\ncount = 8\n"
    env = {"MCAST_PIPELINE_WORKERS": "2"}
    assert load_config({"workers.count": "12"}, env, toml, tmp_path).workers.count == 12
    assert load_config({}, env, toml, tmp_path).workers.count == 2
    assert load_config({}, {}, toml, tmp_path).workers.count == 8
    assert load_config({}, {}, "", tmp_path).workers.count == 4


def test_origins_name_flag_variable_and_file(tmp_path):
    """Goal: `config show --origin` can show where a value comes from.  Method: one value of each origin."""
    path = tmp_path / "p.toml"
    path.write_text("[tun]\nmtu = 1400\n")
    _, origins = load_with_origins({"node.name": "a"}, {"MCAST_PIPELINE_LOG_LEVEL": "debug"}, path, require_key=False)
    assert origins["node.name"] == "flag --name"
    assert origins["log.level"] == "environment MCAST_PIPELINE_LOG_LEVEL"
    assert origins["tun.mtu"] == f"file {path}"
    assert origins["workers.count"] == "default"


def test_long_environment_name_wins_over_short():
    """Goal: a key with two variables has one value.  Method: set both."""
    env = {"MCAST_PIPELINE_NAME": "short", "MCAST_PIPELINE_NODE_NAME": "long"}
    assert load_config(env=env).node.name == "long"


def test_environment_texts_are_converted():
    """Goal: texts become numbers, booleans and lists.  Method: one variable of each type."""
    config = load_config(
        env={
            "MCAST_PIPELINE_PEERS": "192.0.2.1:4747, [2001:db8::1]:5000,192.0.2.9",
            "MCAST_PIPELINE_INSECURE": "true",
            "MCAST_PIPELINE_MEMBERSHIP_LAST_MEMBER_QUERY_INTERVAL_S": "0.25",
            "MCAST_PIPELINE_TUN_MTU": "1400",
            "MCAST_PIPELINE_WORKERS_AFFINITY": "0,1,2,3",
        }
    )
    assert config.node.peers == ("192.0.2.1:4747", "[2001:db8::1]:5000", "192.0.2.9:4747")
    assert config.node.insecure and config.tun.mtu == 1400 and config.workers.affinity == (0, 1, 2, 3)
    assert config.membership.last_member_query_interval_s == 0.25


def test_absent_flags_override_nothing(tmp_path):
    """Goal: a flag that is absent leaves the value of the file.  Method: None, False and () with a file."""
    flags = {"workers.count": None, "node.insecure": False, "node.peers": ()}
    config = load_config(flags, {}, '[node]\ninsecure = true\npeers = ["192.0.2.1"]\n[workers]\ncount = 1\n', tmp_path)
    assert config.node.insecure and config.workers.count == 1 and config.node.peers == ("192.0.2.1:4747",)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[membership]\nrobustness = 0\n", ["membership.robustness", "0"]),
        (
            "[membership]\nquery_interval_s = 10\nquery_response_interval_s = 10.0\n",
            ["query_response_interval_s", "query_interval_s"],
        ),
        ("[membership]\nquery_interval_s = 9\n", ["membership.query_interval_s", "less than"]),
        ("[membership]\nrobustness = 101\n", ["membership.robustness", "1 … 100"]),
        ("[membership]\nigmp_version = 4\n", ["membership.igmp_version"]),
        ('[membership]\nquerier_address = "2001:db8::1"\n', ["link-local"]),
        ("[tun]\nmtu = 100\n", ["tun.mtu", "1280"]),
        ('[tun]\nmtu = "large"\n', ["tun.mtu", "large", "a whole number, auto"]),
        ('[tun]\nroutes = ["10.0.0.0/8"]\n', ["tun.routes", "10.0.0.0/8"]),
        ('[tun]\nroutes = ["239.0.0.1/8"]\n', ["tun.routes", "host bits"]),
        ('[tun]\naddresses = ["fd77::1%eth0/64"]\n', ["tun.addresses", "fd77::1%eth0/64", "scope id"]),
        ('[tun]\nroutes = ["ff15::%eth0/32"]\n', ["tun.routes", "scope id"]),
        ('[groups]\nsend_allow = ["ff15::1%eth0"]\n', ["groups.send_allow", "scope id"]),
        ('[tun]\ninterface = "averylonginterface"\n', ["tun.interface"]),
        ("[workers]\ncount = 3\n", ["workers.count", "3"]),
        ('[workers]\ncount = "4"\n', ["workers.count", "whole number"]),
        ('[workers]\nidle = "lazy"\n', ["workers.idle", "lazy", "adaptive, busy, sleep"]),
        ("[workers]\naffinity = [0, 1]\n", ["workers.affinity", "each of the 4"]),
        ("[rings]\nhost_slots = 1000\n", ["rings.host_slots", "power of two"]),
        ("[wrokers]\ncount = 4\n", ["wrokers", "did you mean workers?"]),
        ("[tun]\ninterfaec = 'a'\n", ["tun.interfaec", "did you mean tun.interface?"]),
        ("workers = 4\n", ["workers", "table"]),
        ("[node\n", ["not TOML", "line 1"]),
        ('[overlay]\nengine = "Mesh!"\n', ["overlay.engine"]),
        ('[overlay]\nprefixes = ["10.88.0.1/16"]\n', ["overlay.prefixes", "10.88.0.1/16", "host bits"]),
        ('[overlay]\nprefixes = ["0.0.0.0/0"]\n', ["overlay.prefixes", "0.0.0.0/0", "loopback"]),
        ('[overlay]\nprefixes = ["fe80::/64"]\n', ["overlay.prefixes", "fe80::/64", "link-local"]),
        ('[overlay]\nprefixes = ["::ffff:10.0.0.0/104"]\n', ["overlay.prefixes", "reserved"]),
        ('[overlay]\nprefixes = ["fd88::%eth0/64"]\n', ["overlay.prefixes", "scope id"]),
        ('[security]\nunicast = "some"\n', ["security.unicast", "some", "all, discovery, none"]),
        ('[security]\nunicast_ports = ["80", "90-89"]\n', ["security.unicast_ports", "90-89", "1 … 65535"]),
        ('[security]\nunicast_ports = ["0"]\n', ["security.unicast_ports", "1 … 65535"]),
        ('[security]\nunicast_ports = ["1-65536"]\n', ["security.unicast_ports", "1-65536"]),
        ('[security]\nunicast_ports = ["http"]\n', ["security.unicast_ports", "http", "neither a port"]),
        ('[security]\nunicast_ports = ["1-2-3"]\n', ["security.unicast_ports", "1-2-3"]),
        ("[security]\nunicast_ports = [80]\n", ["security.unicast_ports", "text"]),
        ('[tun]\naddresses = ["169.254.1.1/16"]\n', ["tun.addresses", "169.254.1.1/16", "link-local"]),
        ('[node]\nlisten = "192.0.2.1:70000"\n', ["node.listen", "70000"]),
        ('[node]\nlisten = "[fe80::1%eth0]:4747"\n', ["node.listen", "fe80::1%eth0", "one link only"]),
        ('[node]\npeers = ["192.0.2.1", "fe80::1"]\n', ["node.peers", "fe80::1", "global or unique local"]),
        ('[node]\npeers = ["[fe80::1%eth0]:4747"]\n', ["node.peers", "fe80::1%eth0", "one link only"]),
        ('[node]\npeers = ["[2001:db8::1%eth0]:4747"]\n', ["node.peers", "2001:db8::1%eth0"]),
        (f"[node]\npeers = {[f'192.0.2.{i}' for i in range(65)]}\n", ["node.peers", "65 peers", "64 are the limit"]),
    ],
)
def test_mistake_in_a_file_names_path_and_key(tmp_path, toml, words):
    """Goal: the error is one line with path and key.  Method: files with one mistake each."""
    with pytest.raises(ConfigError) as caught:
        load_config({}, {}, toml, tmp_path)
    text = str(caught.value)
    assert "\n" not in text and str(tmp_path / "p.toml") in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("workers.count", "3"),
        ("workers.count", "0"),
        ("workers.count", "-4"),
        ("workers.count", "x"),
        ("workers.count", "68"),
        ("node.name", "a b"),
        ("node.name", "../etc"),
        ("node.name", "n" * 64),
        ("node.listen", "localhost:4747"),
        ("node.listen", "192.0.2.1:0"),
        ("node.listen", "192.0.2.1:port"),
        ("node.listen", "239.1.1.1:4747"),
        ("node.peers", ("192.0.2.1:4747", "0.0.0.0:4747")),
        ("node.peers", ("[2001:db8::1:4747",)),
        ("node.peers", (*(f"192.0.2.{i}" for i in range(20)), "192.0.2.21:99999")),
        ("tun.addresses", ("10.77.0.1",)),
        ("tun.addresses", ("239.0.0.1/8",)),
        ("tun.addresses", ("10.77.0.1/16", "10.78.0.1/16")),
        ("tun.interface", "a/b"),
        ("metrics.listen", "9477:x"),
    ],
)
def test_bad_flag_value_names_flag_and_value(key, value):
    """Goal: the error is a usage error with flag and value.  Method: bad values of each flag."""
    with pytest.raises(UsageError) as caught:
        load_config({key: value})
    shown = value if isinstance(value, str) else value[-1]
    assert FLAGS[key] in str(caught.value) and shown in str(caught.value)


def test_unknown_environment_variable_is_refused():
    """Goal: a misspelt variable is reported with the nearest known one.  Method: leave out a letter."""
    with pytest.raises(ConfigError, match="did you mean MCAST_PIPELINE_WORKERS"):
        load_config(env={"MCAST_PIPELINE_WORKRS": "4"})
    load_config(env={"MCAST_PIPELINE_DEBUG": "1", "OTHER": "x"})


def test_bad_environment_value_names_the_variable():
    """Goal: the error is a ConfigError with the variable.  Method: a bad number of workers."""
    with pytest.raises(ConfigError, match="MCAST_PIPELINE_WORKERS=3"):
        load_config(env={"MCAST_PIPELINE_WORKERS": "3"})


def test_missing_file_names_the_path(tmp_path):
    """Goal: the error has the path.  Method: a missing file, and a directory."""
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            load({}, {}, path, require_key=False)


# ---------------------------------------------------------------- key or --insecure


def test_launch_requires_a_key_or_insecure():
    """Goal: the error names both ways to go on.  Method: load as launch does."""
    with pytest.raises(ConfigError, match=r"--key.*--insecure"):
        load({}, {}, None)
    assert load({"node.insecure": True}, {}, None).node.insecure


def test_stronger_origin_decides_between_key_and_insecure(tmp_path):
    """Goal: --insecure overrides a key in the file, and --key the other; both of one origin are an error."""
    key, insecure = '[node]\nkey = "k"\n', "[node]\ninsecure = true\n"
    assert load_config({"node.insecure": True}, {}, key, tmp_path).node.key is None
    assert load_config({"node.key": "k"}, {}, insecure, tmp_path).node.insecure is False
    with pytest.raises(ConfigError, match="contradicts"):
        load_config({}, {}, key + "insecure = true\n", tmp_path)
    with pytest.raises(UsageError, match="contradicts"):
        load_config({"node.key": "k", "node.insecure": True})


def test_key_path_is_relative_to_the_file(tmp_path):
    """Goal: a file works from any directory.  Method: a relative path in a file, and one of a flag."""
    assert load_config({}, {}, '[node]\nkey = "net.key"\n', tmp_path).node.key == str(tmp_path / "net.key")
    assert load_config({"node.key": "net.key"}).node.key == "net.key"


# ---------------------------------------------------------------- the sample file


def test_sample_file_has_the_defaults():
    """Goal: configs/pipeline.toml documents the real defaults.  Method: load it, and compare."""
    sample = load({"node.name": "a"}, {}, SAMPLE, require_key=False)
    assert sample == load({"node.name": "a"}, {}, None, require_key=False)


def test_sample_file_has_a_comment_for_every_key():
    """Goal: every key is in the sample file, with a comment.  Method: compare the keys of the structs with the file, in
    which commented-out keys are enabled."""
    text = SAMPLE.read_text()
    lines = text.splitlines()
    enabled = [re.sub(r"^# (?=[a-z0-9_]+ = )", "", line) for line in lines]
    tables = tomllib.loads("\n".join(enabled))
    expected = {
        section.name: {field.name for field in msgspec.structs.fields(section.type)} - {"options"}
        for section in msgspec.structs.fields(Config)
    }
    assert {name: set(table) for name, table in tables.items()} == expected
    commented = {"mld_version"}  # shares the comment of the key above it
    for before, line in itertools.pairwise(enabled):
        key = re.match(r"([a-z0-9_]+) = ", line)
        assert not key or before.startswith("# ") or key[1] in commented, line


def test_sample_file_has_every_option_of_nemo():
    """Goal: the commented table has all options with their defaults.  Method: enable it and read it."""
    lines = [line.removeprefix("#   ") for line in SAMPLE.read_text().splitlines() if line.startswith("#   ")]
    options = tomllib.loads("\n".join(lines))["overlay"]["nemo"]
    assert read_options(options) == Options()
    assert set(options) == {field.name for field in msgspec.structs.fields(Options)}


def test_engine_options_are_passed_unchecked(tmp_path):
    """Goal: only the engine checks [overlay.NAME].  Method: a table of an unknown engine, and a key that is not a
    table."""
    config = load_config({}, {}, '[overlay]\nengine = "tree"\n[overlay.tree]\nfanout = 4\n', tmp_path)
    assert config.overlay.options == {"tree": {"fanout": 4}}
    with pytest.raises(ConfigError, match=r"overlay\.engin"):
        load_config({}, {}, '[overlay]\nengin = "tree"\n', tmp_path)


def test_config_can_be_encoded_and_decoded():
    """Goal: the object can be sent to another process.  Method: msgpack and back."""
    config = load_config({"node.peers": ("192.0.2.1",)})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=Config) == config
