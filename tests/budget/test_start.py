"""What a call costs before it does anything, as a multiple of what the bare interpreter costs.

Processor time, not the clock's, of calls that take turns: what else the machine does falls on both.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.frozen

ROUNDS = 25
LARGEST_RATIO = 1.8
CONF = b'{"cniVersion": "1.1.0"}'


def processor_time(argv: list[str], environ: dict[str, str]) -> float:
    """Seconds that one run took; its least of several is what counts, the rest is noise."""
    stdin = os.memfd_create("stdin")
    os.write(stdin, CONF)
    os.lseek(stdin, 0, os.SEEK_SET)
    stdout = os.open(os.devnull, os.O_WRONLY)
    files = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    pid = os.posix_spawn(argv[0], argv, environ, file_actions=files)
    os.close(stdin)
    os.close(stdout)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("program", ["flannel", "host-local"])
def test_a_start_costs_little_more_than_the_interpreters(program: str, folder: Path) -> None:
    bare = [os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"]
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(processor_time([str(folder / program)], {"CNI_COMMAND": "VERSION"}))
        theirs.append(processor_time(bare, {}))
    assert min(ours) / min(theirs) <= LARGEST_RATIO
