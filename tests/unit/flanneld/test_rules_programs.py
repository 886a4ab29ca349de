"""Programs of the packet filter that cannot be run, or print what they should not."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from flanneld.rules.iptables import Iptables
from flanneld.rules.manager import Rules
from flanneld.rules.programs import Programs, RulesError
from flanneld.rules.texts import Traffic

if TYPE_CHECKING:
    from pathlib import Path

V4 = Traffic(ip_network("10.42.0.0/16"), ip_network("10.42.1.0/24"))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("\x7fELF of another machine", "nft: Exec format error"),
        ("#!/bin/sh\necho '{}'", "read what nft printed of table ip flannel-ipv4"),
        ("#!/bin/sh\necho Segmentation fault", "read what nft printed of table ip flannel-ipv4"),
        ("#!/bin/sh\necho no memory >&2; exit 1", "list table ip flannel-ipv4 with nft: no memory"),
    ],
)
def test_what_went_wrong_is_told(script: str, said: str, tmp_path: Path) -> None:
    nft = tmp_path / "nft"
    nft.write_text(f"{script}\n")
    nft.chmod(0o755)
    rules = Rules([V4], nftables=True, programs=Programs(str(tmp_path)))
    with pytest.raises(RulesError, match=said):
        asyncio.run(rules.ensure())


# -------------------------------------------------------------------------------------- iptables


def iptables(folder: Path, *, save: str = "", restore: str = "") -> Iptables:
    """An iptables of shell lines; what restore was called with is in the file ``asked``."""
    told = f'echo "$@" >>{folder}/asked; cat >>{folder}/asked'
    for name, lines in (("iptables-save", save), ("iptables-restore", f"{told}\n{restore}")):
        (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{lines}\n")
        (folder / name).chmod(0o755)
    return Iptables(4, Programs(str(folder)))


def test_restore_waits_for_the_lock_and_keeps_what_others_have(tmp_path: Path) -> None:
    rules = iptables(tmp_path)
    assert asyncio.run(rules.ensure(V4, [V4.network])) != []
    options, *text = (tmp_path / "asked").read_text().splitlines()
    assert options == "--noflush -w 30"
    assert "COMMIT" in text


def test_a_refused_write_is_tried_again_and_then_told(tmp_path: Path) -> None:
    rules = iptables(tmp_path, restore="echo busy >&2; exit 4")
    with pytest.raises(RulesError, match="write rules with iptables-restore: busy"):
        asyncio.run(rules.ensure(V4, [V4.network]))
    assert (tmp_path / "asked").read_text().count("--noflush") == 4


def test_a_write_that_is_refused_once_is_made(tmp_path: Path) -> None:
    rules = iptables(tmp_path, restore=f"[ $(grep -c noflush {tmp_path}/asked) = 2 ]")
    assert asyncio.run(rules.ensure(V4, [V4.network])) != []
    assert (tmp_path / "asked").read_text().count("--noflush") == 2


def test_rules_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path) -> None:
    rules = iptables(tmp_path, save="echo no memory >&2; exit 1")
    with pytest.raises(RulesError, match="read rules with iptables-save: no memory"):
        asyncio.run(rules.ensure(V4, [V4.network]))
    assert not (tmp_path / "asked").exists()
