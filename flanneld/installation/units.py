"""Units of systemd, and whether systemd is there to be told."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld.installation.errors import InstallError
from flanneld.installation.places import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flanneld.installation.builds import Builds

FOLDER = "/etc/systemd/system"
_DISTRIBUTIONS = ("/usr/lib/systemd/system", "/lib/systemd/system")
_MARKS = (
    b"# Written by flanneld install",
    b"Description=Resident CNI plugins",  # by earlier builds
    b"Description=Socket of the resident CNI plugins",
    b"# ./build.sh install --daemon puts this",
)
_PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)
_HERE = Path(__file__).parent


def _template(name: str) -> str:
    """Give a unit as it was frozen beside this, or as the checkout has it."""
    for folder in (_HERE / "systemd", _HERE.parents[1] / "packaging" / "systemd"):
        if folder.exists():
            return (folder / name).read_text(encoding="utf-8")
    raise InstallError(f"{_HERE}/systemd is missing: this flanneld is not complete")


class Units:
    """Units of one program that is installed in ``folder``, below a root that may be staged."""

    def __init__(self, names: Sequence[str], folder: str, root: str, builds: Builds) -> None:
        self.names = names
        self._folder = folder
        self._is_staged = root != ""
        self._root = root
        self.places = [Place(f"{root}{FOLDER}/{name}", _MARKS, builds) for name in names]

    def runs(self) -> bool:
        """Whether systemd runs here, and may be told."""
        return not self._is_staged and os.path.isdir("/run/systemd/system")

    def are_wanted(self) -> bool:
        """Whether there is a systemd to read units, now or where the root will be."""
        return self._is_staged or self.runs()

    def check(self) -> None:
        """InstallError if ours of another installation would be replaced, or they cannot be put."""
        for place in self.places:
            place.check()
            if place.is_ours() and not self._is_here(place):
                raise InstallError(
                    f"{place.path} is that of an installation in another folder:"
                    " --no-units leaves it alone, --uninstall there removes it"
                )
        if not _PLAIN.fullmatch(self._folder):
            raise InstallError(
                f"systemd starts nothing from {self._folder!r}: take a path of letters, digits"
                " and / . _ + - only, or --no-units"
            )
        if self.runs() and not os.access(FOLDER, os.W_OK):
            raise InstallError(f"{FOLDER} cannot be written: run this as root, or with --no-units")

    def are_there(self) -> bool:
        """Whether one of ours is there, of this installation."""
        return any(self._is_here(place) for place in self.places)

    def _is_here(self, place: Place) -> bool:
        return place.is_ours() and f"{self._folder}/" in Path(place.path).read_text(
            "utf-8", "replace"
        )

    def put(self, say: Callable[[str], None]) -> None:
        """Put the units in place, and let systemd read them."""
        os.makedirs(f"{self._root}{FOLDER}", exist_ok=True)
        for name, place in zip(self.names, self.places, strict=True):
            content = _template(name).replace("@FOLDER@", self._folder).encode()
            place.put(lambda new, content=content: _write(new, content), say)  # type: ignore[misc]
            for hidden in (f"{self._root}{folder}/{name}" for folder in _DISTRIBUTIONS):
                if os.path.exists(hidden):
                    say(f"{hidden} counts no more: {place.path} comes before it")
                    break
        self.tell("daemon-reload")

    def take_away(self, say: Callable[[str], None]) -> None:
        """Stop and remove our units; put back what was there before."""
        for name, place in zip(self.names, self.places, strict=True):
            if self._is_here(place):
                kept = os.path.lexists(place.copy)  # it stays enabled or not, as it was
                self.tell(*(["stop"] if kept else ["disable", "--now"]), name)
                place.take_away(say)
        self.tell("daemon-reload")

    def tell(self, *words: str) -> None:
        """Run systemctl, if systemd runs; InstallError if it refuses."""
        if not self.runs():
            return
        command = ["systemctl", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            raise InstallError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)
