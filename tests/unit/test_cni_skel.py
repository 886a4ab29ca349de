"""One call from environment and stdin to stdout and exit status, without a process around it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cni import netns, skel, version
from cni.errors import PHRASES_OF_SUCCESS, CNIError, Interrupted

if TYPE_CHECKING:
    from pathlib import Path

    from cni.types import Args

OTHER_NS = "/proc/self/ns/mnt"  # a file of nsfs that is not our network namespace
ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": OTHER_NS,
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
CONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": "n", "type": "t"}


class Plugin:
    """Remembers its calls; ADD returns an address, or raises what it was told to."""

    def __init__(self, failure: BaseException | None = None, result: object = None) -> None:
        self.calls: list[Args] = []
        self.failure = failure
        self.result = {"ips": [{"address": "10.0.0.2/24"}]} if result is None else result

    def cmd_add(self, args: Args) -> object:
        """Serve an ADD."""
        self._serve(args)
        return self.result

    def _serve(self, args: Args) -> None:
        self.calls.append(args)
        if self.failure is not None:
            raise self.failure

    cmd_del = cmd_check = cmd_gc = cmd_status = _serve


def serve(
    conf: object = None, plugin: object = None, **environ: str
) -> tuple[int, dict[str, Any], list[str]]:
    notes: list[str] = []
    stdin = conf if isinstance(conf, bytes) else json.dumps(CONF if conf is None else conf).encode()
    given = {key: value for key, value in {**ENV, **environ}.items() if value != "unset"}
    status, output = skel.call(plugin or Plugin(), given, stdin, notes.append)
    return status, json.loads(output or b"{}"), notes


def test_add_prints_the_result_in_the_confs_version() -> None:
    status, output = skel.call(Plugin(), ENV, json.dumps(CONF).encode(), print)
    assert status == 0
    assert output == (
        b'{\n    "cniVersion": "1.1.0",\n    "ips": [\n        {\n'
        b'            "address": "10.0.0.2/24"\n        }\n    ]\n}'
    )


@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC", "STATUS"])
def test_other_verbs_print_nothing(command: str) -> None:
    plugin = Plugin()
    assert skel.call(plugin, {**ENV, "CNI_COMMAND": command}, json.dumps(CONF).encode(), print) == (
        0,
        b"",
    )
    assert plugin.calls[0].command == command


def test_the_plugin_gets_what_the_runtime_gave() -> None:
    plugin = Plugin()
    conf = {
        "CNIVERSION": "1.0.0",
        "Name": "n",
        "runtimeconfig": {"Mac": "x"},
        "Extra": None,
        "dns": None,
    }
    serve(conf, plugin, CNI_ARGS="A=b", TRACEPARENT="t")
    args = plugin.calls[0]
    assert (args.container_id, args.ifname, args.netns) == ("c1", "eth0", OTHER_NS)
    assert (args.cni_args, args.path) == ("A=b", "/opt/cni/bin")
    assert args.environ["TRACEPARENT"] == "t"
    assert args.conf == {
        "cniVersion": "1.0.0", "name": "n", "runtimeConfig": {"Mac": "x"}, "Extra": None,
    }  # fmt: skip


def test_version_needs_nothing_and_answers_as_go() -> None:
    assert skel.call(
        Plugin(), {"CNI_COMMAND": "VERSION", "CNI_IFNAME": "/"}, b"rubbish", print
    ) == (
        0,
        (
            b'{"cniVersion":"1.1.0","supportedVersions":'
            b'["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n'
        ),
    )


# what is bad about the environment -> the message, all of code 4
ENVIRONMENTS: list[tuple[dict[str, str], str]] = [
    ({"CNI_COMMAND": "unset"}, "required env variables [CNI_COMMAND] missing"),
    ({"CNI_CONTAINERID": "", "CNI_NETNS": "unset", "CNI_IFNAME": "", "CNI_PATH": ""},
     "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"),
    ({"CNI_COMMAND": "DEL", "CNI_NETNS": "", "CNI_IFNAME": ""},
     "required env variables [CNI_IFNAME] missing"),
    ({"CNI_COMMAND": "GC", "CNI_PATH": "", "CNI_IFNAME": ""},
     "required env variables [CNI_PATH] missing"),
    ({"CNI_CONTAINERID": "a/b", "CNI_PATH": ""}, "invalid characters in containerID"),
    ({"CNI_CONTAINERID": "a\n"}, "invalid characters in containerID"),
    ({"CNI_CONTAINERID": "-a"}, "invalid characters in containerID"),
    ({"CNI_CONTAINERID": "\u00e9"}, "invalid characters in containerID"),
    ({"CNI_CONTAINERID": "a" * 300}, "containerID is too long: 300 bytes"),
    ({"CNI_IFNAME": "a" * 16}, "interface name is too long"),
    ({"CNI_IFNAME": "\u00e9" * 8}, "interface name is too long"),
    ({"CNI_IFNAME": "."}, "interface name is . or .."),
    ({"CNI_IFNAME": ".."}, "interface name is . or .."),
    ({"CNI_IFNAME": "a/b"}, "interface name contains / or : or whitespace characters"),
    ({"CNI_IFNAME": "a:b"}, "interface name contains / or : or whitespace characters"),
    ({"CNI_IFNAME": "a\u2003b"}, "interface name contains / or : or whitespace characters"),
    ({"CNI_COMMAND": "FOO"}, "unknown CNI_COMMAND: FOO"),
    ({"CNI_COMMAND": "add"}, "unknown CNI_COMMAND: add"),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "msg"), ENVIRONMENTS, ids=[row[1] for row in ENVIRONMENTS])
def test_a_bad_environment_is_code_4(environ: dict[str, str], msg: str) -> None:
    plugin = Plugin()
    status, error, _ = serve(None, plugin, **environ)
    assert (status, error["code"], error["msg"]) == (1, 4, msg)
    assert not plugin.calls


@pytest.mark.parametrize("ifname", ["a" * 15, "eth0.7", "-x", "\u00e9" * 7])
def test_a_name_the_kernel_takes_is_taken(ifname: str) -> None:
    assert serve(CNI_IFNAME=ifname)[0] == 0


CONFS: list[tuple[object, int, str]] = [
    (b"", 6, "error unmarshall network config: unexpected end of JSON input"),
    (b'{"name":', 6, "error unmarshall network config: unexpected end of JSON input"),
    (b"[]", 6, "the configuration must be a JSON object, not []"),
    (b"null", 6, "the configuration must be a JSON object, not null"),
    (b'{"name":"n"} x', 6, "invalid character 'x' after top-level value"),
    (b'{"name":"\xff"}', 6, "invalid UTF-8 byte 0xff"),
    (b'{"a":' + b"[" * 1_000_000, 6, "exceeded max depth"),
    ({"name": None}, 7, "missing network name"),
    ({}, 7, "missing network name"),
    ({"name": ""}, 7, "missing network name"),
    ({"name": 1}, 7, "network name must be a string, not 1"),
    ({"name": "a/b"}, 7, "invalid characters found in network name"),
    ({"name": "a\n"}, 7, "invalid characters found in network name"),
    ({"name": ".a"}, 7, "invalid characters found in network name"),
    ({"name": "a" * 300}, 7, "network name is too long: 300 bytes"),
    ({"name": "n", "plugins": [{"type": "t"}]}, 7, "it is a list of plugins"),
    ({"name": "n", "Plugins": []}, 7, "it is a list of plugins"),
    ({"name": "n", "cniVersion": 1}, 6, "decoding version from network config: "),
    ({"name": "n", "cniVersion": "9.9.9"}, 1, "incompatible CNI versions"),
]  # fmt: skip


@pytest.mark.parametrize(("conf", "code", "words"), CONFS, ids=[row[2] for row in CONFS])
def test_a_bad_conf_has_its_code_and_says_why(conf: object, code: int, words: str) -> None:
    plugin = Plugin()
    status, error, _ = serve(conf, plugin)
    assert (status, error["code"]) == (1, code)
    assert words in error["msg"]
    assert not plugin.calls


def test_the_conf_is_looked_at_before_the_command() -> None:
    assert serve({}, CNI_COMMAND="FOO")[1]["code"] == 7


def test_an_old_conf_without_version_works() -> None:
    expected = {"cniVersion": "0.1.0", "ip4": {"ip": "10.0.0.2/24"}, "dns": {}}
    assert serve({"name": "n"})[1] == expected
    assert serve({"name": "n", "cniVersion": ""})[1] == expected


def test_an_error_names_the_confs_version_when_it_is_known() -> None:
    assert list(serve({"name": "a/b", "cniversion": "0.4.0"})[1]) == [
        "cniVersion", "code", "msg", "details",
    ]  # fmt: skip
    assert "cniVersion" not in serve(b"")[1]


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_a_verb_that_the_plugin_lacks_is_no_success(command: str) -> None:
    status, error, _ = serve(None, object(), CNI_COMMAND=command)
    assert (status, error["code"]) == (1, 4)
    assert error["msg"] == f"unknown CNI_COMMAND: {command}"
    assert "does not implement" in error["details"]


# ------------------------------------------------------------------------------ network namespaces


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("path", ["/proc/self/ns/net", "/proc/thread-self/ns/net"])
def test_our_own_namespace_is_refused_before_anything_happens(command: str, path: str) -> None:
    plugin = Plugin()
    status, error, _ = serve(None, plugin, CNI_COMMAND=command, CNI_NETNS=path)
    assert (status, error["code"]) == (1, 8)
    assert error["msg"] == "plugin's netns and netns from CNI_NETNS should not be the same"
    assert not plugin.calls


@pytest.mark.parametrize("override", ["1", "true", "TRUE", "True"])
def test_the_override_allows_our_own_namespace(override: str) -> None:
    assert serve(CNI_NETNS="/proc/self/ns/net", CNI_NETNS_OVERRIDE=override)[0] == 0


@pytest.mark.parametrize("override", ["", "0", "yes"])
def test_anything_else_is_no_override(override: str) -> None:
    assert serve(CNI_NETNS="/proc/self/ns/net", CNI_NETNS_OVERRIDE=override)[0] == 1


def no_namespaces(tmp_path: Path) -> list[tuple[str, str]]:
    (tmp_path / "file").touch()
    return [
        (f"{tmp_path}/gone", "nothing is there"),
        (f"{tmp_path}/file/below", "nothing is there"),
        (f"{tmp_path}/file", "it is a plain file, not a network namespace"),
        (f"{tmp_path}", "it is a directory, not a network namespace"),
        ("/dev/null", "it is a device, not a network namespace"),
    ]


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_what_is_no_namespace_is_named_with_its_path(command: str, tmp_path: Path) -> None:
    for path, words in no_namespaces(tmp_path):
        status, error, _ = serve(CNI_COMMAND=command, CNI_NETNS=path)
        assert (status, error["code"]) == (1, 8)
        assert path in error["msg"]
        assert words in error["msg"]
        for phrase, _other in PHRASES_OF_SUCCESS:
            assert phrase not in error["msg"] + error["details"]


def test_for_del_what_is_no_namespace_is_gone(tmp_path: Path) -> None:
    for path, _ in [*no_namespaces(tmp_path), ("", ""), ("unset", "")]:
        plugin = Plugin()
        assert serve(None, plugin, CNI_COMMAND="DEL", CNI_NETNS=path)[0] == 0
        assert len(plugin.calls) == 1


def test_a_plugin_outside_of_namespaces_takes_any_path_but_our_own() -> None:
    plugin = Plugin()
    plugin.NEEDS_NETNS = False  # type: ignore[attr-defined]
    assert serve(None, plugin, CNI_NETNS="/gone")[0] == 0
    assert serve(None, plugin, CNI_NETNS="/proc/self/ns/net")[1]["code"] == 8


def test_without_proc_nothing_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "OWN", "/gone")
    assert serve(CNI_NETNS="/proc/self/ns/net")[1]["code"] == 8
    assert serve(CNI_COMMAND="DEL", CNI_NETNS="/proc/self/ns/net")[0] == 0


# ------------------------------------------------------------------------------------- failures


def test_a_plugins_error_passes_through() -> None:
    status, error, _ = serve(None, Plugin(CNIError(102, "pool is full", "free some")))
    assert status == 1
    assert error == {
        "cniVersion": "1.1.0", "code": 102, "msg": "pool is full", "details": "free some",
    }  # fmt: skip


def test_an_unexpected_exception_says_what_and_where() -> None:
    _, error, notes = serve(None, Plugin(KeyError("subnet")))
    assert error["code"] == 100
    assert error["msg"] == "unexpected KeyError: 'subnet'"
    assert f"{__file__}:" in error["details"]
    assert notes == []


def test_debugging_shows_the_traceback() -> None:
    _, _, notes = serve(None, Plugin(KeyError("subnet")), CNI_FLANNEL_DEBUG="1")
    assert notes[0].startswith("Traceback")


def test_an_unexpected_del_error_never_sounds_like_success() -> None:
    failure = OSError("link not found: no such file or directory")
    _, error, _ = serve(None, Plugin(failure), CNI_COMMAND="DEL")
    assert error["msg"] == "unexpected OSError: link missing: a path is missing (ENOENT)"


def test_an_interruption_is_try_again_later() -> None:
    status, error, _ = serve(None, Plugin(Interrupted(15)))
    assert (status, error["code"], error["msg"]) == (1, 11, "interrupted by signal 15")


def test_a_result_that_cannot_be_told_is_undone() -> None:
    plugin = Plugin(result={"interfaces": [{"name": "eth0"}]})
    _, error, _ = serve({"name": "n", "cniVersion": "0.2.0"}, plugin)
    assert error["msg"] == "cannot convert: no valid IP addresses"
    assert [args.command for args in plugin.calls] == ["ADD", "DEL"]


def test_a_failing_undo_is_noted_and_the_first_failure_reported() -> None:
    class Stubborn(Plugin):
        def cmd_del(self, args: Args) -> None:
            raise CNIError(5, f"stuck at {args.command}")

    status, error, notes = serve(None, Stubborn(result="rubbish"))
    assert (status, error["code"]) == (1, 100)
    assert "stuck at DEL" in notes[0]


def test_a_plugin_s_conf_may_have_a_key_called_plugins() -> None:
    plugin = Plugin()
    assert serve({**CONF, "plugins": [{"type": "t"}]}, plugin)[0] == 0
    assert len(plugin.calls) == 1


@pytest.mark.parametrize(("verb", "code"), [("CHECK", 7), ("STATUS", 7), ("DEL", 0), ("GC", 0)])
def test_a_list_of_plugins_keeps_nothing_from_going(verb: str, code: int) -> None:
    conf = {"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "t"}]}
    status, error, _ = serve(conf, CNI_COMMAND=verb)
    assert (status, error.get("code", 0)) == (1 if code else 0, code)


@pytest.mark.parametrize("failure", [Interrupted(15), ValueError("no"), CNIError(7, "no")])
def test_whatever_keeps_the_result_from_being_told_undoes_the_add(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def convert(*_: object) -> None:
        raise failure

    monkeypatch.setattr(version, "convert", convert)
    plugin = Plugin()
    status, _ = skel.call(plugin, ENV, json.dumps(CONF).encode(), lambda _: None)
    assert status == 1
    assert [args.command for args in plugin.calls] == ["ADD", "DEL"]


def test_an_earlier_result_is_part_of_ours() -> None:
    earlier = {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}
    conf = {**CONF, "prevResult": earlier}
    status, output = skel.call(Plugin(), ENV, json.dumps(conf).encode(), lambda _: None)
    assert status == 0
    found = [ip["address"] for ip in json.loads(output)["ips"]]
    assert found == ["10.0.0.2/24", "10.9.0.2/24"]


def test_the_answer_is_written_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    assert skel._write(write, b"a result of some length")
    os.close(write)
    assert os.read(read, 100) == b"a result of some length"
    os.close(read)


def test_stdin_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [b'{"name":', b' "n"}', b""]
    monkeypatch.setattr(os, "read", lambda *_: parts.pop(0))
    assert skel._read_stdin() == b'{"name": "n"}'
