"""The daemon: builds beside each other, a link to the current one, and a unit."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

from flanneld.installation import earlier
from flanneld.installation.builds import CURRENT, Builds
from flanneld.installation.errors import InstallError
from flanneld.installation.marker import build_name
from flanneld.installation.units import Units

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "/usr/local/lib/flanneld"
_UNIT = "flanneld.service"
_END_S = 1.0  # systemctl stop has waited for the end


class Daemon:
    """The daemon in a folder, below a root that may be staged."""

    def __init__(self, folder: str, root: str, say: Callable[[str], None]) -> None:
        self.folder = root + folder
        self._root = root
        self._say = say
        self.builds = Builds(os.path.join(self.folder, ".flanneld"), say)
        self.units = Units([_UNIT], folder, root, self.builds)
        self._program = os.path.join(self.folder, "flanneld")

    def check(self, *, units: bool) -> None:
        """InstallError if anything is in the way; nothing is changed."""
        if os.path.lexists(self._program) and not os.path.islink(self._program):
            raise InstallError(f"{self._program} is not ours: install elsewhere, or remove it")
        if units and self.units.are_wanted():
            self.units.check()

    def install(self, source: str, *, units: bool) -> None:
        """Install a built folder; nothing is started or stopped.  InstallError, OSError."""
        name = build_name(source)
        with self.builds.alone():
            name = self.builds.put(source, name, self._test)
            self.builds.make_current(name)
            with self.builds.temporary() as link:
                os.symlink(f".flanneld/{CURRENT}/flanneld", link)
                os.rename(link, self._program)
            self._say(f"flanneld is in {self.folder} ({name})")
            if units and self.units.are_wanted():
                self.units.put(self._say)
                self._say("write its flags as FLANNELD_* lines into /etc/default/flanneld, then:")
                self._say("    systemctl enable flanneld && systemctl restart flanneld")
            for kept in self.builds.remove_unused(keep=name):
                self._say(f"kept {kept}, which is in use; the next installation removes it")
            earlier.remove_daemons(self.folder, self._say)

    def uninstall(self, *, units: bool) -> bool:
        """Stop the unit, put back what was there, remove the rest; whether nothing is left."""
        if not os.path.isdir(self.builds.base):
            self._say(f"nothing is installed in {self.folder}")
            return True
        with self.builds.alone():
            if units and self.units.are_there():
                self.units.take_away(self._say)
            for link in (self._program, self.builds.path(CURRENT)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(link)
            used = self.builds.remove_unused(patience_s=_END_S)
            for path in used:
                self._say(f"kept {path}, from which a flanneld runs: stop it, then try again")
            if not used:
                earlier.remove_daemons(self.folder, self._say)
                self.builds.remove()
        return not used

    def _test(self, build: str) -> None:
        """InstallError if a build does not run from here: another machine's, or a noexec mount."""
        if self._root:
            return  # it may be for another machine
        command = [os.path.join(build, "flanneld"), "--version"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        except OSError as error:
            raise InstallError(f"{self.folder}: a program cannot run there: {error}") from error
        if done.returncode != 0:
            raise InstallError(f"the new flanneld does not answer --version: {done.stderr}")
