"""Running another plugin as a delegate, and finding it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cni import invoke
from cni.errors import CNIError, Interrupted
from cni.types import Args

if TYPE_CHECKING:
    from pathlib import Path

ENV = {"PATH": os.environ["PATH"]}


class Delegates:
    """A CNI_PATH of shell scripts, and the Args of a call that uses it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.notes: list[str] = []

    def write(self, name: str, script: str) -> None:
        """Make a plugin of a shell script that runs in the directory."""
        file = self.directory / name
        file.write_text(f"#!/bin/sh\ncd {self.directory}\n{script}\n", encoding="utf-8")
        file.chmod(0o755)

    def args(self, **changes: Any) -> Args:
        """Return the Args of an ADD, some of them changed."""
        return Args(
            **{
                "command": "ADD", "container_id": "c1", "netns": "/run/netns/a", "ifname": "eth0",
                "path": f"/nonexistent::{self.directory}",
                "conf": {"cniVersion": "0.4.0", "name": "n", "type": "x"},
                "environ": {**ENV, "TRACEPARENT": "t", "CNI_COMMAND": "ADD", "CNI_ARGS": "A=b"},
                "note": self.notes.append, **changes,
            }
        )  # fmt: skip

    def text(self, name: str) -> str:
        """Return what a script wrote into a file."""
        return (self.directory / name).read_text(encoding="utf-8")


@pytest.fixture
def delegates(tmp_path: Path) -> Delegates:
    return Delegates(tmp_path)


def test_the_first_regular_file_of_the_path_is_found(tmp_path: Path) -> None:
    for directory in ("a", "b", "c"):
        (tmp_path / directory).mkdir()
    (tmp_path / "a" / "x").mkdir()
    (tmp_path / "c" / "x").touch()
    (tmp_path / "b" / "x").symlink_to(tmp_path / "c" / "x")
    path = f"/nonexistent::{tmp_path}/a:{tmp_path}/b:{tmp_path}/c"
    assert invoke.find("x", path) == f"{tmp_path}/b/x"


def test_a_plugin_that_is_nowhere_is_told_in_gos_words() -> None:
    with pytest.raises(CNIError) as caught:
        invoke.find("ipvlan", "/nonexistent/a:/nonexistent/b")
    assert caught.value.code == 105
    assert (
        caught.value.msg == 'failed to find plugin "ipvlan" in path [/nonexistent/a /nonexistent/b]'
    )
    assert "install ipvlan" in caught.value.details


@pytest.mark.parametrize(
    ("name", "words"), [("", "no plugin name provided"), ("a/b", "a/b"), ("..", "..")]
)
def test_a_bad_plugin_name_is_a_bad_conf(name: str, words: str) -> None:
    with pytest.raises(CNIError, match=words) as caught:
        invoke.find(name, "/bin")
    assert caught.value.code == 7


def test_a_delegate_gets_environment_and_conf_and_its_result_is_read(delegates: Delegates) -> None:
    delegates.write("x", """env >env; cat >conf; echo one >&2; echo two >&2
echo '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24"}]}'""")  # fmt: skip
    assert invoke.add("x", delegates.args(netns="/other", cni_args="C=d")) == {
        "ips": [{"address": "10.0.0.2/24"}]
    }
    environ = dict(line.split("=", 1) for line in delegates.text("env").splitlines())
    assert environ["CNI_COMMAND"] == "ADD"
    assert environ["CNI_CONTAINERID"] == "c1"
    assert environ["CNI_NETNS"] == "/other"
    assert environ["CNI_IFNAME"] == "eth0"
    assert environ["CNI_ARGS"] == "C=d"
    assert environ["CNI_PATH"].endswith(str(delegates.directory))
    assert environ["TRACEPARENT"] == "t"
    assert delegates.text("conf") == '{"cniVersion":"0.4.0","name":"n","type":"x"}'
    assert delegates.notes == ["one\ntwo"]


@pytest.mark.parametrize("verb", ["delete", "check", "gc", "status"])
def test_the_other_verbs_print_nothing(delegates: Delegates, verb: str) -> None:
    delegates.write("x", "echo $CNI_COMMAND >command; env | grep CNI_NETNS >netns; true")
    getattr(invoke, verb)("x", delegates.args(netns=""))
    assert delegates.text("command").strip() == {"delete": "DEL"}.get(verb, verb.upper())
    assert delegates.text("netns") == ""


def test_a_foreign_plugin_has_the_verbs_of_our_own(delegates: Delegates) -> None:
    delegates.write("x", "echo $CNI_COMMAND >>commands; [ $CNI_COMMAND != ADD ] || echo null")
    plugin = invoke.Foreign("x")
    assert plugin.cmd_add(delegates.args()) == {}
    for verb in (plugin.cmd_del, plugin.cmd_check, plugin.cmd_gc, plugin.cmd_status):
        verb(delegates.args())
    assert delegates.text("commands").split() == ["ADD", "DEL", "CHECK", "GC", "STATUS"]


RESULTS = [
    ("null", {}),
    ("{}", {}),
    ('{"ips":[{"version":"4","address":"10.0.0.2/24"}]}', {"ips": [{"address": "10.0.0.2/24"}]}),
    ('{"cniVersion":"","dns":{"domain":"d"}}', {"dns": {"domain": "d"}}),
    ('{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24"}}', {"ips": [{"address": "10.0.0.2/24"}]}),
    ('{"cniVersion":"1.1.0","interfaces":[{"name":"a","mtu":9}]}',
     {"interfaces": [{"name": "a", "mtu": 9}]}),
]  # fmt: skip


@pytest.mark.parametrize(("printed", "result"), RESULTS)
def test_a_result_without_version_has_the_confs(
    delegates: Delegates, printed: str, result: object
) -> None:
    delegates.write("x", f"echo '{printed}'")
    assert invoke.add("x", delegates.args()) == result


def failing(delegates: Delegates, script: str) -> CNIError:
    """Run an ADD that fails, and see that the delegate's DEL was run after it."""
    delegates.write("x", f"echo $CNI_COMMAND >>commands\n[ $CNI_COMMAND = DEL ] || {{ {script}\n}}")
    with pytest.raises(CNIError) as caught:
        invoke.add("x", delegates.args())
    assert delegates.text("commands") == "ADD\nDEL\n"
    return caught.value


def test_an_error_of_a_delegate_keeps_code_message_and_details(delegates: Delegates) -> None:
    printed = json.dumps({"cniVersion": "0.4.0", "Code": 11, "msg": "later", "details": "why"})
    error = failing(delegates, f"echo '{printed}'; exit 1")
    assert (error.code, error.msg, error.details) == (11, "later", "why")


FAILURES = [
    ("exit 1", "netplugin failed with no error message: exit status 1"),
    ("kill -9 $$", "netplugin failed with no error message: signal: 9"),
    ("echo oh >&2; exit 2", 'netplugin failed: "oh": exit status 2'),
    ("echo garbage; exit 1", 'netplugin failed but error parsing its diagnostic message "garbage"'),
    ("echo '[1]'; exit 1", 'error parsing its diagnostic message "[1]": not a JSON object'),
    ("""echo '{"code":"x","msg":"y"}'; exit 1""", "netplugin failed and printed no error object"),
    ("""echo '{"code":1}'; exit 1""", "netplugin failed and printed no error object"),
    ("echo garbage; exit 0", "failed to unmarshal raw result: invalid character 'g'"),
    ("exit 0", "failed to unmarshal raw result: unexpected end of JSON input"),
    ("echo '{\"ips\":7}'; exit 0", "ips must be a list, not 7"),
    ("echo '{\"cniVersion\":\"7\"}'; exit 0", 'unsupported CNI result version "7"'),
    ("echo 7; exit 0", "result must be an object, not 7"),
    ("head -c 5000 /dev/zero | tr '\\0' z; exit 1", "... (5000 characters)"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "words"), FAILURES, ids=[row[1] for row in FAILURES])
def test_a_broken_delegate_is_code_105_and_quoted(
    delegates: Delegates, script: str, words: str
) -> None:
    error = failing(delegates, script)
    assert error.code == 105
    assert words in error.msg
    assert 'plugin "x"' in error.msg
    assert error.details
    assert len(error.msg) < 700


def test_a_failing_clean_up_is_noted_and_the_first_error_reported(delegates: Delegates) -> None:
    delegates.write("x", """echo '{"code":99,"msg":"'$CNI_COMMAND' failed"}'; exit 1""")
    with pytest.raises(CNIError, match="ADD failed"):
        invoke.add("x", delegates.args())
    assert delegates.notes == ['clean up after a failed ADD of plugin "x": DEL failed']


def test_a_missing_interpreter_does_not_sound_like_success(delegates: Delegates) -> None:
    (delegates.directory / "x").write_text("#!/nonexistent\n", encoding="ascii")
    (delegates.directory / "x").chmod(0o755)
    with pytest.raises(CNIError, match="its interpreter is missing"):
        invoke.delete("x", delegates.args())


def test_a_file_that_cannot_be_run_is_told(delegates: Delegates) -> None:
    (delegates.directory / "x").touch(mode=0o644)
    with pytest.raises(CNIError, match="run plugin") as caught:
        invoke.delete("x", delegates.args())
    assert caught.value.code == 105
    assert "Permission denied" in caught.value.msg


def test_an_empty_part_of_the_path_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CNIError, match="failed to find plugin"):
        invoke.find("x", ":/nonexistent:")


def test_an_interrupted_add_is_undone(
    delegates: Delegates, monkeypatch: pytest.MonkeyPatch
) -> None:
    delegates.write("x", "")
    called: list[str] = []

    def run(command: str, *_: object) -> bytes:
        called.append(command)
        if command == "ADD":
            raise Interrupted(15)
        return b""

    monkeypatch.setattr(invoke, "_run", run)
    with pytest.raises(Interrupted):
        invoke.add("x", delegates.args())
    assert called == ["ADD", "DEL"]


def test_true_is_no_error_code(delegates: Delegates) -> None:
    delegates.write("x", """echo '{"code": true, "msg": "no"}'; exit 1""")
    with pytest.raises(CNIError, match="printed no error object"):
        invoke.check("x", delegates.args())


def test_a_resident_process_goes_on_while_a_delegate_runs(delegates: Delegates) -> None:
    class Resident:
        limit_s, connection, asides = 60.0, -1, 0

        def step_aside(self) -> None:
            self.asides += 1

    resident = Resident()
    delegates.write("x", "exit 0")
    invoke.check("x", delegates.args(resident=resident))
    assert resident.asides == 1
