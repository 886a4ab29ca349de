"""The container image: dist/ and the packet filter's programs, as an OCI archive without a shell.

    PYTHONPATH=.:packaging python deploy/image.py OUTPUT

All of it comes from this checkout's dist/ and from this system's packages. The same inputs give the
same bytes.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import sys
import sysconfig
import tomllib
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from libraries import closure
from licences import licences

from conformance.real import oci
from conformance.real.oci import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[1]
NAME = "localhost/cni-flannel"
PLACE = "opt/flannel"
_SBIN = "/usr/sbin"
_KINDS = {"nft": f"{_SBIN}/xtables-nft-multi", "legacy": f"{_SBIN}/xtables-legacy-multi"}
_TRIPLET = sysconfig.get_config_var("MULTIARCH")
_LIBRARIES = f"/usr/lib/{_TRIPLET}"
_FOLDERS = [
    "dev",
    "etc/cni/net.d",
    "etc/kube-flannel",
    "opt/bin",
    "opt/cni/bin",
    "proc",
    "root",
    "run/flannel",
    "sys",
    "tmp",
    "usr/bin",
    "var/lib/flannel",
    "var/run",
]
_TEXTS = {
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/passwd": "root:x:0:0:root:/root:/nologin\n",
}


def main(output: str) -> int:
    """Write the archive by rename."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    machine = platform.machine()
    content = oci.layer(_with_folders(entries()))
    archive = oci.image(
        f"{NAME}:{project['version']}",
        content,
        oci.ARCHITECTURES.get(machine, machine),
        Entrypoint=["/opt/bin/flanneld"],
        Env=["PATH=/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        Labels={
            "org.opencontainers.image.title": project["name"],
            "org.opencontainers.image.version": project["version"],
            "org.opencontainers.image.licenses": project["license"],
        },
    )
    Path(f"{output}.new").write_bytes(archive)
    os.rename(f"{output}.new", output)
    return 0


def entries() -> Iterator[Entry]:
    """Give all that is in the image."""
    for name in ("flanneld", "cni-flannel"):
        yield from _tree(ROOT / "dist" / name, f"{PLACE}/{name}")
    yield Entry("opt/bin/flanneld", link=f"../../{PLACE}/flanneld/flanneld")
    yield from map(Entry, _FOLDERS)
    for path, text in _TEXTS.items():
        yield Entry(path, text.encode(), mode=0o644)
    for folder in ("bin", "lib", "lib64", "sbin"):
        yield Entry(folder, link=f"usr/{folder}")
    programs = [*_KINDS.values(), f"{_SBIN}/nft"]
    extensions = sorted(glob.glob(f"{_LIBRARIES}/xtables/*.so"))
    loader, shared = _shared([*programs, *extensions])
    yield from _linked(loader)
    yield from (_file(source, source) for source in (*programs, *extensions))
    yield from (_file(source, f"{_LIBRARIES}/{name}") for name, source in shared.items())
    yield from _names()
    texts = licences([*programs, loader, *shared.values()])  # the extensions are of iptables, too
    for name, text in sorted(texts.items()):
        yield Entry(f"{PLACE}/licences/{name}", text.encode(), mode=0o644)


def _names() -> Iterator[Entry]:
    """Give the names of the two programs that are iptables; the plain ones are of the first."""
    for (kind, program), version in product(_KINDS.items(), ("iptables", "ip6tables")):
        plain = [version] if kind == "nft" else []
        for name, part in product([*plain, f"{version}-{kind}"], ("", "-save", "-restore")):
            yield Entry(f"{_SBIN[1:]}/{name}{part}", link=os.path.basename(program))


def _shared(programs: list[str]) -> tuple[str, dict[str, str]]:
    """Find the loader, and the libraries that a bundle does not bring itself."""
    daemon = str(ROOT / "dist/flanneld/flanneld")
    loader, found = closure([daemon, *programs])
    inside = ROOT / "dist/flanneld/_internal"
    bundled = [str(path) for path in sorted(inside.rglob("*")) if _is_library(path)]
    brought = {os.path.basename(path) for path in bundled}
    _, needed = closure(bundled)
    missing = {name: path for name, path in needed.items() if name not in brought}
    return loader, dict(sorted((found | missing).items()))


def _is_library(path: Path) -> bool:
    return not path.is_symlink() and re.search(r"\.so(\.\d+)*$", path.name) is not None


def _linked(loader: str) -> Iterator[Entry]:
    """Give the loader, and the name by which programs ask for it."""
    name = os.path.basename(loader)
    yield _file(loader, f"{_LIBRARIES}/{name}")
    folder = "lib64" if os.path.exists(f"/lib64/{name}") else "lib"
    yield Entry("usr/lib64")
    yield Entry(
        f"usr/{folder}/{name}", link=os.path.relpath(_LIBRARIES, f"/usr/{folder}") + f"/{name}"
    )


def _tree(source: Path, place: str) -> Iterator[Entry]:
    for path in sorted(source.rglob("*")):
        name = f"{place}/{path.relative_to(source)}"
        if path.is_symlink():
            yield Entry(name, link=os.readlink(path))
        elif path.is_file():
            yield _file(str(path), name)


def _file(source: str, place: str) -> Entry:
    mode = 0o755 if os.stat(source).st_mode & 0o111 else 0o644
    return Entry(place.lstrip("/"), Path(source).read_bytes(), mode=mode)


def _with_folders(found: Iterable[Entry]) -> list[Entry]:
    """Sort, and put the folders in front that something lies in."""
    every = {entry.path: entry for entry in found}
    for path in list(every):
        while path := os.path.dirname(path):
            every.setdefault(path, Entry(path))
    return [every[path] for path in sorted(every)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
