"""Who is there: VERSION (spec sections 2 and 5), and a person who starts the program by hand.

Knows nothing of plugins. VERSION may be asked without any input, and without its end: a person at
a terminal, a script that leaves a pipe open. So stdin is only glanced at.
Imported for these two alone.
"""

from __future__ import annotations

import os

from cni.version import SUPPORTED
from cni.wire import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_WAIT_MS = 200  # libcni writes its few bytes at once
_ENOUGH = 1 << 16


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


def introduce(about: str, argv: list[str], note: Callable[[str], None]) -> int:
    """Tell a person what this is; the exit status."""
    note(about)
    note(f"CNI protocol versions supported: {', '.join(SUPPORTED)}")
    if not argv or argv[0] in ("-h", "--help", "-v", "--version", "version"):
        return 0
    note(f"unknown arguments: {' '.join(argv)}; a CNI plugin takes its call from CNI_COMMAND,")
    note("CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH and the configuration on stdin")
    return 2
