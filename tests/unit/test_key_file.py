"""Key files.  Goal: network keys are private and checked, and derived keys follow RFC 5869.

Method: files in a temporary directory; the derivation written out in the test.
"""

import base64
import hashlib
import hmac
import os
import re
import threading

import pytest

from pipeline.errors import ConfigError, PipelineError
from pipeline.keys import file as key_file


def test_new_key_is_private_and_random(tmp_path):
    """Goal: a new file has mode 0600 and 32 random bytes.  Method: two keys with a umask of 0."""
    old = os.umask(0)
    try:
        for name in "ab":
            key_file.write_network_key(tmp_path / name)
    finally:
        os.umask(old)
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o600 for name in "ab")
    a, b = (key_file.load_network_key(tmp_path / name) for name in "ab")
    assert len(a) == len(b) == 32 and a != b


def test_existing_file_is_not_overwritten(tmp_path):
    """Goal: a key in use cannot be lost by mistake.  Method: write twice, and through a dangling link."""
    path, link = tmp_path / "net.key", tmp_path / "link"
    key_file.write_network_key(path)
    before = path.read_bytes()
    link.symlink_to(tmp_path / "elsewhere")
    for target in (path, link):
        with pytest.raises(PipelineError, match=re.escape(str(target))):
            key_file.write_network_key(target)
    assert path.read_bytes() == before and not (tmp_path / "elsewhere").exists()


def test_one_of_concurrent_writers_succeeds(tmp_path):
    """Goal: creation is atomic.  Method: eight threads at once make one key, and seven errors."""
    outcomes = []

    def write():
        try:
            key_file.write_network_key(tmp_path / "net.key")
            outcomes.append("written")
        except PipelineError:
            outcomes.append("refused")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["written"]
    assert len(key_file.load_network_key(tmp_path / "net.key")) == 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_key_readable_by_others_is_refused(tmp_path, mode):
    """Goal: the error has the path and the command that corrects the mode.  Method: modes with a right of others."""
    path = tmp_path / "net.key"
    key_file.write_network_key(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=re.escape(f"chmod 600 {path}")):
        key_file.load_network_key(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"# only a comment\n", b"short\n", b"\xff\xfe\n", base64.b64encode(bytes(31)) + b"\n", b"A" * 100_000],
)
def test_malformed_key_file_is_refused(tmp_path, content):
    """Goal: the error is a ConfigError with the path.  Method: files without a key."""
    path = tmp_path / "net.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        key_file.load_network_key(path)


def test_missing_file_and_directory_are_refused(tmp_path):
    """Goal: the error names the command that makes a key file.  Method: no file; a directory."""
    with pytest.raises(ConfigError, match="pipeline keygen"):
        key_file.load_network_key(tmp_path / "none.key")
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        key_file.load_network_key(tmp_path)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", ["fifo", "device", "empty", "huge", "loop"])
def test_special_file_is_refused_without_delay(tmp_path, kind):
    """Goal: no path makes a node wait, read without end, or end with a traceback.
    Method: a FIFO without a writer, an endless device, an empty and a huge file, a link to itself."""
    path = tmp_path / "net.key"
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.touch(mode=0o600)
        os.truncate(path, 0 if kind == "empty" else 1 << 40)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        key_file.load_network_key(path)


def test_first_key_is_the_active_one(tmp_path):
    """Goal: a file can have a second key.  Method: a file with two keys and comments between them."""
    first, second = bytes(range(32)), bytes(range(32, 64))
    path = tmp_path / "net.key"
    path.write_bytes(b"# new\n" + base64.b64encode(first) + b"\n\n# old\n" + base64.b64encode(second) + b"\n")
    path.chmod(0o600)
    assert key_file.load_network_keys(path) == [first, second]
    assert key_file.load_network_key(path) == first


def test_derivation_is_hkdf_sha256():
    """Goal: the derivation is that of RFC 5869.  Method: its two steps, for lengths around the block size."""
    key = bytes(range(32))
    pseudorandom = hmac.digest(bytes(32), key, hashlib.sha256)
    info = b"mcast-pipeline/control"
    t1 = hmac.digest(pseudorandom, info + b"\x01", hashlib.sha256)
    t2 = hmac.digest(pseudorandom, t1 + info + b"\x02", hashlib.sha256)
    for length in (1, 31, 32, 33, 64):
        assert key_file.derive(key, "control", length) == (t1 + t2)[:length]
    assert key_file.derive(key, "control") != key_file.derive(key, "data")
    for length in (0, 255 * 32 + 1):
        with pytest.raises(ValueError, match="HKDF"):
            key_file.derive(key, "control", length)
