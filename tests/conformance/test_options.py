"""The runner as its user meets it: options, misuse, broken plugins, an interrupt, a replay."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conformance.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "conformance", "run"]

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]


def plugin(folder: Path, script: str, name: str = "host-local") -> Path:
    """Make a plugin of a shell script; its folder."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--bin-dir", "/nonexistent"], "/nonexistent is no folder"),
        (["--spec", "2.0.0"], "no version '2.0.0'"),
        (["--case", "nothing/*"], "no case in"),
        (["--case", "protocol/gc-removes", "--spec", "0.3.1"], "and has version 0.3.1"),
        (["--cases", "/nonexistent"], "no case in /nonexistent"),
    ],
)
def test_misuse_is_told_in_a_line(
    words: list[str], complaint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--bin-dir", str(tmp_path), *words]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert complaint in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--jobs", "x"], ["--plugin", "ptp"]])
def test_an_option_s_value_is_checked(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", *words])
    assert ended.value.code == 2
    said = capfd.readouterr().err
    assert repr(words[1]) in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "script",
    [
        "echo Traceback",
        "echo '[]'",
        "exit 3",
        "kill -SEGV $$",
        """[ $CNI_COMMAND = VERSION ] && echo '{"supportedVersions":7}'""",
    ],
)
def test_a_plugin_whose_version_cannot_be_read_is_not_passed_over(
    script: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--bin-dir", str(plugin(tmp_path, script)), "--plugin", "host-local"]
    assert main(["run", *words, "--case", "protocol/version", "--json"]) == 1
    (run,) = json.loads(capfd.readouterr().out)["runs"]
    assert run["outcome"] == "failed"


def test_a_plugin_that_does_not_know_version_is_of_0_1_0(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = """echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1"""
    words = ["--bin-dir", str(plugin(tmp_path, script)), "--plugin", "host-local"]
    assert main(["run", *words, "--case", "protocol/version", "--spec", "all"]) == 1
    printed = capfd.readouterr()
    assert "host-local does not support version 1.0.0" in printed.out
    assert "FAILED protocol/version:host-local@0.1.0" in printed.err


def test_a_file_that_cannot_be_executed_is_a_failure_and_no_crash(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "host-local").write_bytes(b"\x7fELF and rubbish")
    words = ["--bin-dir", str(tmp_path), "--case", "host-local/result"]
    assert main(["run", *words]) == 1
    assert "FAILED host-local/result:host-local@1.0.0: step 1 (ADD)" in capfd.readouterr().err


def test_a_shell_line_that_does_not_end_is_a_failure_and_no_crash(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.steps.TIME_LIMIT", 0.5)
    cases = tmp_path / "cases" / "host-local"
    cases.mkdir(parents=True)
    text = 'why = "x"\nsource = "y"\n[[step]]\nrun = "sleep 60"\n'
    (cases / "endless.toml").write_text(text)
    script = """echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'"""
    words = ["--bin-dir", str(plugin(tmp_path, script)), "--cases", str(tmp_path / "cases")]
    assert main(["run", *words]) == 1
    assert "timed out after 0.5 seconds" in capfd.readouterr().err


def test_a_failure_is_one_line_and_its_replay_fails_alike(tmp_path: Path) -> None:
    version = """[ $CNI_COMMAND = VERSION ] && exec echo '{"supportedVersions":["1.0.0"]}'"""
    folder = plugin(tmp_path, f"{version}\nprintf '{{\\n\\n\\n\"code\": 7}}'; exit 1")
    words = [*RUN, "--bin-dir", str(folder), "--case", "host-local/result"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    *failures, replay = done.stderr.splitlines()
    for failure in failures:
        assert failure.startswith("FAILED host-local/result:host-local@1.0.0: step 1 (ADD): ")
    again = [sys.executable, *shlex.split(replay)[1:]]
    shown = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert shown.stderr == done.stderr
    assert "CNI_COMMAND=ADD" in shown.stdout
    assert "# exit status 1" in shown.stdout


def test_progress_is_for_terminals_only(tmp_path: Path) -> None:
    words = [*RUN, "--bin-dir", str(tmp_path), "--case", "protocol/version"]
    silent = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert silent.stderr == ""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
        os.close(theirs)
        assert b"3/3 protocol/version:host-local@1.0.0" in terminal.read(4096)


def test_keep_without_a_terminal_ends(tmp_path: Path) -> None:
    version = """echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'"""
    words = [*RUN, "--bin-dir", str(plugin(tmp_path, version)), "--keep"]
    words += ["--plugin", "host-local", "--case", "protocol/version"]
    nothing = subprocess.DEVNULL
    done = subprocess.run(
        words, cwd=ROOT, stdin=nothing, capture_output=True, text=True, check=False
    )
    assert "the world is still there: nsenter" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_the_run_and_its_worlds(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    folder = plugin(tmp_path, f"echo $$ >{pid_file}.new; mv {pid_file}.new {pid_file}; sleep 60")
    # Who runs the tests in the background has it ignored, and so would the tool.
    words = ["env", "--default-signal=INT", *RUN]
    words += ["--bin-dir", str(folder), "--case", "host-local/result"]
    run = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not pid_file.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 128 + signal.SIGINT
    assert said.strip().endswith("interrupted")
    assert "Traceback" not in said
    while Path(f"/proc/{pid_file.read_text().strip()}").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
