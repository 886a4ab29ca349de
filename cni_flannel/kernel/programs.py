"""The packet filter's programs: where they are, how they are run, what their failure says.

Knows no rule and no table. Failures become CNIErrors that quote the program, in words that no
runtime takes for "already gone" (containerd reads `not found` and `no such file or directory`
in any error of a DEL as success).

Imports os, cni.errors, cni.process.
"""

from __future__ import annotations

import os

from cni import process
from cni.errors import KERNEL_REFUSED, TRY_AGAIN_LATER, CNIError, harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
_PASSED_ON = ("XTABLES_LIBDIR", "XTABLES_LOCKFILE")
_LONGEST_QUOTE = 1000
_REMEDY = "see the kernel log (dmesg); list the rules: iptables -t nat -S, nft list ruleset"
_LIMIT_S = 60.0  # twice what iptables waits for the lock; nft has no limit of its own
_BUSY = 4
"""iptables' RESOURCE_PROBLEM; of the lock when the text says so (xshared.h)."""

INSTALL = {
    "iptables": "install iptables (Debian: apt-get install iptables), "
    'or set "ipMasqBackend": "nftables" and install nftables',
    "nft": "install nftables (Debian: apt-get install nftables)",
}


def _path(environ: Mapping[str, str]) -> str:
    given = environ.get("PATH", "")
    return ":".join([*([given] if given else []), *_FOLDERS])


def find(name: str, environ: Mapping[str, str]) -> str:
    """Return the program's path, or "": on PATH, then where systems keep such programs."""
    for folder in _path(environ).split(":"):
        path = f"{folder}/{name}"
        if folder.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def locate(name: str, environ: Mapping[str, str]) -> str:
    """Return the program's path; a CNIError saying what to install when there is none."""
    path = find(name, environ)
    if not path:
        package = "nft" if name == "nft" else "iptables"
        raise CNIError(
            KERNEL_REFUSED, f"failed to locate {name} in {_path(environ)}", INSTALL[package]
        )
    return path


def run(argv: list[str], environ: Mapping[str, str], stdin: str = "") -> process.Completed:
    """Run a program to its end; whether its status is a failure is the caller's to say.

    CNIError 11 if that does not come: one that hangs must not keep a resident process' thread.

    The environment is made anew: of the plugin's own, only PATH and the lock's place concern a
    packet filter, and a frozen program's LD_LIBRARY_PATH would give it the wrong libraries.
    """
    env = {name: environ[name] for name in _PASSED_ON if name in environ}
    env["PATH"] = _path(environ)
    env["LC_ALL"] = "C"
    data = stdin.encode("utf-8", "surrogateescape")
    try:
        return process.run(argv, stdin=data, env=env, timeout_s=_LIMIT_S)
    except TimeoutError as error:
        raise CNIError(
            TRY_AGAIN_LATER,
            f"run {argv[0]}: {error}",
            "look what it waits for: another program may hold the packet filter for long",
        ) from error
    except OSError as error:
        raise CNIError(
            KERNEL_REFUSED,
            f"run {argv[0]}: {harmless(str(error))}",
            "it must be an executable for this machine: install its package again",
        ) from error


def failure(what: str, program: str, done: process.Completed) -> CNIError:
    """Make the error of a program that failed while doing `what`."""
    text = _quote(done.stderr or done.stdout)
    ended = f"killed by signal {-done.status}" if done.status < 0 else f"status {done.status}"
    message = f"{what}: {program}: {ended}" + (f": {text}" if text else "")
    if done.status == _BUSY and "lock" in text:
        return CNIError(
            TRY_AGAIN_LATER,
            message,
            "another program holds the xtables lock for long: see `fuser /run/xtables.lock`",
        )
    return CNIError(KERNEL_REFUSED, message, _REMEDY)


def _quote(output: bytes) -> str:
    """Put what a program wrote on one line."""
    return harmless(" ".join(output.decode("utf-8", "replace").split())[:_LONGEST_QUOTE])
