"""A private copy of the checkout whose `dist` runs its source: what is changed there is under test.

Its daemon, and what its launchers start in place of the frozen plugins, are scripts that run the
packages of the copy; the launchers are made from the copy's source. So every test finds its program
where it looks for it, and none needs a build.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.mutants.mutant import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.mutants.mutant import Mutant

PACKAGES = ("cni", "ipam", "netlink", "cni_flannel", "flanneld", "conformance", "tests")
LAUNCHER = ("packaging/launcher/launcher.c", "packaging/launcher/frozen.c")
HANG_S = 120  # a test without a limit of its own
HUNG = 124  # timeout(1)'s exit status

DAEMON = """\
#!{python} -I
import runpy, sys
sys.path.insert(0, {root!r})
sys.dont_write_bytecode = True
runpy.run_module("flanneld", run_name="__main__")
"""

# packaging/launcher/frozen.c says what the loader is given.
LOADER = """\
#!{python} -IS
import fcntl, os, runpy, sys
_, lock, _, program, kept, *words = sys.argv[1:]
fcntl.fcntl(int(lock), fcntl.F_SETFD, fcntl.FD_CLOEXEC)
os.environ.update(word.split("=", 1) for word in words[: int(kept)])
open("/proc/self/comm", "w").write(program)
sys.argv = [program, *words[int(kept) :]]
sys.path.insert(0, {root!r})
sys.dont_write_bytecode = True
runpy.run_module("ipam" if program == "host-local" else "cni_flannel", run_name="__main__")
"""


class Tree:
    """A copy of what is in the checkout now, committed or not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
        for name in filter(None, names.decode().split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        for package in PACKAGES:  # by the sources' hashes: a change within a second counts too
            compileall.compile_dir(
                root / package,
                quiet=2,
                invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
            )
        self._daemon()
        self._plugins()
        self._launchers()

    def _daemon(self) -> None:
        path = self.root / "dist" / "flanneld" / "flanneld"
        path.parent.mkdir(parents=True)
        path.write_text(DAEMON.format(python=sys.executable, root=str(self.root)))
        path.chmod(0o755)

    def _plugins(self) -> None:
        """Lay out what launchers look for: a folder of a build, with a loader that is a script."""
        folder = self.root / "dist" / "cni-flannel" / ".cni-flannel"
        (folder / "source").mkdir(parents=True)
        (folder / "current").symlink_to("source")
        loader = folder / "source" / "ld.so"
        loader.write_text(
            LOADER.format(python=os.path.realpath(sys.executable), root=str(self.root))
        )
        loader.chmod(0o755)
        (folder / "source" / "needs").write_text(f"{loader.stat().st_size} {loader.name}\n")

    def _launchers(self) -> None:
        """Compile them as build.sh does."""
        compiler = next(name for name in ("musl-gcc", "cc") if shutil.which(name))
        sources = [str(self.root / source) for source in LAUNCHER]
        for program in ("flannel", "host-local"):
            output = str(self.root / "dist" / "cni-flannel" / program)
            flags = ["-std=c11", "-static", "-s", "-O2", f'-DPROGRAM="{program}"', "-o", output]
            subprocess.run([compiler, *flags, *sources], check=True)

    @contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """The copy with a mutant in it, for the block."""
        file = self.root / mutant.file
        source = file.read_text()
        try:
            file.write_text(mutant.applied_to(source))
            if mutant.file in LAUNCHER:
                self._launchers()
            yield
        finally:
            file.write_text(source)
            if mutant.file in LAUNCHER:
                self._launchers()

    def test(self, *tests: str, limit_s: float, jobs: int = 0) -> tuple[int, str]:
        """Run tests in an enclosure; pytest's exit status, or HUNG, and its output."""
        environ = {name: text for name, text in os.environ.items() if not name.endswith("_BIN")}
        environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-n", str(jobs)]
        pytest += ["-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        pytest += ["-o", f"timeout={HANG_S}"]
        command = [sys.executable, "-m", "tests.enclosure", *pytest, *tests]
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as run:
            try:
                output, _ = run.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                run.kill()
                output, _ = run.communicate()
                return HUNG, output.decode(errors="replace")
        return run.returncode, output.decode(errors="replace")
