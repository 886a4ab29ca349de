"""The pair of plugins: launchers in the runtime's folder, and the builds that they start.

The order is everything: the build, complete and tested; the link to it; then the launchers, each by
rename.  No call fails at any moment: one that has begun holds its build, one that begins finds a
launcher, of any build, and a current build.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from flanneld.installation import earlier
from flanneld.installation.builds import CURRENT, Builds
from flanneld.installation.errors import InstallError
from flanneld.installation.marker import build_name
from flanneld.installation.places import Place
from flanneld.installation.units import Units

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS = ("flannel", "host-local")
FOLDER = "/opt/cni/bin"
_BASE = ".cni-flannel"
_MARKS = (b"CNI_FLANNEL_LAUNCHER=", *earlier.MARKS)
_UNITS = ("cni-flannel.socket", "cni-flannel.service")
_SOCKET = "/run/cni-flannel/cni.sock"
_INDEX = "/var/lib/cni/networks/.index"
_VERSION = '{"cniVersion":"1.0.0"}'
_STARTING_S = 1.0
_CALL_S = 30.0


class Pair:
    """The pair in a folder, below a root that may be staged."""

    def __init__(self, folder: str, root: str, say: Callable[[str], None]) -> None:
        self.folder = root + folder
        self._final = folder
        self._root = root
        self._say = say
        self.builds = Builds(os.path.join(self.folder, _BASE), say)
        self.units = Units(_UNITS, folder, root, self.builds)
        self._places = [
            Place(os.path.join(self.folder, name), _MARKS, self.builds) for name in PROGRAMS
        ]

    def check(self, *, resident: bool, units: bool) -> None:
        """InstallError if anything is in the way; nothing is changed."""
        for place in self._places:
            place.check()
        if resident and units and self.units.are_wanted():
            self.units.check()

    def install(self, source: str, *, resident: bool, units: bool) -> None:
        """Install the pair of a built folder; InstallError, OSError."""
        built = os.path.join(source, _BASE, CURRENT)
        name = build_name(built)
        with self.builds.alone():
            name = self.builds.put(os.path.realpath(built), name, self._test)
            self.builds.make_current(name)
            for place in self._places:
                program = os.path.join(source, os.path.basename(place.path))
                if not place.is_ours() or not _is_equal(program, place.path):
                    place.put(lambda new, program=program: _copy(program, new), self._say)  # type: ignore[misc]
                self._answers([place.path])
            self._say(f"{' and '.join(PROGRAMS)} are in {self.folder} ({name})")
            if units and self.units.are_wanted():
                self._put_units(resident=resident)
            elif resident:
                self._say("let a supervisor start, as root and in the network of the host:")
                self._say(f"    {self._final}/flannel serve")
            for kept in self.builds.remove_unused(keep=name):
                self._say(f"kept {kept}, which is in use; the next installation removes it")
            earlier.remove_pairs(self.folder, self._say)

    def uninstall(self, *, units: bool) -> bool:
        """Put back what was there, and remove all that is ours; whether nothing of it is left."""
        if not os.path.isdir(self.builds.base):
            self._say(f"nothing is installed in {self.folder}")
            return True
        with self.builds.alone():
            if units and self.units.are_there():
                self.units.take_away(self._say)
            for place in self._places:
                place.take_away(self._say)
            time.sleep(_STARTING_S)  # a launcher that runs already is still to find its build
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.builds.path(CURRENT))
            used = self.builds.remove_unused(patience_s=_CALL_S)
            for path in used:
                self._say(f"kept {path}, which is in use: end what runs there, then try again")
            if not used:
                earlier.remove_pairs(self.folder, self._say)
                self.builds.remove()
                self._remove_traces()
        return not used

    def _remove_traces(self) -> None:
        """Remove what runs of the pair have left; not what another installation may use."""
        if not _is_served(self._root + _SOCKET):
            shutil.rmtree(self._root + os.path.dirname(_SOCKET), ignore_errors=True)
        if self._final == FOLDER:
            shutil.rmtree(self._root + _INDEX, ignore_errors=True)
        elif os.path.isdir(self._root + _INDEX):
            self._say(f"left {_INDEX}, which an installation in {FOLDER} would need")

    def _put_units(self, *, resident: bool) -> None:
        if resident:
            self.units.put(self._say)
            self.units.tell("enable", _UNITS[0])
            # The socket last: a process of before would not let go of it. A call starts the next.
            self.units.tell("stop", _UNITS[1])
            self.units.tell("restart", _UNITS[0])
            self._say(f"{_UNITS[0]} is enabled; the first call starts {_UNITS[1]}")
        elif self.units.are_there():
            self.units.take_away(self._say)

    def _test(self, build: str) -> None:
        """InstallError if a build does not run from here: another machine's, or a noexec mount."""
        for program in PROGRAMS:
            self._answers([f"{build}/ld.so", f"{build}/python", "-1", build, program, "0"])

    def _answers(self, argv: list[str]) -> None:
        if self._root:
            return  # it may be for another machine
        environ = {"CNI_COMMAND": "VERSION"}
        try:
            done = subprocess.run(  # noqa: S603
                argv, input=_VERSION, env=environ, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise InstallError(f"{self.folder}: a program cannot run there: {error}") from error
        if "supportedVersions" not in done.stdout:
            raise InstallError(f"{argv[0]} does not answer VERSION: {done.stderr or done.stdout}")


def _is_served(path: str) -> bool:
    """Whether a process listens at a socket."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(1)
        try:
            asked.connect(path)
        except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # a queue that is full, for one
    return True


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    os.chmod(target, 0o755)  # noqa: S103 - everybody may run a plugin


def _is_equal(one: str, other: str) -> bool:
    return filecmp.cmp(one, other, shallow=False) and os.stat(other).st_mode & 0o7777 == 0o755
