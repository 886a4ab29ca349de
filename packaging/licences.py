"""The licences of what goes into a bundle: a file for each owner, and an index of who has what.

A file belongs to the package of the system (dpkg) or of Python (its RECORD) that brought it, or to
the Python that is frozen. One that belongs to nobody ends the build: its licence would be missing.
Called by the spec files; imports nothing of ours.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_DOC = Path("/usr/share/doc")
_COMMON = Path("/usr/share/common-licenses")  # Debian's texts name them instead of repeating them
_NAMED = re.compile(rf"{_COMMON}/([\w.+-]*\w)")
_LICENCE = re.compile(r"(^|/)(licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)
_ROOT = Path(__file__).resolve().parents[1]
_EMBEDDED = _ROOT / "packaging" / "embedded"  # what wheels have in their files and do not tell


def licences(files: Iterable[str]) -> dict[str, str]:
    """Of the files that go into a bundle, by name below `licences/`: the texts, and INDEX."""
    texts, lines = {"cni-flannel": (_ROOT / "LICENSE").read_text("utf-8")}, set()
    for file in files:
        owner, found = _owner(os.path.abspath(file))
        if owner:
            texts[owner] = found
            lines.add(f"{os.path.basename(file)}: {owner}\n")
    for text in list(texts.values()):
        for name in _NAMED.findall(text):
            texts[name] = (_COMMON / name).read_text("utf-8", "replace")
    return {**texts, "INDEX": "".join(sorted(lines))}


def _owner(path: str) -> tuple[str, str]:
    """Name of the owner of a file, and its licence; two empty texts for a file of ours."""
    if Path(path).is_relative_to(_ROOT) and ".venv" not in path:
        return "", ""
    owner = _distribution(path) or _package(path) or _python(path)
    if owner is None or not owner[1]:
        raise FileNotFoundError(f"{path} would be in the bundle without its licence")
    return owner


@cache
def _recorded() -> dict[str, tuple[str, str]]:
    """Every file of the installed distributions -> its distribution, and that one's licences."""
    found = {}
    for one in distributions():
        names = [str(name) for name in one.files or []]
        texts = [
            Path(str(one.locate_file(name))).read_text("utf-8", "replace")
            for name in names
            if ".dist-info/" in name and _LICENCE.search(name)
        ]
        embedded = _EMBEDDED / one.name.lower()
        if embedded.exists():
            texts.append(embedded.read_text("utf-8"))
        for name in names:
            path = os.path.realpath(str(one.locate_file(name)))
            found[path] = (f"{one.name} {one.version}", "\n\n".join(texts))
    return found


def _distribution(path: str) -> tuple[str, str] | None:
    return _recorded().get(os.path.realpath(path))


def _package(path: str) -> tuple[str, str] | None:
    """Debian's package; /lib and /usr/lib may be one folder, of which dpkg knows one name."""
    real = os.path.realpath(path)
    for name in {path, real, path.removeprefix("/usr"), real.removeprefix("/usr")}:
        if owner := _packages(name):
            copyright_ = _DOC / owner.partition(":")[0] / "copyright"
            return owner.partition(":")[0], copyright_.read_text("utf-8", "replace")
    return None


@cache
def _packages(path: str) -> str:
    try:
        done = subprocess.run(
            ["dpkg-query", "-S", path], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.partition(": ")[0].partition(",")[0] if done.returncode == 0 else ""


def _python(path: str) -> tuple[str, str] | None:
    """The interpreter, where it is no package of the system: its library has the text."""
    library = Path(sysconfig.get_path("stdlib"))
    text = library / "LICENSE.txt"
    homes = (library, Path(str(sysconfig.get_config_var("LIBDIR"))))
    if text.exists() and any(Path(os.path.realpath(path)).is_relative_to(home) for home in homes):
        return "python", text.read_text("utf-8", "replace")
    return None
