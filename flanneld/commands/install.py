"""``flanneld install``: put the plugins, or the daemon, on a node, or take them away.

A node goes on working meanwhile: no call of a plugin fails, and a daemon that runs keeps its build.
What is replaced is kept, and put back by ``--uninstall``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flanneld.commands.words import Parser
from flanneld.installation import daemon, pair
from flanneld.installation.errors import InstallError

if TYPE_CHECKING:
    import argparse

_SELF = Path(sys.executable if getattr(sys, "frozen", False) else __file__).resolve()
_DIST = _SELF.parents[1] if getattr(sys, "frozen", False) else _SELF.parents[2] / "dist"


async def run(argv: list[str]) -> int:
    """Install or uninstall: 0 if done, 1 if it failed or something stays, 2 if it was not tried."""
    wanted = _parser().parse_args(argv)
    os.umask(0o022)  # everybody may run a plugin, and only root may change one
    signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio would wait for the end
    try:
        folder, root = _places(wanted)
        if wanted.daemon:
            return _daemon(daemon.Daemon(folder, root, _say), wanted)
        return _pair(pair.Pair(folder, root, _say), wanted)
    except InstallError as error:
        sys.stderr.write(f"flanneld install: {error}\n")
        return 1
    except OSError as error:
        what = error.filename or "the files"
        sys.stderr.write(f"flanneld install: {what}: {error.strerror or error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("flanneld install: interrupted; run it again, which completes it\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="flanneld install",
        description=(
            f"Install the plugins into DIR ({pair.FOLDER}), or with --daemon the daemon"
            f" ({daemon.FOLDER}), while the node goes on working. What another program has there"
            " is kept. With DESTDIR in the environment, DIR and the units are put below it, and"
            " nothing is started."
        ),
        epilog="Exit status: 0 done, 1 failed, 2 nothing was tried.",
        allow_abbrev=False,
    )
    made.add_argument("dir", metavar="DIR", nargs="?", help="an absolute path, or one from here")
    made.add_argument("--daemon", action="store_true", help="the daemon, and its unit")
    made.add_argument(
        "--resident", action="store_true", help="the plugins, and units of the resident process"
    )
    made.add_argument("--no-units", action="store_true", help="leave systemd alone")
    made.add_argument(
        "--uninstall", action="store_true", help="put back what was there, and remove all of ours"
    )
    made.add_argument("--check", action="store_true", help="look whether it could be done, and end")
    made.add_argument("--from", dest="source", metavar="BUILT", help="the built folder to install")
    return made


def _places(wanted: argparse.Namespace) -> tuple[str, str]:
    """The folder on the node, and the root that it is below; checks what the words alone tell."""
    if wanted.daemon and wanted.resident:
        _refuse("--resident is for the plugins: install the daemon by itself")
    if wanted.uninstall and (wanted.resident or wanted.source):
        _refuse("--uninstall takes DIR, --daemon and --no-units only")
    for name, value in (("DIR", wanted.dir), ("--from", wanted.source)):
        if value == "":
            _refuse(f"{name} is empty")
    folder = os.path.abspath(wanted.dir or (daemon.FOLDER if wanted.daemon else pair.FOLDER))
    root = os.path.abspath(os.environ["DESTDIR"]) if os.environ.get("DESTDIR") else ""
    place = root + folder
    if folder == "/" or (os.path.lexists(place) and not os.path.isdir(place)):
        _refuse(f"{place} is no folder to install into")
    return folder, "" if root == "/" else root


def _refuse(text: str) -> None:
    _parser().error(text)


def _pair(one: pair.Pair, wanted: argparse.Namespace) -> int:
    units = not wanted.no_units
    if wanted.uninstall:
        return 0 if wanted.check or one.uninstall(units=units) else 1
    one.check(resident=wanted.resident, units=units)
    if not wanted.check:
        source = wanted.source or str(_DIST / "cni-flannel")
        one.install(source, resident=wanted.resident, units=units)
    return 0


def _daemon(one: daemon.Daemon, wanted: argparse.Namespace) -> int:
    units = not wanted.no_units
    if wanted.uninstall:
        return 0 if wanted.check or one.uninstall(units=units) else 1
    one.check(units=units)
    if not wanted.check:
        one.install(wanted.source or str(_DIST / "flanneld"), units=units)
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"install: {text}\n")
