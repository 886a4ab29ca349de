"""A real etcd of one member on loopback, with etcdctl as the second pair of eyes.

It dies with the test process (PR_SET_PDEATHSIG through setpriv), even when that is killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREFIX = "/coreos.com/network"
PATIENCE_S = 60.0
_RESERVED: list[socket.socket] = []
PATIENT = ("--dial-timeout=60s", "--command-timeout=60s")


def free_port() -> int:
    """Reserve a TCP port that nobody listens at, for as long as this process lives.

    It is below those that the kernel gives away by itself, and an abstract socket of its name, of
    which a network has one, tells other tests that it is taken.
    """
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(first_of_kernel - 20_000, first_of_kernel), 20_000):
        reservation, probe = socket.socket(socket.AF_UNIX), socket.socket()
        try:
            reservation.bind(f"\0tests-port-{port}")
            probe.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
        else:
            _RESERVED.append(reservation)
            return port
        finally:
            probe.close()
    raise AssertionError("no port is free")


@dataclass
class EtcdServer:
    """One member; ``tls`` and ``flags`` are its own, ``client`` are etcdctl's for TLS.

    ``enter`` is a command that starts it and etcdctl elsewhere, where ``host`` is its address.
    """

    folder: Path
    tls: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    user: str = ""
    flags: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    enter: tuple[str, ...] = ()
    ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.ports[0]}"

    def start(self) -> None:
        peer = f"http://{self.host}:{self.ports[1]}"
        log = (self.folder / "etcd.log").open("ab")
        self.process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", *self.enter, "etcd", "--name", "one"),
                *("--data-dir", str(self.folder / "data"), "--unsafe-no-fsync"),
                *("--heartbeat-interval", "10", "--election-timeout", "100"),  # alone, it wins
                *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"one={peer}", *self.tls, *self.flags),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "ETCD_UNSUPPORTED_ARCH": os.uname().machine},
        )
        log.close()
        self._await_answer()

    def _await_answer(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._ctl("endpoint", "health").returncode:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "etcd.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "etcd.log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it as a power failure does; the data stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Let it accept connections and answer nobody."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # until the last of its threads has stopped

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _ctl(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        login = ("--user", self.user) if self.user else ()
        return subprocess.run(
            [*self.enter, "etcdctl", "--endpoints", self.url, *self.client, *login, *argv],
            env={**os.environ, "ETCDCTL_API": "3"},
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )

    def ctl(self, *argv: str, text: str = "") -> str:
        done = self._ctl(*PATIENT, *argv, text=text)
        assert done.returncode == 0, f"etcdctl {argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def configure(self, **conf: Any) -> None:
        self.put("config", json.dumps({"Network": "10.244.0.0/16", **conf}))

    def put(self, key: str, value: str, *argv: str) -> None:
        self.ctl("put", f"{PREFIX}/{key}", value, *argv)

    def put_long(self, key: str, value: str) -> None:
        """Put what may be too long for a command's line."""
        if value:
            self.ctl("put", f"{PREFIX}/{key}", text=value)
        else:
            self.put(key, value)

    def delete(self, key: str) -> None:
        self.ctl("del", f"{PREFIX}/{key}")

    def leases(self) -> dict[str, str]:
        """Values by the subnet's part of the key."""
        lines = self.ctl("get", "--prefix", f"{PREFIX}/subnets/").splitlines()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        return {key.rpartition("/")[2]: value for key, value in pairs}

    def record(self, key: str) -> dict[str, Any]:
        """A key's own record: version, mod_revision, lease."""
        found: dict[str, Any] = json.loads(self.ctl("get", "-w", "json", f"{PREFIX}/{key}"))
        record: dict[str, Any] = found["kvs"][0]
        return record

    def revision(self) -> int:
        found = json.loads(self.ctl("get", "-w", "json", "none"))
        return int(found["header"]["revision"])

    def seconds_to_live(self, key: str) -> tuple[int, int]:
        """What is left of a key's etcd lease, and what it was granted."""
        lease = format(int(self.record(key)["lease"]), "x")
        found = json.loads(self.ctl("lease", "timetolive", lease, "-w", "json"))
        return int(found["ttl"]), int(found["granted-ttl"])

    def granted(self) -> list[str]:
        """The numbers of all etcd leases that there are."""
        return self.ctl("lease", "list").split()[3:]

    def calls(self, method: str) -> int:
        """How often etcd says that it was called."""
        with urllib.request.urlopen(f"{self.url}/metrics") as page:  # noqa: S310 - our own server
            lines = page.read().decode().splitlines()
        return sum(
            int(float(line.split()[-1]))
            for line in lines
            if line.startswith("grpc_server_handled_total{") and f'grpc_method="{method}"' in line
        )
