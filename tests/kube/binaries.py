"""Kubernetes' own programs, built once from Debian's source package, and kept in a cache.

    ${CNI_FLANNEL_CACHE:-${XDG_CACHE_HOME:-~/.cache}/cni-flannel}/
        kubernetes.lock                 held while somebody builds
        kubernetes.log                  what the last build printed
        kubernetes-1.20.2-RECIPE/       the programs and SHA256SUMS; RECIPE hashes their recipe
        building/                       the build under way: 2 GB, gone in the end

Debian 12 is the last release whose source package holds the whole of Kubernetes, with the libraries
it needs. The compiler is Debian's too, and is only unpacked: neither the machine's packages nor its
list of sources change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "1.20.2"
_VERSION = "k8s.io/kubernetes/vendor/k8s.io/component-base/version"
_CLIENT_VERSION = "k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version"
PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
SUITE = "bookworm"
SOURCE = "kubernetes_1.20.5+really1.20.2.orig.tar.gz"
SOURCE_SHA256 = "b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc"
COMPILER = ("golang-1.19-go", "golang-1.19-src")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_STAMP = " ".join(
    (
        f"-X {_VERSION}.gitVersion=v{VERSION}",
        f"-X {_CLIENT_VERSION}.gitVersion=v{VERSION}",
        f"-X {_VERSION}.gitMajor=1",
        f"-X {_VERSION}.gitMinor=20",
    )
)
# Without the clouds' libraries and docker's it is half the work.
_FLAGS = (
    *("-tags", "providerless,dockerless", "-trimpath", "-ldflags"),
    f"-s -w {_STAMP}",
)
_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")
_DEBIAN = {"bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"}


class BuildError(Exception):
    """The programs could not be built; the message says where the log is."""


def folder() -> Path:
    """Give the folder of the programs, whether they are built or not."""
    recipe = repr((platform.machine(), PROGRAMS, SOURCE_SHA256, COMPILER, _FLAGS))
    return _cache() / f"kubernetes-{VERSION}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def is_built() -> bool:
    """Whether the programs are there and are what the build has left."""
    try:
        sums = (folder() / "SHA256SUMS").read_text()
    except FileNotFoundError:
        return False
    return sums == _sums(folder())


def build() -> Path:
    """Build the programs unless they are there; their folder. BuildError.

    Whoever comes second waits. A build that was killed leaves `building/` to the next one.
    """
    if not is_built():
        _cache().mkdir(parents=True, exist_ok=True)
        with _locked() as lock:
            if not is_built():
                _build(lock)
    return folder()


def _build(lock: int) -> None:
    scratch = _cache() / "building"
    shutil.rmtree(folder(), ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    start = time.monotonic()
    print(f"building Kubernetes {VERSION}, once: {folder()}", file=sys.stderr)
    with (_cache() / "kubernetes.log").open("w+") as log:
        workshop = _Workshop(scratch, lock, log.fileno())
        try:
            done = _compile(workshop)
        except subprocess.CalledProcessError as error:
            log.seek(0)
            last = "".join(log.readlines()[-12:])
            program = next(word for word in error.cmd if word not in _UNSHARE)
            raise BuildError(f"{program} has failed; {log.name} ends with:\n{last}") from None
    (done / "SHA256SUMS").write_text(_sums(done))
    os.sync()
    done.rename(folder())
    shutil.rmtree(scratch)
    print(f"built in {time.monotonic() - start:.0f} s", file=sys.stderr)


class _Workshop(NamedTuple):
    """Where the build runs. Its programs end with this process, and hold the lock until then."""

    path: Path
    lock: int
    log: int

    def run(self, *argv: str, env: dict[str, str] | None = None, within: str = ".") -> None:
        """Run a program. subprocess.CalledProcessError."""
        unshare = _UNSHARE if os.geteuid() == 0 else ()
        subprocess.run(
            [*unshare, *argv],
            cwd=self.path / within,
            env={"PATH": os.environ["PATH"], "HOME": str(self.path), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=[self.lock],
            check=True,
        )


def _compile(workshop: _Workshop) -> Path:
    """Fetch and unpack the source and the compiler, generate what is generated, compile."""
    _say("fetching the source and the compiler")
    _fetch(workshop)
    for package in workshop.path.glob("golang-*.deb"):
        workshop.run("dpkg-deb", "--extract", str(package), "go")
    tree = "path/src/k8s.io/kubernetes"
    (workshop.path / tree).mkdir(parents=True)
    workshop.run("tar", "-xzf", SOURCE, "-C", tree, "--strip-components=1")
    go = workshop.path / "go/usr/lib/go-1.19"
    env = {
        "PATH": f"{go}/bin:{os.environ['PATH']}",
        "GOROOT": str(go),
        "GOPATH": str(workshop.path / "path"),
        "GOCACHE": str(workshop.path / "cache"),
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
    }
    _say("generating code")
    workshop.run("make", "generated_files", env=env, within=tree)
    _say("compiling")
    commands = (f"./cmd/{program}" for program in PROGRAMS)
    workshop.run("go", "install", *_FLAGS, *commands, env=env, within=tree)
    return workshop.path / "path/bin"


def _fetch(workshop: _Workshop) -> None:
    """Fetch by apt, which checks the signatures, with lists of its own."""
    apt = workshop.path / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True)
    where = f"[signed-by={KEYRING}] {_mirror()} {SUITE} main"
    (apt / "sources.list").write_text(f"deb {where}\ndeb-src {where}\n")
    options = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": apt / "lists",
        "Dir::State::Status": "/dev/null",
        "Dir::Cache": apt,
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    command = ["apt-get", "--quiet"]
    command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    workshop.run(*command, "update")
    workshop.run(*command, "source", "--download-only", f"kubernetes/{SUITE}")
    workshop.run(*command, "download", *COMPILER)
    source = workshop.path / SOURCE
    if not source.exists() or _sha256(source) != SOURCE_SHA256:
        raise BuildError(f"Debian's source package of Kubernetes is not {SOURCE} {SOURCE_SHA256}")


def _mirror() -> str:
    """Give the mirror of Debian that this machine uses. BuildError."""
    form = "$(SITE) $(RELEASE) $(COMPONENT)"
    asked = ("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    for line in lines:
        site, release, component = line.split(" ")
        if release in _DEBIAN and component == "main":
            return site
    raise BuildError("apt has no mirror of Debian, from which Kubernetes' source could come")


def _say(step: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {step}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _locked() -> Iterator[int]:
    with (_cache() / "kubernetes.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build of Kubernetes", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _cache() -> Path:
    default = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CNI_FLANNEL_CACHE") or Path(default) / "cni-flannel")


def _sums(programs: Path) -> str:
    """Give the checksums as `sha256sum --check` reads them; "" if a program is missing."""
    try:
        return "".join(f"{_sha256(programs / name)}  {name}\n" for name in PROGRAMS)
    except FileNotFoundError:
        return ""


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as error:
        raise SystemExit(f"{error}") from None
