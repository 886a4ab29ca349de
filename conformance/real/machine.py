"""A machine for a real container runtime: a world with processes, /opt and cgroups of its own.

Inside the world's namespaces one more process namespace and one more mount namespace. Its init
waits for the end of its input, whose other end is this process: when that closes the machine, or
dies in whatever way, init ends, and with it the kernel ends every process there, also those that
a runtime has put into namespaces of their own. A keeper, in no namespace that anybody looks into,
then removes the machine's cgroups, which are the one thing that the kernel does not.

Cgroups are below one folder of the unified hierarchy, which is mounted in the machine alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from conformance.resident import folder_of
from conformance.world import SYSTEM_PATH, Outcome, World, WorldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CGROUPS = "/sys/fs/cgroup"
BIN_DIR, CONF_DIR = "/opt/cni/bin", "/etc/cni/net.d"
READY_S = 60.0
INSTALL = Path(__file__).resolve().parents[2] / "dist" / "flanneld" / "flanneld"

KEEPER = f"""
mount -t cgroup2 machine {CGROUPS} && mkdir {CGROUPS}/$0 || exit 1
mkdir -p /run/.opt/upper /run/.opt/work {CONF_DIR} || exit 1
layers=lowerdir=/opt,upperdir=/run/.opt/upper,workdir=/run/.opt/work
mount -t overlay -o $layers machine /opt && mkdir -p /opt/cni || exit 1
mount -t tmpfs -o mode=755 machine /opt/cni && mkdir {BIN_DIR} || exit 1
exec 3<&0
unshare --pid --fork --kill-child sh -c 'mount -t proc proc /proc; echo ready; read -r _' <&3 &
echo $!
exec 3<&-
wait $!
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    find {CGROUPS}/$0 -depth -type d -exec rmdir {{}} \\; 2>/dev/null
    [ -d {CGROUPS}/$0 ] || break
    sleep 0.1
done
"""


class Machine:
    """A World and what a runtime needs beside it; a context manager. Paths are the machine's."""

    def __init__(self, bin_dir: Path) -> None:
        self.world = World(bin_dir)
        self.cgroup = f"cni-conformance-{os.getpid()}-{self.world.holder.pid}"
        self._programs: list[subprocess.Popen[bytes]] = []
        own = ["unshare", "--mount", "--propagation", "private"]
        self._keeper = subprocess.Popen(
            [*self.world.enter, *own, "sh", "-c", KEEPER, self.cgroup],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": SYSTEM_PATH},
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        told = {self._keeper.stdout.readline().strip() for _ in range(2)}
        init = next((word for word in told if word.isdigit()), "")
        if "ready" not in told or not init:
            self.close()
            raise WorldError(f"no cgroups or no process namespace: {self._said}")
        self.enter = [
            "nsenter",
            f"--net=/proc/{self._keeper.pid}/ns/net",
            f"--mount=/proc/{self._keeper.pid}/ns/mnt",
            f"--pid=/proc/{init}/ns/pid_for_children",
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off: every process ends at once, nothing is told, no DEL; files are lost."""
        _, self._said = self._keeper.communicate()
        for program in self._programs:
            program.wait()
            for pipe in (program.stdout, program.stderr):
                if pipe is not None:
                    pipe.close()
        self.world.close()

    def run(
        self,
        argv: Sequence[str],
        stdin: str | bytes | None = None,
        env: dict[str, str] | None = None,
        *,
        check: bool = True,
        timeout: float | None = 60.0,
    ) -> Outcome:
        """Run a program in the machine; with `check`, one that fails is an AssertionError."""
        if isinstance(stdin, str):
            stdin = stdin.encode()
        done = subprocess.run(
            [*self.enter, *argv],
            input=stdin or b"",
            env={"PATH": SYSTEM_PATH} if env is None else env,
            capture_output=True,
            check=False,
            timeout=timeout,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        outcome = Outcome(done.returncode, out, err)
        assert not check or outcome.status == 0, (argv, outcome)
        return outcome

    def popen(
        self, argv: Sequence[str], log: str | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in the machine; its output goes to a file there, or is ours to read."""
        output = subprocess.PIPE if log is None else self.path(log).open("ab")
        try:
            program = subprocess.Popen(
                [*self.enter, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"PATH": SYSTEM_PATH, **(env or {})},
            )
        finally:
            if not isinstance(output, int):
                output.close()
        self._programs.append(program)
        return program

    @contextlib.contextmanager
    def notified(self, path: str) -> Iterator[Callable[[], None]]:
        """Listen where a daemon's NOTIFY_SOCKET leads; what it gives waits for READY=1."""
        file = self.path(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(file))
            listener.settimeout(READY_S)

            def wait() -> None:
                try:
                    while b"READY=1" not in listener.recv(4096).splitlines():
                        continue
                except TimeoutError as error:
                    raise AssertionError(f"not ready after {READY_S:.0f} s: {path}") from error

            yield wait
        file.unlink()

    def path(self, path: str) -> Path:
        """A path of the machine as one that this process can open."""
        return Path(f"/proc/{self._keeper.pid}/root{path}")

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> str:
        """Write a file of the machine, directories included; its path."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        return path

    def install(self, bin_dir: Path, peers: Sequence[str]) -> None:
        """Install the pair as its own installer does, and the distribution's plugins beside it."""
        folder = folder_of(bin_dir)[0].resolve()
        if (folder / ".cni-flannel").exists():
            self.run([str(INSTALL), "install", "--no-units", "--from", str(folder), BIN_DIR])
        else:
            self.run(["cp", "-a", f"{folder}/.", BIN_DIR])
        if self.world.resident is not None:
            self.world.resident.move(self.enter, f"{BIN_DIR}/flannel")
        for peer in peers:
            self.run(["cp", f"/usr/lib/cni/{peer}", BIN_DIR])

    def processes(self) -> dict[int, str]:
        """Every process of the machine but init and the reader itself: number -> command line."""
        script = 'for d in /proc/[0-9]*; do echo "${d#/proc/} $(tr "\\0" " " <$d/cmdline)"; done'
        found = {}
        for line in self.run(["sh", "-c", script], check=False).stdout.splitlines():
            pid, _, command = line.partition(" ")
            if pid != "1" and command.strip() and "for d in" not in command:
                found[int(pid)] = command.strip()
        return found

    def cgroups(self) -> list[str]:
        """Cgroups below the machine's own, relative to it."""
        top = self.path(f"{CGROUPS}/{self.cgroup}")
        return sorted(str(file.relative_to(top)) for file in top.rglob("*") if file.is_dir())
