"""packaging/locks has the pins of pyproject.toml, each with the hashes of its files."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "packaging" / "locks").glob("*.txt"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}( \\)?")


def pins(groups: dict[str, Any], name: str) -> set[str]:
    found = set()
    for entry in groups[name]:
        found |= {entry} if isinstance(entry, str) else pins(groups, entry["include-group"])
    return found


def normal(pin: str) -> str:
    name, version = pin.split("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def entries(lock: Path) -> list[str]:
    """Each pin with the lines of its hashes."""
    lines = [line for line in lock.read_text().splitlines() if line and line[0] != "#"]
    return re.split(r"\n(?! )", "\n".join(lines))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_the_pins_of_its_group_and_nothing_else(lock: Path) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    locked = {normal(entry.partition(" ")[0]) for entry in entries(lock)}
    assert locked == {normal(pin) for pin in pins(groups, lock.stem)}, "./build.sh lock"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_pin_has_hashes(lock: Path) -> None:
    for entry in entries(lock):
        pin, *hashes = entry.splitlines()
        assert pin.endswith(" \\")
        assert hashes
        assert all(HASH.fullmatch(line.strip()) for line in hashes)


def test_build_installs_by_hash_only() -> None:
    text = (ROOT / "build.sh").read_text()
    for line in text.splitlines():
        if "pip" in line and " install " in line and "pip-tools" not in line:
            assert "--require-hashes -r" in line
    installed = set(re.findall(r"set_up ([a-z]+)", text))
    assert installed == {path.stem for path in LOCKS}


def test_a_file_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    """As pip has it: one digit changed, and nothing comes."""
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    wheel.write_bytes(b"PK\5\6" + bytes(18))
    (tmp_path / "lock.txt").write_text(f"thing==1.0 --hash=sha256:{'0' * 64}\n")
    words = ["--no-index", "--find-links", str(tmp_path), "-r", str(tmp_path / "lock.txt")]
    pip = [sys.executable, "-m", "pip", "install", "--target", str(tmp_path / "out")]
    done = subprocess.run(
        [*pip, "--require-hashes", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
