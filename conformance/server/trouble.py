"""The resident process gone, stopped, replaced by a stranger or short of something: one by one.

In each trouble an attachment lives its life: ADD, CHECK and DEL succeed, since the launcher does
them itself. Where the node has no room for any plugin to work, the ADD is refused with a code.
When the trouble is over, the resident process serves again.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.resident import SOCKET
from conformance.server.impostor import MANNERS, SOMEBODY_ELSE
from conformance.server.site import Site, options, possible
from conformance.stress import pool
from conformance.stress.figure import Figure, Tally
from conformance.stress.scene import DATA
from conformance.stress.verdict import brief, complaints

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

IMPOSTOR = Path(__file__).with_name("impostor.py")
STRANGER = "somebody there {}"
_LONG = ("greets and is silent", "asks for ever")  # until the launcher has waited as long as it may
_FULL = f"mount -t tmpfs -o size=64k full {DATA} && head -c 1M /dev/zero >{DATA}/filler"


@contextmanager
def killed(site: Site) -> Iterator[None]:
    """Its socket is there, and nobody listens."""
    site.resident.kill()
    try:
        yield
    finally:
        site.resident.start()


@contextmanager
def ended(site: Site) -> Iterator[None]:
    """It has ended as it should, and taken its socket away."""
    site.resident.kill(signal.SIGTERM)
    assert not site.world.path(SOCKET).exists(), "the socket of a process that has ended is there"
    try:
        yield
    finally:
        site.resident.start()


@contextmanager
def stopped(site: Site) -> Iterator[None]:
    """It is there, and does nothing until the trouble is over."""
    site.resident.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        site.resident.kill(signal.SIGCONT)


@contextmanager
def without_socket(site: Site) -> Iterator[None]:
    """Somebody has removed the socket of a living process; it is started anew."""
    site.world.path(SOCKET).unlink()
    try:
        yield
    finally:
        site.resident.restart()


@contextmanager
def with_a_file(site: Site) -> Iterator[None]:
    """A file is where the socket was."""
    site.world.path(SOCKET).unlink()
    site.world.path(SOCKET).write_text("no socket")
    try:
        yield
    finally:
        site.resident.restart()


@contextmanager
def with_a_folder(site: Site) -> Iterator[None]:
    """There is a folder where the socket's folder was."""
    site.world.run(["mount", "-t", "tmpfs", "other", str(Path(SOCKET).parent)])
    try:
        yield
    finally:
        site.world.run(["umount", str(Path(SOCKET).parent)])


def with_descriptors(spare: int) -> Callable[[Site], AbstractContextManager[None]]:
    """It can open no more than so many descriptors beyond those that it has."""

    @contextmanager
    def trouble(site: Site) -> Iterator[None]:
        pid = site.resident.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        there = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (there + spare, limits[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

    return trouble


@contextmanager
def with_a_full_disk(site: Site) -> Iterator[None]:
    """No plugin can write a lease."""
    site.world.run(["sh", "-c", _FULL], check=False)
    try:
        yield
    finally:
        site.world.run(["umount", DATA])


def with_impostor(manner: str) -> Callable[[Site], AbstractContextManager[None]]:
    """Somebody else listens there: see `impostor`."""

    @contextmanager
    def trouble(site: Site) -> Iterator[None]:
        site.resident.kill()
        socket = str(site.world.path(SOCKET))
        impostor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(IMPOSTOR), socket, manner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert impostor.stdout is not None
        assert impostor.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            impostor.kill()
            impostor.communicate()
            site.resident.start()

    return trouble


TROUBLES: dict[str, Callable[[Site], AbstractContextManager[None]]] = {
    "it was killed": killed,
    "it has ended": ended,
    "it is stopped": stopped,
    "its socket was removed": without_socket,
    "a file is there": with_a_file,
    "its folder is covered": with_a_folder,
    "it has no descriptor left": with_descriptors(0),
    "it has few descriptors": with_descriptors(5),
    "the disk is full": with_a_full_disk,
    **{STRANGER.format(manner): with_impostor(manner) for manner in MANNERS},
}
REFUSED = ("the disk is full",)


def try_trouble(site: Site, name: str) -> Tally:
    """Bring one trouble about; what was wrong during it and afterwards."""
    site.begin()
    problems = site.bounded(lambda: _try_trouble(site, name))
    return Tally({"troubles": 1}, [f"{name}: {problem}" for problem in problems])


def _try_trouble(site: Site, name: str) -> Iterator[str]:
    with TROUBLES[name](site):
        yield from _refused(site) if name in REFUSED else site.judge_life()
        site.resident.forget()
    site.settle()
    for line in [*site.left(), *site.judge_life()]:
        yield f"afterwards: {line}"


def _refused(site: Site) -> list[str]:
    """ADD either succeeds or says what is wrong; DEL succeeds."""
    added = site.call("ADD")
    problems = site.judge_add(added) if added.status == 0 else complaints(added)
    deleted = site.call("DEL")
    if deleted.status != 0:
        problems.append(f"DEL: {brief(deleted)} after {brief(added)}")
    return problems


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("server-trouble", __doc__ or "")
    parser.add_argument("--trouble", help="only those whose name holds this text")
    parser.add_argument(
        "--quick", action="store_true", help="without those that last as long as a call may"
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    figure = Figure("server-trouble", ("troubles",), as_json=args.json)
    todo = [
        name
        for name in possible(list(TROUBLES), STRANGER.format(SOMEBODY_ELSE), figure)
        if (args.trouble or "") in name and not (args.quick and name.endswith(_LONG))
    ]
    place = (args.bin_dir, "dual-nftables")
    for tally in pool.spread(args.jobs, Site, place, try_trouble, todo):
        figure.add(tally)
        figure.progress(f"{figure.counts['troubles']} of {len(todo)}")
    return figure.finish()
