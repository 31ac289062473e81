"""VPNs of Debian, each as an encrypted tap overlay that carries multicast between the hosts of a laboratory.

Each is configured by its manual, and in the best way for one sender on host 1 where there is a choice: host 1 is the
hub where one is needed, the cipher is the fastest authenticated one of the version, compression is off, and the MTU
avoids fragments of outer packets. This module does not know the traffic.
"""

from __future__ import annotations

import abc
import base64
import hashlib
import re
from pathlib import Path
from typing import ClassVar

from perf.network import Network, write_private
from pipeline.lab.netns import Host
from pipeline.lab.programs import LabError, Process, require, wait_until

INTERFACE_TIMEOUT_S = 10.0


class Vpn(Network, abc.ABC):
    """Base class: one process on each host creates a tap interface, which then gets an address."""

    encrypted = True
    interface = "tap0"
    mtu = 1400

    def start(self) -> None:
        self.prepare()
        self.daemons: dict[str, Process] = {}
        for host in self.hosts:
            self.daemons[host.name] = host.spawn(self.command(host), label=self.title)
            wait_until(lambda host=host: self._has_interface(host), INTERFACE_TIMEOUT_S, f"{self.title} on {host}")  # type: ignore[misc]
            self.after_start(host)

    def prepare(self) -> None:
        """Write keys and configuration files into the lab's directory, which is deleted with the lab."""

    @abc.abstractmethod
    def command(self, host: Host) -> list[str]:
        """Return the command of one host; its process stays in the foreground."""

    def after_start(self, host: Host) -> None:
        self.set_address(host)

    def directory(self, host: Host) -> Path:
        """Return the directory for the files of one host."""
        path = self.lab.dir / f"{self.title}{host.index}"
        path.mkdir(exist_ok=True)
        return path

    def _has_interface(self, host: Host) -> bool:
        daemon = self.daemons[host.name]
        if not daemon.alive():
            raise LabError(f"{daemon.label} ended: {(daemon.log + daemon.output).strip()[-300:]}")
        return host.interface(self.interface) is not None


# ---------------------------------------------------------------- tinc


class Tinc(Vpn):
    """tinc 1.0 in switch mode; all hosts connect to host 1, which therefore broadcasts to each of them directly."""

    title = "tinc"
    programs = ("tincd", "openssl")

    def prepare(self) -> None:
        keys = {host.name: self.directory(host) / "rsa_key.priv" for host in self.hosts}
        entries = {}
        for host in self.hosts:
            host.run([require("openssl"), "genrsa", "-traditional", "-out", str(keys[host.name]), "2048"])
            public = host.run([require("openssl"), "rsa", "-in", str(keys[host.name]), "-RSAPublicKey_out"]).stdout
            lines = [f"Address = {host.underlay}", "Cipher = aes-128-cbc", "Digest = sha1", "Compression = 0"]
            entries[f"h{host.index}"] = "\n".join(lines) + "\n" + public
        for host in self.hosts:
            mode = [f"Name = h{host.index}", "Mode = switch", "DeviceType = tap", f"Interface = {self.interface}"]
            connect = [] if host.index == 1 else ["ConnectTo = h1"]
            address = [f"BindToAddress = {host.underlay}", "UDPRcvBuf = 4194304", "UDPSndBuf = 4194304"]
            write_private(self.directory(host) / "tinc.conf", "\n".join([*mode, *address, *connect]) + "\n")
            for name, text in entries.items():
                write_private(self.directory(host) / "hosts" / name, text)

    def command(self, host: Host) -> list[str]:
        pidfile = self.directory(host) / "pid"
        return [require("tincd"), "-D", "-d1", "-c", str(self.directory(host)), f"--pidfile={pidfile}"]


# ---------------------------------------------------------------- n2n


class N2n(Vpn):
    """n2n; multicast always goes through the supernode, which therefore runs on host 1, beside the sender.

    Version 1 (Debian 12) accepts an inner destination outside of the overlay's subnet, such as a group, only with -r.
    Later versions need -E for multicast, -f to stay in the foreground, and -A3 for AES.
    """

    title = "n2n"
    programs = ("edge", "supernode")
    port: ClassVar[int] = 7654

    def prepare(self) -> None:
        edge_help = self.sender.run([require("edge"), "-h"], check=False)
        self.is_version_1 = not re.search(r"^\s*-E\b|\[-E\]", edge_help.stdout + edge_help.stderr, re.MULTILINE)
        arguments = ["-l", str(self.port)]
        supernode_help = self.sender.run([require("supernode"), "-h"], check=False)
        if "-f" in (supernode_help.stdout + supernode_help.stderr):
            arguments.append("-f")
        self.sender.spawn([require("supernode"), *arguments], label="supernode")

    def command(self, host: Host) -> list[str]:
        flags = ["-r"] if self.is_version_1 else ["-f", "-E", "-A3"]
        mac = f"02:00:00:00:00:{host.index:02x}"
        where = ["-l", f"{self.sender.underlay}:{self.port}", "-M", str(self.mtu), "-m", mac]
        return [
            *(require("edge"), "-d", self.interface, "-a", self.address(host), "-s", "255.255.255.0"),
            *("-c", "perf", "-k", "a key of the measurement", *where, *flags),
        ]

    def after_start(self, host: Host) -> None:
        """Set MTU and route; n2n sets the address itself."""
        wait_until(lambda: self._has_address(host), INTERFACE_TIMEOUT_S, f"n2n on {host} has its address")
        host.run([require("ip"), "link", "set", self.interface, "mtu", str(self.mtu), "up"])
        host.run([require("ip"), "route", "add", "224.0.0.0/4", "dev", self.interface])

    def _has_address(self, host: Host) -> bool:
        return self.address(host) in host.run([require("ip"), "address", "show", "dev", self.interface]).stdout


# ---------------------------------------------------------------- fastd


class Fastd(Vpn):
    """fastd in tap mode, as a full mesh, with its default method salsa2012+umac."""

    title = "fastd"
    programs = ("fastd",)
    port: ClassVar[int] = 10000

    def prepare(self) -> None:
        keys = {}
        for host in self.hosts:
            output = host.run([require("fastd"), "--generate-key"]).stdout
            found = re.findall(r"^(?:Secret|Public): ([0-9a-f]{64})$", output, re.MULTILINE)
            keys[host.index] = (found[0], found[1])
        for host in self.hosts:
            lines = [
                "log level warn;",
                "mode tap;",
                f'interface "{self.interface}";',
                'method "salsa2012+umac";',
                f"mtu {self.mtu};",
                f"bind {host.underlay}:{self.port};",
                f'secret "{keys[host.index][0]}";',
            ]
            for other in self.hosts:
                if other is not host:
                    remote = f"remote {other.underlay}:{self.port};"
                    lines.append(f'peer "h{other.index}" {{ key "{keys[other.index][1]}"; {remote} }}')
            write_private(self.directory(host) / "fastd.conf", "\n".join(lines) + "\n")

    def command(self, host: Host) -> list[str]:
        return [require("fastd"), "--config", str(self.directory(host) / "fastd.conf")]


# ---------------------------------------------------------------- OpenVPN


class OpenVpn(Vpn):
    """OpenVPN in tap mode; host 1 is the server, which copies broadcasts to every client; AES-128-GCM."""

    title = "openvpn"
    programs = ("openvpn", "openssl")
    port: ClassVar[int] = 1194

    def prepare(self) -> None:
        self.fingerprints = {role: self._certificate(role) for role in ("server", "client")}

    def _certificate(self, role: str) -> str:
        """Create a self-signed certificate and return its fingerprint, by which the other side accepts it."""
        key, certificate = self.lab.dir / f"{role}.key", self.lab.dir / f"{role}.crt"
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        files = ["-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={role}"]
        self.sender.run([require("openssl"), "req", *kind, *files])
        der = self.sender.run([require("openssl"), "x509", "-in", str(certificate)]).stdout
        return _fingerprint(der)

    def command(self, host: Host) -> list[str]:
        role, other = ("server", "client") if host is self.sender else ("client", "server")
        common = [
            *(require("openvpn"), "--dev", self.interface, "--dev-type", "tap", "--proto", "udp", "--verb", "1"),
            *("--cert", str(self.lab.dir / f"{role}.crt"), "--key", str(self.lab.dir / f"{role}.key")),
            *("--peer-fingerprint", self.fingerprints[other], "--data-ciphers", "AES-128-GCM"),
            *("--tun-mtu", str(self.mtu), "--sndbuf", "4194304", "--rcvbuf", "4194304", "--txqueuelen", "1000"),
        ]
        if host is self.sender:
            server = ["--mode", "server", "--tls-server", "--dh", "none", "--duplicate-cn", "--client-to-client"]
            return [*common, *server, "--local", host.underlay, "--port", str(self.port), "--max-clients", "200"]
        client = ["--client", "--nobind", "--remote", self.sender.underlay, str(self.port)]
        return [*common, *client]


def _fingerprint(pem: str) -> str:
    """Return the SHA-256 of the DER form in the notation of OpenVPN."""
    body = "".join(line for line in pem.splitlines() if line and not line.startswith("-----"))
    return ":".join(f"{byte:02X}" for byte in hashlib.sha256(base64.b64decode(body)).digest())


ALL: tuple[type[Vpn], ...] = (Tinc, N2n, Fastd, OpenVpn)
