"""The import budget of the per-pod path: what an entry point may load before it does its work.

A module of the standard library that looks harmless (json, socket, typing) costs as much as the
whole kernel work of an ADD. Each entry point is imported in a bare interpreter, and whatever
appears must be ours or on the list.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("cni", "ipam", "netlink", "cni_flannel")

# Modules that are a part of the interpreter, or of no more cost than one of ours.
ALLOWED = set(
    """
    __future__ _abc _collections_abc abc genericpath os os.path posixpath stat struct sys
    _ctypes _json _signal _socket _stat _struct _thread errno fcntl time zlib
    """.split()  # noqa: SIM905
)

ENTRY_POINTS = (
    "cni_flannel.__main__",
    "cni_flannel.plugin",
    "cni_flannel.bridge.plugin",
    "ipam.__main__",
    "ipam.plugin",
)

PROBE = """
import sys
before = set(sys.modules)
sys.path.insert(0, {root!r})
import {module}
loaded = sorted(set(sys.modules) - before)
import json
print(json.dumps(loaded))
"""


def loaded_by(module: str, root: Path = ROOT) -> set[str]:
    """Modules that importing one module loads, beyond those of a bare interpreter."""
    probe = PROBE.format(root=str(root), module=module)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def over_budget(modules: set[str]) -> set[str]:
    """Modules that are neither ours nor allowed."""
    return {name for name in modules - ALLOWED if name.partition(".")[0] not in OURS}


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_entry_point_keeps_the_budget(module: str) -> None:
    assert over_budget(loaded_by(module)) == set()


@pytest.mark.parametrize(
    "module", ["re", "enum", "typing", "socket", "json", "subprocess", "pathlib", "ctypes"]
)
def test_the_budget_can_be_broken(module: str, tmp_path: Path) -> None:
    (tmp_path / "offender.py").write_text(f"import {module}\n")
    assert module in over_budget(loaded_by("offender", tmp_path))


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_a_process_per_call_loads_nothing_of_the_resident_one(module: str) -> None:
    assert {name for name in loaded_by(module) if "resident" in name} == set()


def test_host_local_does_not_load_the_other_plugin() -> None:
    assert {name for name in loaded_by("ipam.__main__") if name.startswith("cni_flannel")} == set()


def module_level_imports(file: Path) -> set[str]:
    """Names that a file imports when it is loaded; `if TYPE_CHECKING:` and try/except left out."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize(
    "file",
    sorted(
        file
        for folder in OURS
        for file in (ROOT / folder).rglob("*.py")
        if file.parent.name != "resident"  # loaded once, by a process that stays
    ),
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_every_module_keeps_the_budget(file: Path) -> None:
    """Also those that only a rare path loads: they are short-lived processes too."""
    assert over_budget(module_level_imports(file)) == set()
