"""The frozen folder: its size, and that every module is in it that a rare path will ask for.

A module that the spec leaves out is missed only when its path is taken, on a node, in an error. So
the sources are searched for lazy imports, and each is imported from the folder alone.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.frozen

ROOT = Path(__file__).resolve().parents[2]
OURS = ("cni", "ipam", "netlink", "cni_flannel")
MEGABYTE = 1_000_000

# What a start may open in the contents directory, beside the interpreter and its libraries.
AT_START = {"encodings/__init__.pyc", "modules", "boot", "needs", "python", "ld.so"}
# The public side of a private module, for interpreters that lack it. The frozen one has it.
FALLBACKS = {"ctypes"}
LIBRARIES = ("libpython", "libz", "libexpat", "libm", "libc")


@pytest.fixture(scope="module")
def contents(folder: Path) -> Path:
    return (folder / ".cni-flannel" / "current").resolve()


def test_folder_is_small(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 16 * MEGABYTE


def test_folder_holds_two_programs_and_one_runtime(folder: Path, contents: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {".cni-flannel", "flannel", "host-local"}
    assert {path.name for path in contents.parent.iterdir()} == {contents.name, "current"}
    assert (contents / "MARKER").read_text().startswith("cni-flannel ")


def test_heavy_modules_stay_out(contents: Path) -> None:
    names = {
        path.relative_to(contents).parts[0].removesuffix(".pyc") for path in contents.rglob("*.pyc")
    }
    assert (
        names
        & {
            "asyncio",
            "logging",
            "pyroute2",
            "netaddr",
            "inspect",
            "multiprocessing",
            "ssl",
            "unittest",
        }
        == set()
    )
    assert names & set(OURS) == set(), "our modules are in the file `modules`"


def lazy_imports() -> set[str]:
    """Modules of others that functions of ours import."""
    names: set[str] = set()
    for file in (file for package in OURS for file in (ROOT / package).rglob("*.py")):
        functions = (
            node
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.FunctionDef)
        )
        for node in (node for function in functions for node in ast.walk(function)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return {name for name in names - FALLBACKS if name.partition(".")[0] not in OURS}


@pytest.mark.parametrize("module", sorted(lazy_imports()))
def test_lazily_imported_module_is_in_the_folder(module: str, contents: Path) -> None:
    """The build's interpreter, its own library taken away, finds the module in the folder."""
    path = [str(contents)]
    probe = f"import sys; sys.path[:] = {path}; sys.path_importer_cache.clear(); import {module}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def encodings_named_in_sources() -> set[str]:
    """Encodings that files of ours are opened with."""
    calls = (
        node
        for package in OURS
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
    )
    return {
        keyword.value.value
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "encoding"
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, str)
    }


@pytest.mark.parametrize("encoding", sorted(encodings_named_in_sources() | {"ascii", "latin-1"}))
def test_encoding_is_in_the_folder(encoding: str, contents: Path) -> None:
    """The frozen folder's own `encodings` package knows every codec that is asked for."""
    probe = f"""
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "encodings"]:
    del sys.modules[name]
sys.path[:] = [{str(contents)!r}]
sys.path_importer_cache.clear()
import encodings
codec = encodings.search({encoding!r}.replace("-", "_"))
assert codec.incrementaldecoder("strict").decode(b"text", True) == "text"
assert codec.incrementalencoder("strict").encode("text", True) == b"text"
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", probe], check=True)


def test_a_missing_module_would_be_noticed(contents: Path) -> None:
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        test_lazily_imported_module_is_in_the_folder("logging", contents)


def call(program: Path, stdin: bytes = b"{}", **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program], input=stdin, env=environ, capture_output=True, check=False, timeout=30
    )


@pytest.mark.parametrize("program", ["flannel", "host-local"])
def test_start_opens_no_file_but_the_interpreter(
    program: str, folder: Path, contents: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-z",
        "-e",
        "trace=open,openat",
        "-o",
        str(trace),
        str(folder / program),
    ]
    subprocess.run(
        command,
        input=b"{}",
        env={"CNI_COMMAND": "VERSION", "PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
    )
    inside = {
        line.split('"')[1].removeprefix(f"{contents}/")
        for line in trace.read_text().splitlines()
        if f'"{contents}/' in line
    }
    files = {name for name in inside if (contents / name).is_file()}
    extra = {name for name in files - AT_START if not name.startswith(LIBRARIES)}
    assert {name for name in extra if "_json." not in name} == set()


@pytest.mark.parametrize(
    "stdin",
    [b"", b'{"name":', b"[]", b'{"a":1} x', b'{"a":"\xff"}', b"[" * 1_000_000],
    ids=["empty", "half", "list", "trailing", "not UTF-8", "nested"],
)
@pytest.mark.parametrize("program", ["flannel", "host-local"])
def test_frozen_program_explains_bad_input(program: str, stdin: bytes, folder: Path) -> None:
    """These are the paths that import what the per-pod path does not."""
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/run/netns/none",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/x",
    }
    done = call(folder / program, stdin, **environ)
    assert done.returncode == 1
    assert b'"code"' in done.stdout
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"ModuleNotFound" not in done.stderr + done.stdout


def test_symbolic_link_works_from_anywhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bridge").symlink_to(folder / "flannel")
    relative = subprocess.run(
        ["./bridge"],
        cwd=tmp_path,
        input=b"{}",
        env={"CNI_COMMAND": "VERSION"},
        capture_output=True,
        check=True,
    )
    by_path = subprocess.run(
        ["bridge"],
        cwd="/",
        input=b"{}",
        env={"CNI_COMMAND": "VERSION", "PATH": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert b"supportedVersions" in relative.stdout
    assert relative.stdout == by_path.stdout
