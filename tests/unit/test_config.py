"""Goal: one effective configuration with the right precedence, and one good line for every mistake.  Method: load()
on flags, environment and files given as values."""

import itertools
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from pipeline.config import FLAGS, Config, MembershipConfig, load, load_with_origins
from pipeline.engines.nemo.options import Options
from pipeline.engines.nemo.options import read as read_parameters
from pipeline.errors import ConfigError, UsageError

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "configs/pipeline.toml"


def loaded(flags=None, env=None, toml=None, tmp_path=None):
    path = None
    if toml is not None:
        path = tmp_path / "p.toml"
        path.write_text(toml)
    return load(flags or {}, env or {}, path, require_key=False)


# ---------------------------------------------------------------- precedence and origins


def test_defaults_need_no_input():
    """Goal: defaults are those of the contract.  Method: load nothing."""
    config = loaded()
    assert config.node.name and config.node.listen == "0.0.0.0:4747" and config.tun.interface == "mcast0"
    assert config.workers.count == 4 and config.lanes == 1 and config.overlay.engine == "mesh"
    assert config.membership == MembershipConfig()
    assert set(config.tun.routes) == {"224.0.0.0/4", "ff00::/8"}


def test_precedence(tmp_path):
    """Goal: flags > environment > TOML > defaults.  Method: take the strongest source away, one at a time."""
    toml = "[workers]\ncount = 8\n"
    env = {"MCAST_PIPELINE_WORKERS": "2"}
    assert loaded({"workers.count": "12"}, env, toml, tmp_path).workers.count == 12
    assert loaded({}, env, toml, tmp_path).workers.count == 2
    assert loaded({}, {}, toml, tmp_path).workers.count == 8
    assert loaded({}, {}, "", tmp_path).workers.count == 4


def test_origins_name_the_source(tmp_path):
    """Goal: `config show --origin` can say which won.  Method: one value from each source."""
    path = tmp_path / "p.toml"
    path.write_text("[tun]\nmtu = 1400\n")
    _, origins = load_with_origins({"node.name": "a"}, {"MCAST_PIPELINE_LOG_LEVEL": "debug"}, path, require_key=False)
    assert origins["node.name"] == "flag --name"
    assert origins["log.level"] == "environment MCAST_PIPELINE_LOG_LEVEL"
    assert origins["tun.mtu"] == f"file {path}"
    assert origins["workers.count"] == "default"


def test_long_environment_name_wins_over_short():
    """Goal: a key has one value.  Method: both forms at once."""
    env = {"MCAST_PIPELINE_NAME": "short", "MCAST_PIPELINE_NODE_NAME": "long"}
    assert loaded(env=env).node.name == "long"


def test_environment_types():
    """Goal: text of the environment becomes numbers, booleans and lists.  Method: one of each."""
    config = loaded(
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


def test_unset_flags_do_not_count(tmp_path):
    """Goal: a flag that was not given hides nothing.  Method: None, False and () beside a file."""
    flags = {"workers.count": None, "node.insecure": False, "node.peers": ()}
    config = loaded(flags, {}, '[node]\ninsecure = true\npeers = ["192.0.2.1"]\n[workers]\ncount = 1\n', tmp_path)
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
        ('[node]\nlisten = "192.0.2.1:70000"\n', ["node.listen", "70000"]),
        ('[node]\nlisten = "[fe80::1%eth0]:4747"\n', ["node.listen", "fe80::1%eth0", "one link only"]),
        ('[node]\npeers = ["192.0.2.1", "fe80::1"]\n', ["node.peers", "fe80::1", "global or unique local"]),
        ('[node]\npeers = ["[2001:db8::1%eth0]:4747"]\n', ["node.peers", "2001:db8::1%eth0"]),
        (f"[node]\npeers = {[f'192.0.2.{i}' for i in range(65)]}\n", ["node.peers", "65 peers", "64 are the limit"]),
    ],
)
def test_mistakes_in_a_file(tmp_path, toml, words):
    """Goal: 78 and one line with the path and the key.  Method: files with one mistake each."""
    with pytest.raises(ConfigError) as caught:
        loaded({}, {}, toml, tmp_path)
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
def test_bad_flag_values(key, value):
    """Goal: 2 and one line that holds the flag and the value.  Method: bad values by flag."""
    with pytest.raises(UsageError) as caught:
        loaded({key: value})
    shown = value if isinstance(value, str) else value[-1]
    assert FLAGS[key] in str(caught.value) and shown in str(caught.value)


def test_unknown_environment_variable():
    """Goal: a misspelt variable is told, not ignored.  Method: one letter missing."""
    with pytest.raises(ConfigError, match="did you mean MCAST_PIPELINE_WORKERS"):
        loaded(env={"MCAST_PIPELINE_WORKRS": "4"})
    loaded(env={"MCAST_PIPELINE_DEBUG": "1", "OTHER": "x"})


def test_bad_environment_value():
    """Goal: the line names the variable, and the code is 78.  Method: a bad count."""
    with pytest.raises(ConfigError, match="MCAST_PIPELINE_WORKERS=3"):
        loaded(env={"MCAST_PIPELINE_WORKERS": "3"})


def test_missing_file(tmp_path):
    """Goal: the line names the path.  Method: a file that is not there, and a directory."""
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            load({}, {}, path, require_key=False)


# ---------------------------------------------------------------- key or --insecure


def test_launch_wants_a_key():
    """Goal: without both the line names both.  Method: launch's way of loading."""
    with pytest.raises(ConfigError, match=r"--key.*--insecure"):
        load({}, {}, None)
    assert load({"node.insecure": True}, {}, None).node.insecure


def test_stronger_source_settles_key_or_insecure(tmp_path):
    """Goal: --insecure overrides a key of the file, and the other way round; both in one place contradict."""
    key, insecure = '[node]\nkey = "k"\n', "[node]\ninsecure = true\n"
    assert loaded({"node.insecure": True}, {}, key, tmp_path).node.key is None
    assert loaded({"node.key": "k"}, {}, insecure, tmp_path).node.insecure is False
    with pytest.raises(ConfigError, match="contradicts"):
        loaded({}, {}, key + "insecure = true\n", tmp_path)
    with pytest.raises(UsageError, match="contradicts"):
        loaded({"node.key": "k", "node.insecure": True})


def test_key_path_counts_from_its_file(tmp_path):
    """Goal: a file works from any directory.  Method: a relative path in it; a flag's stays as it is."""
    assert loaded({}, {}, '[node]\nkey = "net.key"\n', tmp_path).node.key == str(tmp_path / "net.key")
    assert loaded({"node.key": "net.key"}).node.key == "net.key"


# ---------------------------------------------------------------- the sample file


def test_sample_file_is_valid_and_says_the_defaults():
    """Goal: configs/pipeline.toml is the truth.  Method: load it; all values are the defaults."""
    sample = load({"node.name": "a"}, {}, SAMPLE, require_key=False)
    assert sample == load({"node.name": "a"}, {}, None, require_key=False)


def test_sample_file_has_every_key_with_a_comment():
    """Goal: no key is missing in the sample or stands there without a comment.  Method: keys of the structs against
    the file with its commented-out keys switched on."""
    text = SAMPLE.read_text()
    lines = text.splitlines()
    switched_on = [re.sub(r"^# (?=[a-z0-9_]+ = )", "", line) for line in lines]
    tables = tomllib.loads("\n".join(switched_on))
    expected = {
        section.name: {field.name for field in msgspec.structs.fields(section.type)} - {"options"}
        for section in msgspec.structs.fields(Config)
    }
    assert {name: set(table) for name, table in tables.items()} == expected
    commented = {"mld_version"}  # shares the comment of the key above it
    for before, line in itertools.pairwise(switched_on):
        key = re.match(r"([a-z0-9_]+) = ", line)
        assert not key or before.startswith("# ") or key[1] in commented, line


def test_sample_file_has_every_option_of_nemo():
    """Goal: the commented table shows all options with their defaults.  Method: switch it on and read it."""
    lines = [line.removeprefix("#   ") for line in SAMPLE.read_text().splitlines() if line.startswith("#   ")]
    options = tomllib.loads("\n".join(lines))["overlay"]["nemo"]
    assert read_parameters(options) == Options()
    assert set(options) == {field.name for field in msgspec.structs.fields(Options)}


def test_engine_options(tmp_path):
    """Goal: [overlay.NAME] reaches the engine as it stands.  Method: one table, and an unknown key beside it."""
    config = loaded({}, {}, '[overlay]\nengine = "tree"\n[overlay.tree]\nfanout = 4\n', tmp_path)
    assert config.overlay.options == {"tree": {"fanout": 4}}
    with pytest.raises(ConfigError, match=r"overlay\.engin"):
        loaded({}, {}, '[overlay]\nengin = "tree"\n', tmp_path)


def test_config_crosses_processes():
    """Goal: the object can be handed to another process.  Method: msgpack and back."""
    config = loaded({"node.peers": ("192.0.2.1",)})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=Config) == config
