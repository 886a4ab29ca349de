"""A private host: its own network and mount namespaces, gone when its maker is.

The world is held by one shell that waits for the end of its input. The other end of that pipe is
this process: when it closes the world, or dies in whatever way, the shell kills every process left
in the world and ends, and the kernel takes the namespaces down. Nothing of it can be seen from
outside. Inside, /run, /var/lib and /etc/cni are empty, and pods are network namespaces under
/run/netns, as a runtime makes them.

Knows how to run programs and plugins there and how to read the files; `state` reads the kernel.
Imports none of the plugins' own modules.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from conformance.holder import (
    HOLDER,
    commands_in,
    end_processes_in,
    is_netns,
    is_pair,
    processes_in,
)
from conformance.outcome import Outcome
from conformance.resident import FOLDER, Resident, folder_of
from conformance.state import difference, read_state

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "GO_PLUGINS",
    "SYSTEM_PATH",
    "Outcome",
    "World",
    "WorldError",
    "difference",
    "processes_in",
]

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GO_PLUGINS = "/usr/lib/cni"
LINGER_S = 1.0


class WorldError(Exception):
    """The world could not be made, or something in it that a plugin has no part in failed."""


class World:
    """A machine as plugins see it. Paths are the world's own unless a name says otherwise.

    `plugins` is the folder of binaries under test; `cni_path` what CNI_PATH says: that folder, then
    the distribution's own plugins, for delegates. `resident` is the process that launchers hand
    their calls to, None for other plugins. A context manager; `close` may be called twice.
    """

    def __init__(self, plugins: Path | str, *, peers: str = GO_PLUGINS) -> None:
        folder, is_resident = folder_of(Path(plugins))
        self.plugins = folder.resolve()
        self.started: list[subprocess.Popen[bytes]] = []
        unshare = ["unshare", "--net", "--mount", "--propagation", "private"]
        if os.geteuid() != 0:
            unshare += ["--user", "--map-root-user"]
        # Its own session: a Ctrl-C at the terminal reaches this process, which closes the world.
        self.holder = subprocess.Popen(
            [*unshare, "sh", "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": SYSTEM_PATH},
            start_new_session=True,
        )
        assert self.holder.stdout is not None
        if self.holder.stdout.readline() != "ready\n":
            raise WorldError(f"no private namespaces: {self.holder.communicate()[1].strip()}")
        self.enter = ["nsenter", "--target", str(self.holder.pid), "--net", "--mount"]
        if os.geteuid() != 0:
            self.enter += ["--user", "--preserve-credentials"]
        self._complete()
        self.resident = Resident(self, folder.resolve()) if is_resident else None
        self.cni_path = f"{self.plugins}:{peers}"

    def _complete(self) -> None:
        """Where no `bridge` is beside a `flannel` that is one too, offer it under that name."""
        flannel = self.plugins / "flannel"
        if (self.plugins / "bridge").exists() or not flannel.exists() or not is_pair(flannel):
            return
        folder = self.path("/run/plugins")
        folder.mkdir()
        for file in self.plugins.iterdir():
            if file.is_file() and os.access(file, os.X_OK):
                (folder / file.name).symlink_to(file)
        (folder / "bridge").symlink_to(flannel)
        self.plugins = Path("/run/plugins")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End whatever still runs in the world, and the world."""
        self.end_processes()
        for process in self.started:
            process.kill()
            process.wait()
        self.holder.kill()
        self.holder.communicate()
        if self.resident is not None:
            self.resident.close()

    def end_processes(self) -> None:
        """End whatever runs in the world; it stays, and whoever waits for a program goes on."""
        end_processes_in(self.holder.pid)

    # ------------------------------------------------------------------------------------- programs

    def run(
        self,
        argv: Sequence[str],
        stdin: str | bytes | None = None,
        env: dict[str, str] | None = None,
        *,
        check: bool = True,
        timeout: float | None = None,
    ) -> Outcome:
        """Run a program in the world; with `check`, one that fails is an AssertionError.

        After `timeout` seconds it is killed, and subprocess.TimeoutExpired raised.
        """
        if isinstance(stdin, str):
            stdin = stdin.encode()
        env = {"PATH": SYSTEM_PATH} if env is None else env
        if self.resident is not None and argv[0].startswith(f"{self.plugins}/"):
            self.resident.expect(env, stdin or b"")
        done = subprocess.run(
            [*self.enter, *argv],
            input=stdin if stdin is not None else b"",
            env=env,
            capture_output=True,
            check=False,
            timeout=timeout,
        )
        outcome = Outcome(
            done.returncode,
            done.stdout.decode(errors="backslashreplace"),
            done.stderr.decode(errors="backslashreplace"),
        )
        assert not check or outcome.status == 0, (argv, outcome)
        return outcome

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program in the world; it ends with the world at the latest."""
        self.started.append(subprocess.Popen([*self.enter, *argv], **options))
        return self.started[-1]

    def add_pod(self, name: str) -> str:
        """Make a pod's network namespace, `lo` up, as a runtime does; its path, for CNI_NETNS."""
        self.run(["ip", "netns", "add", name])
        self.run(["ip", "-n", name, "link", "set", "lo", "up"])
        return f"/run/netns/{name}"

    def del_pod(self, name: str) -> None:
        """Remove a pod's network namespace."""
        self.run(["ip", "netns", "del", name])

    def pods(self) -> list[str]:
        """Names of the pods that are there, sorted."""
        return sorted(file.name for file in self.path("/run/netns").iterdir() if is_netns(file))

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
        """Path of a plugin: one under test by its name, any other by its absolute path."""
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
        timeout: float | None = None,
    ) -> Outcome:
        """Call a plugin as a runtime does; `env` adds variables, or removes them with None."""
        environ = self.environment(command, container_id, ifname, netns)
        for key, value in (env or {}).items():
            environ.pop(key, None)
            if value is not None:
                environ[key] = value
        stdin = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
        return self.run([self.program(plugin)], stdin, environ, check=False, timeout=timeout)

    # -------------------------------------------------------------------------------- kernel, files

    def state(self) -> dict[str, Any]:
        """Everything that a plugin could leave, host and pods, comparable: see state.read_state."""
        pods = {pod: self.path(f"/run/netns/{pod}") for pod in self.pods()}
        return read_state(self, pods)

    def processes(self) -> list[str]:
        """Command lines of the processes in the world, without those that end within a second."""
        deadline = time.monotonic() + LINGER_S
        while True:
            found = commands_in(self.holder.pid, without=self._own())
            lingers = any(command.startswith(f"{self.plugins}/") for command in found)
            if not lingers or time.monotonic() > deadline:
                return found
            time.sleep(0.01)

    def _own(self) -> int:
        return 0 if self.resident is None else self.resident.process.pid

    def path(self, path: str) -> Path:
        """A path of the world as one that this process can open."""
        return Path(f"/proc/{self.holder.pid}/root{path}")

    def files(self, path: str) -> dict[str, bytes]:
        """Regular files below a directory: path relative to it -> content; {} if it is missing.

        Namespaces look like files and cannot be read: /run/netns is left out, and so is the folder
        of the resident process' socket.
        """
        top = self.path(path)
        return {
            str(file.relative_to(top)): file.read_bytes()
            for file in sorted(top.rglob("*"))
            if file.is_file()
            and not file.is_symlink()
            and file.parent.name not in {"netns", FOLDER}
        }

    def write(self, path: str, content: str | bytes) -> str:
        """Write a file of the world, directories included; its path."""
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
