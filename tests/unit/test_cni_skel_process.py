"""The whole process around one call: stdin, stdout, stderr, signals and the exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/proc/self/ns/mnt",  # a file of nsfs that is not our network namespace
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
CONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": "n", "type": "t"}
MAIN = """
import os, sys, time
sys.path.insert(0, {root!r})
from cni import skel
class Plugin:
    @staticmethod
    def cmd_add(args):
        args.note("adding")
        {body}
        return {{"ips": [{{"address": "10.0.0.2/24"}}]}}
    @staticmethod
    def cmd_del(args):
        args.note("\\udcff")
skel.run(Plugin, "about this plugin")
"""
ROOT = str(Path(__file__).resolve().parents[2])


def start(body: str = "pass", *argv: str, **environ: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", MAIN.format(root=ROOT, body=body), *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
    )


def finish(child: subprocess.Popen[bytes], stdin: bytes = b"") -> tuple[int, bytes, str]:
    with child:
        out, err = child.communicate(stdin, timeout=20)
    return child.returncode, out, err.decode()


def test_without_a_command_it_introduces_itself() -> None:
    status, out, err = finish(start())
    assert (status, out) == (0, b"")
    assert err == (
        "about this plugin\n"
        "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
    )
    status, out, err = finish(start("pass", "--help"))
    assert (status, err) == (0, "")
    assert out.startswith(b"about this plugin\n")
    assert b"CNI_COMMAND" in out
    status, out, err = finish(start("pass", "--version"))
    assert (status, err, out.split()[0]) == (0, "", b"cni-flannel")
    status, out, err = finish(start("pass", "list"))
    assert (status, out) == (2, b"")
    assert "unknown arguments: list" in err


def test_a_whole_add() -> None:
    status, out, err = finish(start(**ENV), json.dumps(CONF).encode())
    assert (status, err) == (0, "adding\n")
    assert json.loads(out)["ips"] == [{"address": "10.0.0.2/24"}]


def test_version_and_a_bad_environment_do_not_wait_for_stdin() -> None:
    for environ, expected in (({"CNI_COMMAND": "VERSION"}, 0), ({"CNI_COMMAND": "ADD"}, 1)):
        with start(**environ) as child:
            assert child.wait(20) == expected  # nobody has closed its stdin


def test_a_signal_rolls_back_once_and_a_second_one_does_not_stop_that() -> None:
    body = """
        try:
            args.note("ready"); time.sleep(20)
        finally:
            os.kill(os.getpid(), 15); os.kill(os.getpid(), 2); args.note("rolled back")"""
    child = start(body.strip(), **ENV)
    assert child.stdin is not None
    assert child.stderr is not None
    child.stdin.write(json.dumps(CONF).encode())
    child.stdin.close()
    child.stdin = None
    assert child.stderr.readline() + child.stderr.readline() == b"adding\nready\n"
    child.send_signal(signal.SIGTERM)
    status, out, err = finish(child)
    assert (status, err) == (1, "rolled back\n")
    assert json.loads(out)["code"] == 11


def test_a_signal_when_all_is_done_does_not_cut_the_answer() -> None:
    body = """
        write = skel._write
        def interrupted_write(fd, data):
            os.kill(os.getpid(), 15)
            return write(fd, data)
        skel._write = interrupted_write"""
    status, out, _ = finish(start(body.strip(), **ENV), json.dumps(CONF).encode())
    assert status == 0
    assert json.loads(out)["ips"]


def test_a_signal_while_waiting_for_stdin_is_answered() -> None:
    child = start(**{**ENV, "CNI_COMMAND": "DEL"})
    wait_until_blocked_on_stdin(child.pid)
    child.send_signal(signal.SIGINT)
    status, out, _ = finish(child)
    assert status == 1
    assert json.loads(out)["code"] == 11


def wait_until_blocked_on_stdin(pid: int) -> None:
    """Wait for the child to sleep in read(2): it has its handlers by then."""
    for _ in range(100_000):
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        if state == "S" and int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
    pytest.fail("the child never waited")


def test_closed_and_full_outputs_are_a_failure_without_a_traceback() -> None:
    for redirection in (">&-", ">/dev/full"):
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$0" -I -S -c "$1" {redirection}', sys.executable,
             MAIN.format(root=ROOT, body="pass")],
            env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=False, timeout=20,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"error writing to stdout: ")
        assert done.stderr.count(b"\n") == 1


def test_a_closed_stdin_is_code_5() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -I -S -c "$1" <&-', sys.executable,
         MAIN.format(root=ROOT, body="pass")],
        env=ENV, capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert json.loads(done.stdout)["code"] == 5


def test_even_system_exit_is_an_error_document() -> None:
    status, out, _ = finish(start("sys.exit(0)", **ENV), json.dumps(CONF).encode())
    assert (status, json.loads(out)["code"]) == (1, 100)
