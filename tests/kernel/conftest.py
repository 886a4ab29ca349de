"""A private node for each test: its own network and mount namespaces, gone when the test is.

The node is held by one process that sleeps. It dies with its parent (PDEATHSIG), so the node
vanishes even when pytest is killed; nothing of it can be seen from outside. Inside, /run, /var/lib
and /etc/cni are empty, and pods are network namespaces under /run/netns, as a runtime makes them.

CNI_FLANNEL_BIN names the folder with the plugins under test (by default dist/cni-flannel); the word
`source` runs the checkout unfrozen.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GO_PLUGINS = "/usr/lib/cni"
PROGRAMS = {"flannel": "cni_flannel", "bridge": "cni_flannel", "host-local": "ipam"}

# Runs as the holder, inside the new namespaces. /etc/cni may be missing on the machine and must not
# be made there: then it lies in an overlay. The last line says "ready" and waits.
HOLDER = """
set -e
mount -t tmpfs -o mode=755 node /run
mount -t tmpfs -o mode=755 node /var/lib
mkdir -p /run/netns /run/flannel /var/lib/cni
if [ -d /etc/cni ]; then
    mount -t tmpfs node /etc/cni
else
    mkdir -p /run/.etc/upper /run/.etc/work
    layers=lowerdir=/etc,upperdir=/run/.etc/upper,workdir=/run/.etc/work
    mount -t overlay -o $layers node /etc 2>/dev/null && mkdir /etc/cni || true
fi
mount -t sysfs -o ro node /sys 2>/dev/null || true
ip link set lo up
echo ready
exec sleep infinity
"""


class Outcome(NamedTuple):
    """What one call of a plugin left: exit status (negative: the signal), stdout, stderr."""

    status: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The printed result of a call that must have succeeded."""
        assert self.status == 0, self
        return self._document()

    @property
    def error(self) -> dict[str, Any]:
        """The printed error of a call that must have failed."""
        assert self.status != 0, self
        return self._document()

    def _document(self) -> dict[str, Any]:
        """Stdout, which must be exactly one JSON object."""
        document = json.loads(self.stdout)
        assert isinstance(document, dict), self
        return document


class Node:
    """A machine as the plugins see it. Paths are the node's own unless a name says otherwise."""

    def __init__(self, plugins: Path) -> None:
        self.plugins = plugins
        self.cni_path = f"{plugins}:{GO_PLUGINS}"
        unshare = ["unshare", "--net", "--mount", "--propagation", "private"]
        if os.geteuid() != 0:
            unshare += ["--user", "--map-root-user"]
        # Its own session: a Ctrl-C at the terminal reaches pytest, which then closes the node.
        self.holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *unshare, "sh", "-c", HOLDER],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": SYSTEM_PATH},
            start_new_session=True,
        )
        assert self.holder.stdout is not None
        assert self.holder.stderr is not None
        if self.holder.stdout.readline() != "ready\n":
            self.holder.kill()
            pytest.fail(f"no private node: {self.holder.stderr.read()}")
        self.enter = ["nsenter", "--target", str(self.holder.pid), "--net", "--mount"]
        if os.geteuid() != 0:
            self.enter += ["--user", "--preserve-credentials"]

    def close(self) -> None:
        """End the holder and whatever still runs in the node."""
        for pid in processes_in(self.holder.pid):
            os.kill(pid, signal.SIGKILL)
        self.holder.kill()
        self.holder.communicate()

    # ------------------------------------------------------------------------------------- programs

    def run(
        self,
        argv: Sequence[str],
        stdin: str | bytes | None = None,
        env: dict[str, str] | None = None,
        *,
        check: bool = True,
    ) -> Outcome:
        """Run a program in the node; with `check`, one that fails fails the test."""
        if isinstance(stdin, str):
            stdin = stdin.encode()
        done = subprocess.run(
            [*self.enter, *argv],
            input=stdin if stdin is not None else b"",
            env={"PATH": SYSTEM_PATH} if env is None else env,
            capture_output=True,
            check=False,
        )
        outcome = Outcome(
            done.returncode,
            done.stdout.decode(errors="backslashreplace"),
            done.stderr.decode(errors="backslashreplace"),
        )
        assert not check or outcome.status == 0, (argv, outcome)
        return outcome

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program in the node; it ends with the node at the latest."""
        return subprocess.Popen([*self.enter, *argv], **options)

    def add_pod(self, name: str) -> str:
        """Make a pod's network namespace, `lo` up, as a runtime does; its path, for CNI_NETNS."""
        self.run(["ip", "netns", "add", name])
        self.run(["ip", "-n", name, "link", "set", "lo", "up"])
        return f"/run/netns/{name}"

    def del_pod(self, name: str) -> None:
        """Remove a pod's network namespace."""
        self.run(["ip", "netns", "del", name])

    def pod_run(self, pod: str, argv: Sequence[str], *, check: bool = True) -> Outcome:
        """Run a program in a pod's network namespace."""
        return self.run(["ip", "netns", "exec", pod, *argv], check=check)

    # -------------------------------------------------------------------------------------- plugins

    def environment(
        self, command: str, container_id: str, ifname: str, netns: str | None
    ) -> dict[str, str]:
        """Environment of a plugin call; `netns` None leaves CNI_NETNS unset."""
        environ = {
            "PATH": SYSTEM_PATH,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_id,
            "CNI_IFNAME": ifname,
            "CNI_PATH": self.cni_path,
        }
        if netns is not None:
            environ["CNI_NETNS"] = netns
        return environ

    def program(self, plugin: str) -> str:
        """Path of a plugin: our own by its name, any other by its absolute path."""
        return plugin if plugin.startswith("/") else str(self.plugins / plugin)

    def cni(
        self,
        command: str,
        conf: dict[str, Any] | bytes,
        *,
        container_id: str,
        ifname: str = "eth0",
        netns: str | None = None,
        plugin: str = "flannel",
        env: dict[str, str | None] | None = None,
    ) -> Outcome:
        """Call a plugin as a runtime does; `env` adds variables, or removes them with None."""
        environ = self.environment(command, container_id, ifname, netns)
        for key, value in (env or {}).items():
            environ.pop(key, None)
            if value is not None:
                environ[key] = value
        stdin = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
        return self.run([self.program(plugin)], stdin, environ, check=False)

    # -------------------------------------------------------------------------- state of the kernel

    def ip(self, *argv: str, pod: str | None = None) -> list[dict[str, Any]]:
        """Run `ip -j -d ...`, on the node or in a pod, and give what it prints."""
        where = [] if pod is None else ["-n", pod]
        text = self.run(["ip", *where, "-j", "-d", *argv]).stdout
        # iproute2 prints an empty object for a filtered-out line, and nothing for an empty table.
        return [entry for entry in json.loads(text or "[]") if entry]

    def links(self, pod: str | None = None) -> dict[str, dict[str, Any]]:
        """Links by name."""
        return {link["ifname"]: link for link in self.ip("link", "show", pod=pod)}

    def addresses(self, pod: str | None = None) -> dict[str, list[str]]:
        """Addresses by link name, as `10.244.1.1/24`; link-local IPv6 left out."""
        return {
            link["ifname"]: [
                f"{address['local']}/{address['prefixlen']}"
                for address in link.get("addr_info", [])
                if not (address["family"] == "inet6" and address["scope"] == "link")
            ]
            for link in self.ip("address", "show", pod=pod)
        }

    def routes(
        self, pod: str | None = None, *, family: int = 4, table: str = "main"
    ) -> list[dict[str, Any]]:
        """Routes of one family and table."""
        return self.ip(f"-{family}", "route", "show", "table", table, pod=pod)

    def neighbours(self, pod: str | None = None) -> list[dict[str, Any]]:
        """Neighbour entries of both families, permanent ones included."""
        return self.ip("neighbour", "show", "nud", "all", pod=pod)

    # ---------------------------------------------------------------------------------------- files

    def path(self, path: str) -> Path:
        """A path of the node as one that this process can open."""
        return Path(f"/proc/{self.holder.pid}/root{path}")

    def files(self, path: str) -> dict[str, bytes]:
        """Regular files below a directory: path relative to it -> content; {} if it is missing.

        Namespaces look like files and cannot be read: /run/netns is left out.
        """
        top = self.path(path)
        return {
            str(file.relative_to(top)): file.read_bytes()
            for file in sorted(top.rglob("*"))
            if file.is_file() and not file.is_symlink() and file.parent.name != "netns"
        }

    def write(self, path: str, content: str | bytes) -> str:
        """Write a file of the node, directories included; its path."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def write_subnet_env(self, path: str = "/run/flannel/subnet.env", **values: str | None) -> str:
        """Write the daemon's file: `subnet="10.244.2.1/24"` is FLANNEL_SUBNET; None is no line."""
        lines: dict[str, str | None] = {
            "network": "10.244.0.0/16",
            "subnet": "10.244.1.1/24",
            "mtu": "1450",
            "ipmasq": "true",
            **values,
        }
        text = "".join(
            f"FLANNEL_{key.upper()}={value}\n" for key, value in lines.items() if value is not None
        )
        return self.write(path, text)


def processes_in(holder: int) -> Iterator[int]:
    """Other processes in the holder's mount namespace."""
    wanted = os.readlink(f"/proc/{holder}/ns/mnt")
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != holder:
            try:
                if os.readlink(f"/proc/{entry}/ns/mnt") == wanted:
                    yield int(entry)
            except OSError:
                continue  # it ended, or belongs to somebody else


def may_make_namespaces() -> bool:
    probe = ["unshare", "--net", "--mount", "true"]
    if os.geteuid() != 0:
        probe[1:1] = ["--user", "--map-root-user"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def shim(package: str) -> str:
    """A program that runs a package of the checkout, seeing the name it was called by."""
    return (
        f"#!{os.path.realpath(sys.executable)} -IS\n"
        f"import runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"sys.dont_write_bytecode = True\n"
        f"runpy.run_module({package!r}, run_name='__main__')\n"
    )


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with flannel, host-local and bridge: links to the frozen ones, or shims."""
    where = os.environ.get("CNI_FLANNEL_BIN") or str(ROOT / "dist" / "cni-flannel")
    folder = tmp_path_factory.mktemp("plugins")
    for name, package in PROGRAMS.items():
        program = folder / name
        if where == "source":
            program.write_text(shim(package))
            program.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
            continue
        frozen = Path(where, "flannel" if name == "bridge" else name).resolve()
        if not frozen.exists():
            pytest.skip(f"{frozen} is not built: run ./build.sh, or set CNI_FLANNEL_BIN=source")
        program.symlink_to(frozen)
    return folder


@pytest.fixture
def new_node(plugins: Path) -> Iterator[Callable[[], Node]]:
    """Make as many nodes as a test wants."""
    if not may_make_namespaces():
        pytest.skip("needs root, or user namespaces")
    nodes: list[Node] = []

    def make() -> Node:
        nodes.append(Node(plugins))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


@pytest.fixture
def node(new_node: Callable[[], Node]) -> Node:
    """One private node."""
    return new_node()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kernel)
