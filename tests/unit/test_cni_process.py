"""Running a program to its end: files, environment, signals, limits."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cni import process
from cni.errors import Interrupted
from tests.kernel.privatens import in_child

ENV = {"PATH": os.environ["PATH"]}


def sh(script: str, **options: Any) -> process.Completed:
    return process.run(["/bin/sh", "-c", script], env=ENV, **options)


def test_input_output_and_status_of_a_program() -> None:
    done = sh("cat; echo problem >&2; exit 3", stdin=b"in\0put")
    assert (done.status, done.stdout, done.stderr) == (3, b"in\0put", b"problem\n")


def test_much_output_in_both_directions_blocks_nobody() -> None:
    data = b"x" * 3_000_000
    done = sh("cat; head -c 2000000 /dev/zero >&2", stdin=data)
    assert done.stdout == data
    assert len(done.stderr) == 2_000_000


def test_a_signal_is_a_negative_status() -> None:
    assert sh("kill -9 $$").status == -9


def test_the_environment_is_exactly_what_was_given() -> None:
    assert process.run(["/usr/bin/env"], env={"A": "b"}).stdout == b"A=b\n"


def test_a_child_inherits_neither_files_nor_ignored_signals() -> None:
    count = sh("ls -l /proc/self/fd | grep -c memfd").stdout
    assert int(count) == 2  # stdin and stderr; the third is the pipe to grep
    words = ["/bin/grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]  # a shell unblocks signals
    blocked, ignored = process.run(words, env={}).stdout.decode().splitlines()
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) >> (signal.SIGPIPE - 1) & 1 == 0


def test_standard_files_that_are_closed_here_are_open_there(tmp_path: Path) -> None:
    script = """
import os, sys
sys.path.insert(0, sys.argv[1])
from cni import process
os.closerange(0, 3)
done = process.run(["/bin/sh", "-c", "cat; echo e >&2"], stdin=b"i", env={})
with open(sys.argv[2], "wb") as file:
    file.write(done.stdout + done.stderr)
"""
    root = str(Path(__file__).resolve().parents[2])
    process.run([sys.executable, "-I", "-S", "-c", script, root, f"{tmp_path}/out"], env=ENV)
    assert (tmp_path / "out").read_bytes() == b"ie\n"


def test_a_grandchild_that_keeps_stdout_open_is_not_waited_for() -> None:
    done = sh("sleep 60 & echo $!")
    os.kill(int(done.stdout), signal.SIGKILL)  # ProcessLookupError, had it been waited for


def test_a_missing_program_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        process.run(["/nonexistent"], env={})


def children() -> set[str]:
    """The processes that this thread has started and not reaped."""
    task = Path(f"/proc/self/task/{threading.get_native_id()}")
    return set((task / "children").read_text().split())


def test_a_limit_ends_the_child() -> None:
    before = children()
    with pytest.raises(TimeoutError, match=r"did not end within 0\.05 s"):
        sh("exec sleep 20", timeout_s=0.05)
    assert sh("true", timeout_s=20).status == 0
    assert children() == before


def test_a_limit_holds_without_a_descriptor_of_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux has pidfd_open(2) from 5.3 on; and there may be no descriptor left."""

    def refuse(_: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    before = children()
    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert sh("exit 3", timeout_s=20).status == 3
    with pytest.raises(TimeoutError, match=r"did not end within 0\.05 s"):
        sh("exec sleep 20", timeout_s=0.05)
    assert children() == before


@pytest.mark.parametrize("trap", ["'echo ended; exit' TERM", "'' TERM"])
def test_a_child_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    """One that does not has its time to come to an end."""
    if trap.startswith("''"):
        monkeypatch.setattr(process, "_GRACE_S", 0.02)
    else:
        monkeypatch.setattr(process, "_GRACE_S", 60.0)
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    limit_s = 0.05
    before = children()
    while not ready.exists():  # a child that has not come so far proves nothing
        limit_s *= 2
        script = f"trap {trap.replace('echo ended', f'echo >{ended}')}; echo >{ready}; sleep 60"
        with pytest.raises(TimeoutError):
            sh(f"{script} & while :; do wait; done", timeout_s=limit_s)
    assert ended.exists() == ("echo" in trap)
    assert children() == before


def test_an_interruption_stops_and_reaps_the_child() -> None:
    def interrupt(signum: int, _frame: object) -> None:
        raise Interrupted(signum)

    def body() -> set[str]:
        signal.signal(signal.SIGTERM, interrupt)
        with pytest.raises(Interrupted):
            sh("kill -TERM $PPID; exec sleep 60")
        return children()

    # A process of one thread, as a call is: another one here could take the signal from Held.
    assert in_child(body) == set()


def test_a_busy_text_file_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    writer = os.open(program, os.O_WRONLY)
    spawn = os.posix_spawn
    refusals: list[int | None] = []

    def watched(*args: Any, **options: Any) -> int:
        try:
            return spawn(*args, **options)
        except OSError as error:
            refusals.append(error.errno)
            os.close(writer)
            raise

    monkeypatch.setattr(os, "posix_spawn", watched)
    assert process.run([str(program)], env=ENV).stdout == b"ran\n"
    assert refusals == [errno.ETXTBSY]


def test_a_text_file_that_stays_busy_is_an_error_not_a_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[object] = []

    def busy(*args: object, **_options: object) -> int:
        tries.append(args)
        raise OSError(errno.ETXTBSY, "Text file busy")

    monkeypatch.setattr(os, "posix_spawn", busy)
    monkeypatch.setattr(process, "_BUSY_STEPS_S", (0.0, 0.0))
    with pytest.raises(OSError, match="Text file busy"):
        process.run(["/bin/true"], env={})
    assert len(tries) == 3


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_start_of_a_child_finds_it_known(
    monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
) -> None:
    def interrupt(number: int, _frame: object) -> None:
        raise Interrupted(number)

    spawn = os.posix_spawn

    def struck(*args: Any, **options: Any) -> int:
        child = spawn(*args, **options)
        os.kill(os.getpid(), signum)
        return child

    def body() -> set[str]:
        monkeypatch.setattr(os, "posix_spawn", struck)
        signal.signal(signum, interrupt)
        with pytest.raises(Interrupted):
            sh("exec sleep 60")
        return children()

    assert in_child(body) == set()


def test_only_a_busy_file_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[object] = []

    def missing(*args: object, **_options: object) -> int:
        tries.append(args)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "posix_spawn", missing)
    with pytest.raises(FileNotFoundError):
        process.run(["/nonexistent"], env={})
    assert len(tries) == 1


def test_nothing_stays_open() -> None:
    before = os.listdir("/proc/self/fd")
    sh("true")
    with pytest.raises(FileNotFoundError):
        process.run(["/nonexistent"], env={})
    assert os.listdir("/proc/self/fd") == before


def test_input_that_is_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    assert sh("cat", stdin=b"a long configuration").stdout == b"a long configuration"
