"""Which backend is chosen, what a failing program's error says, what decoders make of bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni import files
from cni.cidr import parse_prefix
from cni.errors import (
    INVALID_NETWORK_CONFIG,
    KERNEL_REFUSED,
    TRY_AGAIN_LATER,
    CNIError,
    Interrupted,
)
from cni.process import Completed
from cni_flannel.kernel import iptables, masq, nfnl, nftables, programs
from netlink import nlmsg

if TYPE_CHECKING:
    from pathlib import Path

PREFIXES = [parse_prefix("10.7.0.2/24"), parse_prefix("fd00:7::2/64")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder in which programs are looked for."""
    monkeypatch.setattr(programs, "_FOLDERS", ())
    return tmp_path


def install(folder: Path, script: str, *names: str) -> dict[str, str]:
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {folder}/log\n{script}\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


def test_an_unknown_backend_is_a_conf_error() -> None:
    for call in (masq.setup, masq.verify):
        with pytest.raises(CNIError, match='unknown ipmasq backend "ebtables"') as caught:
            call("ebtables", "net", "cid", "eth0", PREFIXES, {})
        assert caught.value.code == INVALID_NETWORK_CONFIG


def test_nothing_installed_says_what_to_install(folder: Path) -> None:
    with pytest.raises(CNIError, match="neither iptables nor nft is installed") as caught:
        masq.setup(None, "net", "cid", "eth0", PREFIXES, {"PATH": str(folder)})
    assert caught.value.code == KERNEL_REFUSED
    assert "apt-get install" in caught.value.details


def test_iptables_comes_first(folder: Path) -> None:
    names = ("iptables", "iptables-restore", "ip6tables", "ip6tables-restore", "nft")
    masq.setup(None, "net", "cid", "eth0", PREFIXES, install(folder, "exit 0", *names))
    assert log(folder) == ["iptables-restore", "ip6tables-restore"]  # one process a family


def test_a_missing_program_of_the_chosen_backend_is_named(folder: Path) -> None:
    environ = install(folder, "exit 0", "iptables", "iptables-restore")
    with pytest.raises(CNIError, match="failed to locate ip6tables-restore in"):
        masq.setup("iptables", "net", "cid", "eth0", PREFIXES, environ)
    with pytest.raises(CNIError, match="failed to locate nft in"):
        nftables.setup("net", "cid", "eth0", PREFIXES, environ)


def test_without_programs_there_is_nothing_to_tear_down(folder: Path) -> None:
    environ = {"PATH": str(folder)}
    iptables.teardown(iptables.Tool(4, environ), "CNI-x")
    iptables.collect(iptables.Tool(6, environ, "legacy"), "net", [])
    nftables.teardown("net", "cid", "eth0", environ)
    nftables.collect("net", [], environ)


def test_a_program_must_be_executable_and_its_folder_absolute(folder: Path) -> None:
    environ = install(folder, "exit 0", "nft")
    assert programs.find("nft", environ) == f"{folder}/nft"
    (folder / "nft").chmod(0o644)
    assert programs.find("nft", environ) == ""
    (folder / "nft").unlink()
    (folder / "nft").mkdir()
    assert programs.find("nft", environ) == ""
    relative = os.path.relpath("/bin")
    assert programs.find("sh", {"PATH": relative}) == ""


def test_a_held_lock_is_worth_another_try() -> None:
    text = b"Another app is currently holding the xtables lock; still 9s 0us time ahead"
    error = programs.failure("set up", "iptables-restore", Completed(4, b"", text))
    assert error.code == TRY_AGAIN_LATER
    assert "xtables lock" in error.msg


def test_an_error_quotes_the_program_but_never_says_gone() -> None:
    text = b"Error: Could not process rule: No such file\n or directory\nfoo: Not Found"
    error = programs.failure("set up", "nft", Completed(1, b"", text))
    assert error.code == KERNEL_REFUSED
    assert error.msg == (
        "set up: nft: status 1: Error: Could not process rule: "
        "a path is missing (ENOENT) foo: missing"
    )
    assert "dmesg" in error.details
    killed = programs.failure("set up", "nft", Completed(-9, b"", b""))
    assert killed.msg == "set up: nft: killed by signal 9"


def test_the_environment_of_a_program_is_made_anew(folder: Path) -> None:
    environ = install(folder, "env", "nft")
    environ.update(LD_LIBRARY_PATH="/frozen", CNI_COMMAND="ADD", XTABLES_LOCKFILE="/x")
    done = programs.run([f"{folder}/nft"], {**environ, "PATH": f"{folder}:/usr/bin:/bin"})
    names = {line.partition(b"=")[0] for line in done.stdout.splitlines()}
    assert names - {b"PWD", b"SHLVL", b"_", b"OLDPWD"} == {b"PATH", b"LC_ALL", b"XTABLES_LOCKFILE"}


def rule_message(chain: str, handle: int, userdata: bytes) -> nlmsg.Message:
    body = b"\1\0\0\0" + nlmsg.attr(1, "t") + nlmsg.attr(2, chain)
    body += nlmsg.attr(3, handle.to_bytes(8, "big")) + nlmsg.attr(7, userdata)
    return nlmsg.Message(0xA06, 0, body)


def test_a_rule_s_comment_is_found_among_user_data() -> None:
    comment = b"\x05\x01x" + b"\x00\x06hello\0"
    (rule,) = nfnl._rules_of(rule_message("c", 7, comment), "c")
    assert (rule.handle, rule.comment) == (7, "hello")
    assert nfnl._rules_of(rule_message("d", 7, comment), "c") == []


@given(st.binary(max_size=64))
def test_any_user_data_is_read(userdata: bytes) -> None:
    assert isinstance(nfnl._comment(userdata), str)


def test_a_ruleset_that_never_rests_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = rule_message("c", 7, b"")
    interrupted = nlmsg.Message(interrupted.type, nlmsg.NLM_F_DUMP_INTR, interrupted.body)
    reads: list[int] = []

    def ask(*_: object) -> list[nlmsg.Message]:
        reads.append(1)
        return [interrupted]

    monkeypatch.setattr(nfnl.Ruleset, "_ask", ask)
    with pytest.raises(CNIError, match='chain "c" of table "t" changed during each') as caught:
        nfnl.Ruleset().rules(nfnl.NFPROTO_IPV4, "t", "c")
    assert caught.value.code == 101
    assert len(reads) == nfnl.DUMP_ATTEMPTS


def test_every_call_of_iptables_waits_for_the_xtables_lock(folder: Path) -> None:
    """Without -w a program that finds the lock taken fails at once."""
    script = f'echo "$*" >> {folder}/words; cat >/dev/null; echo "-A POSTROUTING -j CNI-x"'
    names = [f"{six}tables{end}" for six in ("ip", "ip6") for end in ("", "-restore")]
    environ = install(folder, script, *names)
    iptables.setup("net", "cid", PREFIXES, environ)
    iptables.missing("net", "cid", PREFIXES, environ)
    iptables.teardown(iptables.Tool(4, environ), "CNI-x")
    iptables.collect(iptables.Tool(6, environ, "legacy"), "net", [])
    assert iptables.usable(environ)
    asked = (folder / "words").read_text().splitlines()
    assert len(asked) > 6
    assert [words for words in asked if " -w 30" not in f" {words}"] == []


def test_a_program_that_hangs_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_LIMIT_S", 0.2)
    environ = install(folder, "exec /bin/sleep 60", "nft")
    with pytest.raises(CNIError, match="did not end within") as caught:
        programs.run([f"{folder}/nft", "-f", "-"], environ)
    assert caught.value.code == TRY_AGAIN_LATER


@pytest.mark.parametrize("failure", [Interrupted(15), CNIError(KERNEL_REFUSED, "no")])
def test_whatever_ends_it_half_of_the_rules_do_not_stay(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise failure

    gone: list[tuple[object, ...]] = []
    monkeypatch.setattr(masq, "_setup", fail)
    monkeypatch.setattr(masq, "teardown", lambda *words: gone.append(words))
    with pytest.raises(type(failure)):
        masq.setup("iptables", "net", "cid", "eth0", PREFIXES, {})
    assert gone == [("net", "cid", "eth0", {}, PREFIXES)]


@pytest.mark.parametrize(("number", "may_hold"), [(2, False), (13, True), (5, True)])
def test_a_kernel_that_does_not_say_may_hold_legacy_rules(
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    may_hold: bool,  # noqa: FBT001 - a column of the table
) -> None:
    def fail(path: str) -> bytes:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(files, "read", fail)
    assert masq._has_legacy_nat(4) == may_hold
