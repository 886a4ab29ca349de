"""Who is there: VERSION (spec sections 2 and 5), and a person who starts the program by hand.

Knows nothing of plugins. VERSION may be asked without any input, and without its end: a person at
a terminal, a script that leaves a pipe open. So stdin is only glanced at.
Imported for these two alone.
"""

from __future__ import annotations

import os
import sys

from cni.version import SUPPORTED
from cni.wire import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_WAIT_MS = 200  # libcni writes its few bytes at once
_ENOUGH = 1 << 16
_MANNERS = (
    "a CNI plugin takes its call from CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME,",
    "CNI_PATH and the configuration on stdin; --version says which build this is",
)


def answer(stdin: bytes) -> bytes:
    """Repeat the caller's version; whoever sends none that we know gets our newest."""
    try:
        conf = loads(stdin) if stdin.strip() else None  # to explain nothing takes 10 ms
    except ValueError:
        conf = None  # the answer does not depend on it
    asked = conf.get("cniVersion") if isinstance(conf, dict) else None
    spoken = asked if asked in SUPPORTED else SUPPORTED[-1]
    known = {"cniVersion": spoken, "supportedVersions": list(SUPPORTED)}
    return dumps(known).encode() + b"\n"


def glance() -> bytes:
    """Return what stdin gives at once, or nothing."""
    import select

    poll = select.poll()
    poll.register(0, select.POLLIN)
    try:
        return os.read(0, _ENOUGH) if poll.poll(_WAIT_MS) else b""
    except OSError:
        return b""


def introduce(about: str, argv: list[str], note: Callable[[str], None]) -> tuple[int, bytes]:
    """Tell a person what this is; the exit status, and what belongs on stdout."""
    if argv and argv[0] in ("-v", "--version", "version"):
        return 0, f"{_build()}\n".encode()
    lines = [about, f"CNI protocol versions supported: {', '.join(SUPPORTED)}"]
    if argv and argv[0] in ("-h", "--help", "help"):
        return 0, "\n".join((*lines, *_MANNERS, "")).encode()
    for line in lines if not argv else (f"unknown arguments: {' '.join(argv)}", *_MANNERS):
        note(line)
    return (2 if argv else 0), b""


def _build() -> str:
    """What the frozen folder says of itself."""
    try:
        with open(f"{sys.path[0]}/MARKER", encoding="utf-8") as file:
            return file.read().rstrip()
    except OSError:
        return f"cni-flannel of a checkout, python {sys.version.partition(' ')[0]}"
