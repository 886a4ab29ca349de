"""br_netfilter: loaded if it can be, and what will not work without it is said."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from flanneld.rules import bridge_netfilter
from flanneld.rules.programs import Programs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def switches(tmp_path: Path) -> Path:
    return tmp_path / "bridge"


def modprobe(tmp_path: Path, script: str) -> Programs:
    """A modprobe that does what the script says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "modprobe"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Programs(str(folder))


def said(versions: set[int], programs: Programs, switches: Path) -> list[str]:
    return asyncio.run(bridge_netfilter.ensure(versions, programs, switches))


def test_a_loaded_module_is_nothing_to_tell(tmp_path: Path, switches: Path) -> None:
    switches.mkdir()
    (switches / "bridge-nf-call-iptables").write_text("1\n")
    never = modprobe(tmp_path, f"touch {tmp_path}/called")
    assert said({4}, never, switches) == []
    assert not (tmp_path / "called").exists()


def test_a_missing_module_is_loaded(tmp_path: Path, switches: Path) -> None:
    works = modprobe(
        tmp_path,
        f'[ "$*" = br_netfilter ] && /bin/mkdir {switches} && cd {switches} &&'
        " echo 1 >bridge-nf-call-iptables && echo 1 >bridge-nf-call-ip6tables",
    )
    assert said({4, 6}, works, switches) == []


def test_what_will_not_work_is_told_with_modprobe_s_words(tmp_path: Path, switches: Path) -> None:
    refuses = modprobe(tmp_path, "echo 'Module br_netfilter not found' >&2; exit 1")
    (sentence,) = said({4}, refuses, switches)
    assert "br_netfilter is not loaded" in sentence
    assert "Module br_netfilter not found" in sentence
    assert "by a Service's address gets no answer" in sentence


def test_no_modprobe_is_told(tmp_path: Path, switches: Path) -> None:
    sentences = said({4, 6}, Programs(str(tmp_path)), switches)
    assert ["ip6tables" in sentence for sentence in sentences] == [False, True]
    assert all("modprobe is not installed" in sentence for sentence in sentences)


def test_a_switch_that_is_off_is_told_and_left(tmp_path: Path, switches: Path) -> None:
    switches.mkdir()
    (switches / "bridge-nf-call-iptables").write_text("0\n")
    (sentence,) = said({4}, Programs(str(tmp_path)), switches)
    assert "is 0" in sentence
    assert (switches / "bridge-nf-call-iptables").read_text() == "0\n"
