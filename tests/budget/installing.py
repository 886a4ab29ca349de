"""`flanneld install`, on folders of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.budget.mounts import in_private

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "dist" / "cni-flannel"
PROGRAM = ROOT / "dist" / "flanneld" / "flanneld"
PROGRAMS = ("flannel", "host-local")
BASE = ".cni-flannel"
GO = b"\x7fELF of another project, in Go"

# A machine whose systemd only notes what it is asked, whose units and /run are its own.
FAKE_SYSTEMD = """
mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/bin
mount -t tmpfs -o mode=755 none /etc/systemd/system
printf '#!/bin/sh\\necho "$@" >>/run/asked\\n' >/run/bin/systemctl && chmod +x /run/bin/systemctl
export PATH=/run/bin:$PATH
"""


def run(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command; it does not touch the machine's systemd."""
    return subprocess.run(
        [PROGRAM, "install", *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **variables},
    )


def install(source: Path, target: Path, *words: str) -> str:
    """Install the pair by itself; what was said."""
    done = run("--no-units", "--from", source, *words, target)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def with_systemd(script: str) -> str:
    """Run a shell line on a machine with a systemd of its own; `$install` is the command."""
    return in_private(f'{FAKE_SYSTEMD}\ninstall="{PROGRAM} install"\n{script}')


def answer(program: Path) -> subprocess.CompletedProcess[bytes]:
    """Ask a plugin for VERSION."""
    environ = {"CNI_COMMAND": "VERSION", "PATH": "/usr/bin:/bin"}
    return subprocess.run([program], input=b"{}", env=environ, capture_output=True, check=False)


def answers(program: Path) -> bool:
    """Whether a plugin answers VERSION."""
    done = answer(program)
    return done.returncode == 0 and b"supportedVersions" in done.stdout


def builds(folder: Path) -> list[str]:
    """Name what is in the folder of builds; `current` first."""
    names = set(os.listdir(folder / BASE)) - {"made"}
    return sorted(names, key=lambda name: (name != "current", name))


def other_build(folder: Path) -> Path:
    """Make of the built pair one that another build could be."""
    shutil.copytree(BUILT, folder, symlinks=True)
    current = folder / BASE / "current"
    name, other = os.readlink(current), "0.0.9+00000000"
    (folder / BASE / name).rename(folder / BASE / other)
    current.unlink()
    current.symlink_to(other)
    marker = folder / BASE / other / "MARKER"
    marker.write_text(marker.read_text().replace(name, other))
    return folder


def tree(folder: Path) -> Mapping[str, tuple[int, bytes | str]]:
    """Everything below a folder: mode, and content or where a link leads."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for where, folders, files in os.walk(folder):
        for path in (Path(where, name) for name in (*folders, *files)):
            mode = path.lstat().st_mode
            content = os.readlink(path) if path.is_symlink() else b""
            found[str(path)] = (mode, path.read_bytes() if path.is_file() else content)
    return found
