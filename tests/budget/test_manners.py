"""Command lines: one line for what is wrong, the right exit status, Ctrl-C ends all of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import eventually
from tests.namespaces import adopt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
BUILD = str(ROOT / "build.sh")
PYTHON = (sys.executable, "-m")
SYSTEM = ("/usr/bin/python3", "-I", "-c", "import runpy, sys; sys.path[:0] = ['.'];")

pytestmark = [pytest.mark.frozen, pytest.mark.timeout(300)]


def call(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, **options)


# What is misused -> what the one line names.
MISUSED = {
    (BUILD, ""): "''",
    (BUILD, "frobnicate"): "'frobnicate'",
    (BUILD, "build", "now"): "build takes no arguments: now",
    (BUILD, "conformance", "run"): "conformance takes no arguments: run",
    (BUILD, "sandbox", "-x"): "not -x",
    (BUILD, "lock", "now"): "lock takes no arguments: now",
    (BUILD, "demo", "-x"): "demo: unrecognized arguments: -x",
    (BUILD, "demo", "--nodes", "-2"): "'-2'",
    (BUILD, "demo", "--nodes=-2"): "'-2'",
    (BUILD, "demo", "--nodes", ""): "''",
    (BUILD, "demo", "--nodes", "9" * 5000): "999' is no number",
    (BUILD, "demo", "--nodes", "0"): "'0'",
    (BUILD, "demo", "--nodes", "many"): "'many'",
    (BUILD, "demo", "--nodes", "1000"): "1000",
    (BUILD, "demo", "--nodes"): "--nodes",
    (BUILD, "demo", "--node", "3"): "--node 3",
    (BUILD, "demo", "--backend", "wireguard"): "'wireguard'",
    (BUILD, "lab", "frobnicate"): "'frobnicate'",
    (BUILD, "lab", "heal", "--times", "1.5"): "'1.5'",
    (BUILD, "cluster", "--nodes", "-2"): "'-2'",
    (BUILD, "bench", "--quik"): "--quik",
    (BUILD, "bench", "udp", "--seconds", "nan"): "bench udp: argument --seconds: 'nan'",
    (BUILD, "mutate", "nowhere"): "no area nowhere",
    (BUILD, "mutate", "--jobs", "0"): "'0'",
    (BUILD, "test", "--busy"): "--busy takes a number",
    (BUILD, "test", "--busy", "-1"): "--busy takes a number",
    (BUILD, "install", ""): "DIR is empty",
    (BUILD, "install", "-x"): "-x",
    (BUILD, "install", "--residnet"): "--residnet",
    (BUILD, "install", "a", "b"): "b",
    (*PYTHON, "conformance", "rnu"): "did you mean run?",
    (*PYTHON, "conformance", ""): "''",
    (*PYTHON, "conformance", "server-crash", "--stops", "-4"): "'-4'",
    (*PYTHON, "conformance", "soak", "--cycles", "0"): "'0'",
    (*PYTHON, "conformance", "crash", "--every", "-1"): "'-1'",
    (*PYTHON, "conformance", "run", "--jobs", "x"): "'x'",
    (*PYTHON, "conformance", "storm", "--worker", "9"): "--worker 9",
    (*PYTHON, "bench.bench", "--rounds", "-3"): "'-3'",
    (*PYTHON, "tests.fuzz", "--inputs", "0"): "'0'",
    (*PYTHON, "flanneld", "stat" + "u"): "did you mean status?",
    (*PYTHON, "flanneld", "STATUS"): "did you mean status?",
    (*PYTHON, "flanneld", "--ifcae=eth0"): "did you mean -iface?",
    (*PYTHON, "flanneld", "status", "--jsn"): "--jsn",
    (*PYTHON, "flanneld", "cleanup", "now"): "now",
    (*PYTHON, "flanneld", "explain", "10.0.0.1"): "B",
}


def short(one: object) -> str:
    return " ".join(one)[-40:] if isinstance(one, tuple) else ""


@pytest.mark.parametrize(("words", "said"), MISUSED.items(), ids=short)
def test_misuse_is_one_line_and_exit_status_2(words: Sequence[str], said: str) -> None:
    done = call(*words)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert said in lines[0]
    assert lines[1:] in ([], ["flanneld --help lists all flags"])


COMMANDS = ["build", "sandbox", "demo", "cluster", "test", "mutate", "lab"]
COMMANDS += ["conformance", "bench", "install", "lock"]


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS), ["bench", "udp"]])
@pytest.mark.parametrize("ask", ["--help", "-h"])
def test_help_prints_and_does_nothing(words: list[str], ask: str, tmp_path: Path) -> None:
    """Nothing is set up, built or run: there is nothing to do it with."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "cat", "grep", "mkdir", "flock", "env"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    done = call(BUILD, *words, ask, env={"PATH": str(programs)})
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: " in done.stdout


@pytest.mark.parametrize("value", ["/bin/true", "/bin/cat", "/bin/false", "/nonexistent", "/etc"])
def test_python_that_is_none(value: str) -> None:
    done = call(BUILD, env={**os.environ, "PYTHON": value})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"build.sh: PYTHON={value} is no Python 3.11 or later with a shared libpython\n"
    )


@pytest.mark.parametrize("words", ["conformance run", "flanneld --iface=lo"])
def test_a_python_without_the_packages_is_told_what_to_run(words: str) -> None:
    module, *rest = words.split()
    program = f"{SYSTEM[3]} sys.argv[:] = {[module, *rest]}"
    done = call(*SYSTEM[:3], f"{program}; runpy.run_module({module!r}, {{}}, '__main__', True)")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No module named" in done.stderr
    assert ".venv" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words", ["flanneld --help", "flanneld --version", "flanneld install --help", "conformance -h"]
)
def test_a_reader_that_has_had_enough(words: str) -> None:
    """As `| head -n 1`: no trace, and the exit status of SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    command = [*PYTHON, *words.split()]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PYTHON, "flanneld", "--help"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "flanneld: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("closed", ["1", "2", "0 1 2"])
def test_closed_streams(closed: str) -> None:
    closing = " ".join(f"{number}>&-" for number in closed.split())
    done = call("sh", "-c", f"{sys.executable} -m flanneld --version {closing}")
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------------------------------------------ Ctrl-C


def interrupted(*words: str, after: str) -> tuple[int, str]:
    """Press Ctrl-C, as a terminal sends it, when a text was printed; status, and what came then."""
    with subprocess.Popen(
        ["env", "--default-signal=INT", *words],  # whatever the tests' own starter ignores
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                if after in line:
                    break
            os.killpg(running.pid, signal.SIGINT)
            rest = running.stdout.read()
        finally:
            running.kill()
    return running.returncode, rest


@pytest.mark.kernel
@pytest.mark.parametrize(
    "after", ["flanneld --subnet-mgr", "ADD, a process", "left on the node", "flannel serve"]
)
def test_ctrl_c_ends_the_demonstration(after: str) -> None:
    status, said = interrupted(BUILD, "demo", after=after)
    assert status == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said


@pytest.mark.kernel
def test_ctrl_c_ends_the_demonstration_of_nodes() -> None:
    status, said = interrupted(BUILD, "demo", "--nodes", "2", after="each runs flanneld")
    assert status == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said


@pytest.mark.kernel
def test_ctrl_c_ends_the_whole_of_conformance() -> None:
    """And not one verb of many."""
    status, said = interrupted(BUILD, "conformance", after="python -m conformance run")
    assert status == 130, said
    assert "conformance: interrupted" in said
    assert "python -m" not in said


def descendants(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    found = [pid]
    for one in found:
        for thread in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, thread.read_text().split())
    return found


def elsewhere(pid: int) -> int:
    """Count the processes of a run that are in other networks than we."""
    ours, found = os.readlink("/proc/self/ns/net"), 0
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{one}/ns/net") != ours
    return found


# What takes long -> how many processes are elsewhere when it has begun.
LONG = dict.fromkeys(
    ["conformance soak", "conformance storm", "conformance crash", "conformance fuzz"], 1
)
LONG |= dict.fromkeys(["conformance run", "conformance server-soak", "tests.lab reach"], 1)
LONG |= {"bench.bench": 2, "bench.udp": 4}


@pytest.fixture
def orphans() -> Iterator[Callable[[], set[int]]]:
    """Which processes, begun since, still run."""
    before = {os.getpid(), *descendants(os.getpid())}

    def running() -> set[int]:
        found = set(descendants(os.getpid())) - before
        for one in found:
            with contextlib.suppress(OSError):  # somebody else's
                os.waitpid(one, os.WNOHANG)
        return found

    adopt(orphans=True)
    yield running
    adopt(orphans=False)


@pytest.mark.kernel
@pytest.mark.parametrize("words", LONG)
def test_ctrl_c_ends_a_long_run(words: str, orphans: Callable[[], set[int]]) -> None:
    """At once: no batch, thread or world is worked off first; and nothing goes on."""
    with subprocess.Popen(
        ["env", "--default-signal=INT", *PYTHON, *words.split()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        eventually(lambda: elsewhere(running.pid) >= LONG[words], "it has begun")
        os.killpg(running.pid, signal.SIGINT)
        said, _ = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert said.splitlines()[-1] in {"", "interrupted"} or "interrupted:" in said
    assert "Traceback" not in said
    eventually(lambda: orphans() == set(), "nothing goes on")


# -------------------------------------------------------------------------------------- a long run


def test_a_long_run_into_a_pipe_says_that_it_lives() -> None:
    """A line every so often, with how far it is; this one is of a run that shortens the time."""
    program = (
        "import time; from conformance import progress\n"
        "with progress.told('soak', 0.05):\n"
        "    progress.show('3 of 9'); time.sleep(0.5)\n"
    )
    done = call(sys.executable, "-c", program)
    lines = done.stderr.splitlines()
    assert len(lines) >= 2
    assert lines[0].startswith("soak: 0 s")
    assert lines[-1].endswith("3 of 9")
