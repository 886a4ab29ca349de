"""Rules that an earlier flannel left: of the other kind of iptables, and of older Go daemons."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from flanneld.firewall import reading
from flanneld.rules import generation, legacy, programs
from flanneld.rules.manager import Rules
from flanneld.rules.programs import Programs
from tests.kernel.flanneld.packet_filter import SYSTEM, TRAFFIC, Filter, ensure
from tests.kernel.privatens import private, sh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flanneld.firewall.chains import Firewall

NET, POD = "10.42.0.0/16", "10.42.1.0/24"
UP_TO_0_16 = [
    f"-t nat -A POSTROUTING -s {NET} -d {NET} -j RETURN",
    f"-t nat -A POSTROUTING -s {NET} ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
    f"-t nat -A POSTROUTING ! -s {NET} -d {POD} -j RETURN",
    f"-t nat -A POSTROUTING ! -s {NET} -d {NET} -j MASQUERADE --random-fully",
    f"-A FORWARD -s {NET} -j ACCEPT",
    f"-A FORWARD -d {NET} -j ACCEPT",
]
UP_TO_0_19 = [
    rule.replace(" -j ", f' -m comment --comment "flanneld {what}" -j ')
    for rule in UP_TO_0_16
    for what in ["masq" if "nat" in rule else "forward"]
]
OTHERS = [
    f"-t nat -A POSTROUTING -s {NET} -d 192.168.0.0/16 -j MASQUERADE",
    "-t nat -A POSTROUTING -s 10.50.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE",
    "-t nat -A POSTROUTING ! -s 10.50.0.0/16 -d 10.50.0.0/16 -j MASQUERADE",
    "-A FORWARD -s 10.50.0.0/16 -j ACCEPT",
    f"-A FORWARD -s {NET} -j DROP",
    f"-A FORWARD -s {NET} -o eth7 -j ACCEPT",
]


def write(program: str, rules: list[str]) -> None:
    for rule in rules:
        sh(f"{program} {rule}")


def shown(program: str) -> list[str]:
    printed = sh(f"{program}-save").splitlines()
    return [line for line in printed if line.startswith("-A")]


@pytest.mark.parametrize("older", [UP_TO_0_16, UP_TO_0_19], ids=["0.16", "0.19"])
@pytest.mark.parametrize("program", ["iptables-legacy", "iptables-nft"])
@pytest.mark.parametrize("own", ["iptables-nft", "iptables-legacy", "nftables"])
@private
def test_older_rules_are_named_and_removed(
    own: str, program: str, older: list[str], tmp_path: Path
) -> None:
    packets = Filter(own, tmp_path)
    write(program, OTHERS)
    theirs = shown(program)
    write(program, older)
    named = " ".join(asyncio.run(packets.rules().check()))
    assert named.count("has a rule of an older flannel: -A") == len(older)
    ensure(packets.rules())
    assert [line for line in shown(program) if "FLANNEL" not in line] == theirs
    assert asyncio.run(packets.rules().check()) == []


@pytest.mark.parametrize("missing", range(1, 4, 2))
@private
def test_what_proves_nothing_stays(missing: int, tmp_path: Path) -> None:
    packets = Filter("nftables", tmp_path)
    write("iptables-nft", [rule for n, rule in enumerate(UP_TO_0_16) if n != missing])
    before = shown("iptables-nft")
    ensure(packets.rules())
    assert shown("iptables-nft") == before


@pytest.mark.parametrize("old", ["iptables-nft", "iptables-legacy", "nftables"])
@pytest.mark.parametrize("new", ["iptables-nft", "iptables-legacy", "nftables"])
@private
def test_each_change_of_kind_leaves_nothing(old: str, new: str, tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    before, after = Filter(old, tmp_path / "old"), Filter(new, tmp_path / "new")
    ensure(before.rules())
    if old != new:
        faults = asyncio.run(after.rules().check())
        assert any("should not be there" in fault for fault in faults), faults
    ensure(after.rules())
    assert after.ours()
    assert bool(before.ours()) == (old == new)
    assert asyncio.run(after.rules().check()) == []
    assert asyncio.run(after.rules().remove())
    assert not before.ours()
    assert not after.ours()


@private
def test_legacy_s_modules_are_not_asked_for(tmp_path: Path) -> None:
    packets = Filter("iptables-nft", tmp_path)
    ensure(packets.rules())
    assert asyncio.run(packets.rules().check()) == []
    assert legacy.tables(4) == legacy.tables(6) == []


@private
def test_legacy_rules_that_nobody_can_read_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write("iptables-legacy", UP_TO_0_16)
    packets = Filter("iptables-nft", tmp_path)
    for name in ("nft", "modprobe", "ip"):
        (tmp_path / name).symlink_to(f"/usr/sbin/{name}")
    only = Programs(str(tmp_path))
    rules = Rules(TRAFFIC, nftables=False, programs=only)
    ensure(rules)
    assert "iptables-legacy is not installed: whether rules of an earlier flannel" in caplog.text
    assert asyncio.run(rules.check()) == []  # it is not known, which is no fault
    assert any("iptables-legacy is not installed" in one for one in read(only).unknown)
    assert packets.ours()


def read(programs: Programs) -> Firewall:
    return asyncio.run(reading.read(programs))


# ---------------------------------------------------------------------------- changes, the lock


@pytest.mark.parametrize("program", ["iptables-legacy", "iptables-nft", "ip6tables-legacy"])
@private
def test_each_change_is_seen_and_nothing_else(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "WHOLE_S", 0.0)
    host = "::1" if "6" in program else "127.0.0.1"
    sh(f"{program} -A INPUT -s {host} -j ACCEPT")
    watch = generation.Watch()
    before = watch.token()
    assert before is not None
    sh(f"ping -q -c 1 {host}")  # counters are no change
    assert watch.token() == before
    sh(f"{program} -R INPUT 1 -s {host} -j DROP")
    changed = watch.token()
    assert changed != before
    sh(f"{program} -R INPUT 1 -s {host} -j ACCEPT")
    assert watch.token() not in {changed, None}


def test_entries_that_are_none_are_refused() -> None:
    for entries in (b"x", bytes(200), b"\xff" * 300):
        with pytest.raises(ValueError, match="an entry of iptables"):
            legacy.without_counters(bytearray(entries), 4)


@contextmanager
def locked(path: str) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@private
def test_who_holds_the_lock_is_said_and_the_file_may_be_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`XTABLES_LOCKFILE` counts for the programs that the daemon starts, too."""
    monkeypatch.setattr(programs, "SLOW_S", 0.2)
    monkeypatch.setattr("flanneld.rules.iptables._LOCK_S", "1")
    path = str(tmp_path / "lock")
    monkeypatch.setenv("XTABLES_LOCKFILE", path)
    Filter("iptables-legacy", tmp_path)
    said: list[str] = []
    rules = Rules(
        TRAFFIC[:1], nftables=False, programs=Programs(f"{tmp_path}:{SYSTEM}", said.append)
    )
    with locked(path), pytest.raises(programs.RulesError, match="lock"):
        ensure(rules)
    assert said[0].startswith(
        f"waiting for iptables-restore: {path} is held by process {os.getpid()} ("
    )
    with locked("/run/xtables.lock"):
        ensure(rules)
