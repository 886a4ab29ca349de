"""The bundles carry the licence of everything in them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = {
    "pair": ROOT / "dist" / "cni-flannel" / ".cni-flannel" / "current",
    "daemon": ROOT / "dist" / "flanneld" / "_internal",
}

pytestmark = pytest.mark.frozen


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Path:
    found = BUNDLES[request.param]
    if not found.exists():
        pytest.skip(f"{found} is not built: run ./build.sh")
    return found


def index(bundle: Path) -> dict[str, str]:
    lines = (bundle / "licences" / "INDEX").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_every_library_has_its_licence(bundle: Path) -> None:
    known = index(bundle)
    for file in bundle.rglob("*"):
        if file.is_symlink() or not file.is_file() or file.read_bytes()[:4] != b"\x7fELF":
            continue
        if file.name in ("python", "ld.so"):  # ours; libc's under its own name
            continue
        owners = {owner for name, owner in known.items() if name.startswith(file.name)}
        assert owners, f"nobody has {file.name}"


def test_every_licence_is_there(bundle: Path) -> None:
    folder = bundle / "licences"
    for owner in {*index(bundle).values(), "cni-flannel"}:
        text = (folder / owner).read_text()
        assert len(text) > 300
        for name in re.findall(r"/usr/share/common-licenses/([\w.+-]*\w)", text):
            assert (folder / name).stat().st_size > 300


def test_what_the_daemon_imports_is_among_them() -> None:
    bundle = BUNDLES["daemon"]
    if not bundle.exists():
        pytest.skip(f"{bundle} is not built: run ./build.sh")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    owners = {owner.lower().replace("-", "_") for owner in index(bundle).values()}
    for pin in (*project["dependency-groups"]["daemon"], "pyinstaller=="):
        name, version = pin.lower().replace("-", "_").split("==")
        assert [owner for owner in owners if owner.startswith(f"{name} {version}")], pin


# What tells that a library is linked into others' files -> whose licence it is.
LINKED = {
    b"third_party/boringssl": "BoringSSL",
    b"third_party/abseil": "Abseil",
    b"third_party/re2": "RE2",
    b"c-ares": "c-ares",
    b"third_party/upb": "upb",
    b"utf8_range": "utf8_range",
    b"XXH": "xxHash",
    b"deflate 1.": "zlib",
}


def test_what_is_linked_into_a_library_is_told_too(bundle: Path) -> None:
    known = index(bundle)
    for file in bundle.rglob("*.so"):
        content = file.read_bytes()
        if content[:4] != b"\x7fELF" or " " not in known.get(file.name, ""):
            continue  # the system's own tell it
        text = (bundle / "licences" / known[file.name]).read_text()
        for mark, name in LINKED.items():
            assert mark not in content or name in text, (file, name)
        found = set(re.findall(rb"third_party/([a-z0-9]+)", content))
        told = {mark.partition(b"/")[2] for mark in LINKED}
        assert found <= told, (file, found - told)


def test_the_launchers_c_library_is_among_them() -> None:
    bundle = BUNDLES["pair"]
    if not bundle.exists():
        pytest.skip(f"{bundle} is not built: run ./build.sh")
    assert "libc.a" in index(bundle)


def test_a_file_that_belongs_to_nobody_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "libstray.so.1").touch()
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'packaging')!r})\n"
        f"from licences import licences; licences([{str(tmp_path / 'libstray.so.1')!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "libstray.so.1 would be in the bundle without its licence" in done.stderr
