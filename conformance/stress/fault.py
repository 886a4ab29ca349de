"""An error instead of each file and netlink call of an ADD and of a DEL, one at a time.

ENOSPC, EIO, EACCES, EMFILE, EINTR, EBUSY. Whatever fails, the plugin ends with success or with one
JSON error of the table; a DEL after it succeeds, and nothing is left. Calls before the first read
of stdin are the loader's and the interpreter's own, and are left out; so are those of programs
that the plugin runs: `iptables-restore` whose read fails takes it for the end, and says that all
is well. `--follow` strikes them too (a Go plugin's delegates are such programs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from conformance.stress import injection, pool
from conformance.stress.figure import Figure, Tally, options
from conformance.stress.scene import KINDS, Scene
from conformance.stress.verdict import brief, complaints
from conformance.words import positive

if TYPE_CHECKING:
    import argparse

    from conformance.stress.injection import Place

ERRORS = ("ENOSPC", "EIO", "EACCES", "EMFILE", "EINTR", "EBUSY")
CALLS = frozenset(
    """
    open openat openat2 creat read pread64 readv write pwrite64 writev lseek ftruncate
    fallocate link linkat symlink symlinkat rename renameat renameat2 unlink unlinkat mkdir
    mkdirat rmdir stat lstat fstat newfstatat statx readlink readlinkat access faccessat
    faccessat2 getdents64 chmod fchmod fchmodat utimensat flock fcntl fsync fdatasync dup dup2
    dup3 memfd_create pipe2 inotify_init1 inotify_add_watch poll ppoll select pselect6
    epoll_wait epoll_ctl socket bind getsockname setsockopt getsockopt sendmsg sendto sendmmsg
    recvmsg recvfrom setns unshare ioctl vfork clone clone3 execve wait4 waitid
    """.split()  # noqa: SIM905 - names of manual pages, to be read in rows
)
VICTIMS = ("ADD", "DEL")


class Fault(NamedTuple):
    """One error: in which verb, at which place, which."""

    victim: str
    place: Place
    error: str
    follow: bool = False


def faults(scene: Scene, errors: list[str], every: int, *, follow: bool) -> list[Fault]:
    """Record an ADD and a DEL; every `every`-th pair of place and error, for each."""
    found = []
    scene.begin()
    for victim in VICTIMS:
        done = scene.call(victim, prefix=injection.record("/run/trace", follow=follow))
        assert done.status == 0, done
        trace = scene.world.path("/run/trace").read_text()
        places = [one for one in injection.places(trace, after_stdin=True) if one.name in CALLS]
        pairs = [Fault(victim, place, error, follow) for place in places for error in errors]
        found += pairs[::every]
    scene.world.path("/run/trace").unlink()
    scene.restart()
    return found


def try_fault(scene: Scene, fault: Fault) -> Tally:
    """Inject once; what was wrong."""
    counts = {"errors injected": 1}
    problems = scene.bounded(lambda: _try_fault(scene, fault, counts))
    where = f"{scene.kind} {fault.victim} {fault.error} at {fault.place}"
    return Tally(counts, [f"{where}: {problem}" for problem in problems])


def _try_fault(scene: Scene, fault: Fault, counts: dict[str, int]) -> list[str]:
    scene.begin()
    if fault.victim == "DEL":
        done = scene.call("ADD")
        if done.status != 0:
            return [f"ADD before the DEL: {brief(done)}"]
    prefix = injection.strike(fault.place, f"error={fault.error}", follow=fault.follow)
    done = scene.call(fault.victim, prefix=prefix)
    problems = complaints(done, document=fault.victim == "ADD")
    if fault.place.name in {"write", "writev"} and done.status == 1 and not done.stdout:
        problems = [] if done.stderr else ["silence"]  # stdout itself failed: stderr has to do
    counts["succeeded all the same" if done.status == 0 else "coded errors"] = 1
    if fault.victim == "DEL" and done.status == 0:
        # symbolic links are no leases: what a plugin keeps in them is a cache, checked at the end
        kept = [one for one in scene.left() if not one.startswith("left: symlink")]
        problems += [f"after a successful DEL: {one}" for one in kept]
    again = scene.call("DEL")
    if again.status != 0 or again.stdout:
        problems.append(f"DEL after {brief(done)}: {brief(again)}")
    left = scene.left()
    if fault.error == "ENOSPC":  # a lease that finds no room takes that of a link in the index
        left = [one for one in left if not one.startswith("lost: symlink")]
    return problems + ([*left, f"the call said {brief(done)}"] if left else [])


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = options("fault", __doc__ or "")
    parser.add_argument("--plugin", default="flannel", choices=("flannel", "bridge"))
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--error", action="append", choices=ERRORS, help="default: all")
    parser.add_argument("--every", type=positive, default=1, help="only every K-th pair")
    parser.add_argument("--follow", action="store_true", help="strike the plugin's children too")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the verb."""
    args = arguments(argv)
    names = ("errors injected", "coded errors", "succeeded all the same")
    figure = Figure("fault", names, as_json=args.json)
    for kind in args.kind or KINDS:
        place = (args.bin_dir, kind, args.plugin)
        with Scene(*place) as scene:
            todo = faults(scene, args.error or list(ERRORS), args.every, follow=args.follow)
        done = pool.spread(args.jobs, Scene, place, try_fault, todo)
        for number, tally in enumerate(done, 1):
            figure.add(tally)
            figure.progress(f"{kind}: {number} of {len(todo)}")
    return figure.finish()
