"""The program's command line: exit status, streams, and words; no network is touched."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.flanneld.scene import ROOT, program

if TYPE_CHECKING:
    from pathlib import Path


def call(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program(), *argv],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--bogus"], "flag provided but not defined: -bogus"),
        (["--healthz-port=x"], 'invalid value "x" for flag -healthz-port'),
        (["--ip-masq=perhaps"], 'invalid boolean value "perhaps" for -ip-masq'),
        (["--kube-subnet-mgr"], "where is the Kubernetes API server"),
        (["--etcd-endpoints=nonsense"], "http://HOST:PORT"),
        (["--subnet-mgr=local", "--network=10.0.0.0/29"], "network is too small"),
        (["--subnet-mgr=local", "--network=10.0.0.0/8,10.1.0.0/16"], "one of each family"),
        (["--subnet-mgr=local", "--net-config-path=/nowhere"], "/nowhere"),
    ],
)
def test_what_is_wrong_ends_with_2(argv: list[str], words: str) -> None:
    done = call(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_wrong_variable_ends_with_2() -> None:
    done = call(FLANNELD_SUBNET_LEASE_RENEW_MARGIN="9999")
    assert done.returncode == 2
    assert "between 1 and 1439" in done.stderr


def test_an_unknown_backend_ends_with_2(tmp_path: Path) -> None:
    done = call(
        *("--subnet-mgr=local", "--network=10.0.0.0/8", "--backend=carrier-pigeon"),
        f"--subnet-file={tmp_path}/subnet.env",
        f"--data-dir={tmp_path}",
    )
    assert done.returncode == 2
    assert "unknown backend type: carrier-pigeon" in done.stderr
    assert "vxlan" in done.stderr


def test_a_file_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "subnet.env").mkdir()
    done = call(
        *("--subnet-mgr=local", "--network=10.0.0.0/8"),
        f"--subnet-file={tmp_path}/subnet.env",
        f"--data-dir={tmp_path}",
    )
    assert done.returncode == 1
    assert "Is a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = call(
        *("--subnet-mgr=local", "--network=10.0.0.0/8"),
        f"--subnet-file={tmp_path}/file/subnet.env",
        f"--data-dir={tmp_path}",
    )
    assert done.returncode == 1
    assert f"making {tmp_path}/file/subnet.env" in done.stderr
    assert "see --subnet-file" in done.stderr


@pytest.mark.parametrize("word", ["--version", "-version", "-version=true"])
def test_version_says_which_build_this_is(word: str) -> None:
    done = call(word)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"flanneld \S+, commit \S+, \S+, python 3\.\S+\n", done.stdout)


@pytest.mark.parametrize("word", ["-h", "--help", "-help"])
def test_help_lists_commands_and_flags(word: str) -> None:
    done = call(word)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("explain A B", "--etcd-endpoints", "--iface-can-reach", "(default 60)"):
        assert text in done.stdout
