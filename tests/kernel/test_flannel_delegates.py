"""Delegates and IPAM plugins that are executed: Debian's own, and some that misbehave."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import (
    STATE,
    add,
    call,
    conf_with,
    delete,
    forge_plugin,
    leases,
    must_add,
    ping,
    remains,
    states,
    with_result,
)

if TYPE_CHECKING:
    from tests.kernel.conftest import Node

GO = "/usr/lib/cni"
needs_go = pytest.mark.skipif(not os.path.isdir(GO), reason=f"no {GO}")


@pytest.fixture(autouse=True)
def _subnet(node: Node) -> None:
    node.write_subnet_env()


# --------------------------------------------------------------------------------- Debian's plugins


@needs_go
def test_ptp_as_delegate(node: Node) -> None:
    conf = conf_with(cniVersion="1.0.0", delegate={"type": "ptp"})
    result = must_add(node, conf=conf)
    assert result["ips"][0]["address"] == "10.244.1.2/24"
    assert result["interfaces"][1]["name"] == "eth0"
    assert ping(node, "a", "10.244.1.1")
    assert leases(node) == {"10.244.1.2": "cid-a\r\neth0"}
    delete(node, conf=conf)
    assert remains(node) == {}


DELEGATES: dict[str, dict[str, Any]] = {
    "ptp": {"type": "ptp"},
    "macvlan": {"type": "macvlan", "master": "uplink"},
    "host-device": {"type": "host-device", "device": "uplink"},
}
IPV6 = {"ipv6_network": "fd00:f1::/56", "ipv6_subnet": "fd00:f1:0:1::1/64"}


@needs_go
@pytest.mark.parametrize("families", ["IPv4", "dual-stack"])
@pytest.mark.parametrize("kind", DELEGATES)
def test_check_right_after_add_of_a_foreign_delegate(node: Node, kind: str, families: str) -> None:
    node.write_subnet_env(**({} if families == "IPv4" else IPV6))
    node.run(["ip", "link", "add", "uplink", "up", "type", "veth", "peer", "name", "switch"])
    # The daemon's network is among the routes three times, another one twice.
    twice = [{"dst": "0.0.0.0/0"}, {"dst": "10.1.2.3/0"}]
    ipam = {"routes": [*twice, {"dst": "10.244.0.0/16"}, {"dst": "10.244.7.9/16"}]}
    conf = conf_with(cniVersion="1.0.0", delegate=DELEGATES[kind], ipam=ipam)
    result = must_add(node, conf=conf)
    outcome = call(node, "CHECK", conf=with_result(conf, result))
    assert (outcome.status, outcome.stdout) == (0, "")


@needs_go
def test_macvlan_as_delegate(node: Node) -> None:
    node.run(["ip", "link", "add", "uplink", "up", "type", "veth", "peer", "name", "switch"])
    conf = conf_with(cniVersion="1.0.0", delegate={"type": "macvlan", "master": "uplink"})
    must_add(node, conf=conf)
    assert node.links("a")["eth0"]["linkinfo"]["info_kind"] == "macvlan"
    assert node.links("a")["eth0"]["mtu"] == 1450
    assert node.addresses("a")["eth0"] == ["10.244.1.2/24"]
    delete(node, conf=conf)
    assert remains(node) == {"links": ["switch", "uplink"]}


@needs_go
def test_references_bridge_as_delegate_under_another_name(node: Node) -> None:
    shutil.copy(f"{GO}/bridge", node.path("/run/go-bridge"))
    node.cni_path = f"/run:{node.cni_path}"
    conf = conf_with(cniVersion="1.0.0", delegate={"type": "go-bridge", "isGateway": True})
    result = must_add(node, conf=conf)
    assert [one["name"] for one in result["interfaces"]][::2] == ["cni0", "eth0"]
    assert ping(node, "a", "10.244.1.1")
    delete(node, conf=conf)
    assert remains(node).keys() <= {"neighbours"}


@needs_go
def test_references_host_local_as_ipam(node: Node) -> None:
    shutil.copy(f"{GO}/host-local", node.path("/run/go-local"))
    node.cni_path = f"/run:{node.cni_path}"
    conf = conf_with(cniVersion="1.0.0", ipam={"type": "go-local"})
    assert must_add(node, conf=conf)["ips"][0]["address"] == "10.244.1.2/24"
    assert leases(node) == {"10.244.1.2": "cid-a\r\neth0"}
    assert ping(node, "a", "10.244.1.1")
    delete(node, conf=conf)
    assert remains(node) == {}


@needs_go
def test_static_as_ipam(node: Node) -> None:
    addresses = [{"address": "10.244.1.40/24", "gateway": "10.244.1.1"}]
    conf = conf_with(cniVersion="1.0.0", ipam={"type": "static", "addresses": addresses})
    assert must_add(node, conf=conf)["ips"] == [
        {"address": "10.244.1.40/24", "gateway": "10.244.1.1", "interface": 2}
    ]
    assert ping(node, "a", "10.244.1.1")
    delete(node, conf=conf)
    assert remains(node) == {}


@needs_go
def test_add_that_ptp_refuses_leaves_nothing(node: Node) -> None:
    node.add_pod("a")
    node.run(["ip", "-n", "a", "link", "add", "eth0", "type", "bridge"])
    error = add(node, conf=conf_with(cniVersion="1.0.0", delegate={"type": "ptp"})).error
    assert "eth0" in error["msg"]
    assert remains(node) == {}


# --------------------------------------------------------------- what the delegate is told and says

RECORDS = """
cat >/run/stdin.$CNI_COMMAND
env >/run/env.$CNI_COMMAND
[ $CNI_COMMAND != ADD ] ||
    echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.244.1.9/24"}], "dns": {}}'"""


def told(node: Node, command: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the conf and the environment that a recording delegate was given."""
    conf = json.loads(node.path(f"/run/stdin.{command}").read_text())
    lines = node.path(f"/run/env.{command}").read_text().splitlines()
    return conf, dict(line.split("=", 1) for line in lines if "=" in line)


def test_delegate_is_told_conf_and_call(node: Node) -> None:
    forge_plugin(node, "record", RECORDS)
    conf = conf_with(
        delegate={"type": "record", "own": {"Key": [1, None]}},
        args={"cni": {"labels": []}},
        dns={"domain": "x"},
        runtimeConfig={"portMappings": [{"HostPort": 80}]},
    )
    add(node, conf=conf, env={"CNI_ARGS": "IgnoreUnknown=1;X=y", "TRACEPARENT": "00-1"})
    sent, environ = told(node, "ADD")
    assert sent == {
        "args": {"cni": {"labels": []}},
        "cniVersion": "1.1.0",
        "dns": {"domain": "x"},
        "ipMasq": False,
        "ipam": {
            "ranges": [[{"subnet": "10.244.1.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
            "type": "host-local",
        },
        "mtu": 1450,
        "name": "cbr0",
        "own": {"Key": [1, None]},
        "runtimeConfig": {"portMappings": [{"HostPort": 80}]},
        "type": "record",
    }
    wanted = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "cid-a",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/run/netns/a",
        "CNI_ARGS": "IgnoreUnknown=1;X=y",
        "CNI_PATH": node.cni_path,
        "TRACEPARENT": "00-1",
    }
    assert {key: environ[key] for key in wanted} == wanted
    assert "LD_LIBRARY_PATH" not in environ


def test_delegate_is_told_the_same_conf_and_the_result_at_del(node: Node) -> None:
    forge_plugin(node, "record", RECORDS)
    conf = conf_with(delegate={"type": "record"})
    result = must_add(node, conf=conf)
    node.path("/run/flannel/subnet.env").unlink()
    delete(node, conf=with_result(conf, result))
    sent_at_add, _ = told(node, "ADD")
    sent_at_del, environ = told(node, "DEL")
    assert sent_at_del.pop("prevResult") == result
    assert sent_at_del == sent_at_add
    assert environ["CNI_COMMAND"] == "DEL"


def test_check_is_passed_on(node: Node) -> None:
    forge_plugin(node, "record", RECORDS)
    conf = conf_with(delegate={"type": "record"})
    result = must_add(node, conf=conf)
    assert call(node, "CHECK", conf=with_result(conf, result)).stdout == ""
    assert told(node, "CHECK")[0]["prevResult"] == result
    forge_plugin(node, "record", 'echo \'{"code": 107, "msg": "it differs"}\'; exit 1')
    error = call(node, "CHECK", conf=with_result(conf, result)).error
    assert (error["code"], error["msg"]) == (107, "it differs")


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_verbs_without_a_container_are_passed_on(node: Node, verb: str) -> None:
    forge_plugin(node, "record", RECORDS)
    conf = conf_with(delegate={"type": "record"})
    if verb == "GC":
        conf["cni.dev/valid-attachments"] = []
    assert call(node, verb, conf=conf).stdout == ""
    sent, environ = told(node, verb)
    assert sent["type"] == "record"
    assert sent.get("cni.dev/valid-attachments") == conf.get("cni.dev/valid-attachments")
    assert environ["CNI_COMMAND"] == verb


def test_delegates_stderr_is_passed_on(node: Node) -> None:
    forge_plugin(node, "record", f"echo a word of warning >&2\n{RECORDS}")
    done = add(node, conf=conf_with(delegate={"type": "record"}))
    assert done.status == 0
    assert done.stderr == "a word of warning\n"


def test_result_without_a_version_has_the_confs(node: Node) -> None:
    forge_plugin(node, "record", RECORDS.replace('"cniVersion": "1.1.0", ', ""))
    assert must_add(node, conf=conf_with(delegate={"type": "record"})) == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.244.1.9/24"}],
    }


@pytest.mark.parametrize("version", ["0.3.1", "1.0.0"])
def test_delegates_result_of_another_shape_is_refused(node: Node, version: str) -> None:
    forge_plugin(node, "record", RECORDS.replace('"1.1.0"', '"0.2.0"'))
    conf = conf_with(cniVersion=version, delegate={"type": "record"})
    done = add(node, conf=conf)
    if done.status == 0:  # it says which shape it has, and that shape can be read
        assert done.result["cniVersion"] == version
    else:
        assert done.error["code"] == 105


# --------------------------------------------------------------------------------- and their errors

FAILS = """
cat >/dev/null
echo $CNI_COMMAND >>/run/called
if [ $CNI_COMMAND = ADD ]; then
    echo '{"cniVersion": "1.1.0", "code": 107, "msg": "no room", "details": "ask the owner"}'
    exit 1
fi"""


@pytest.mark.parametrize("kind", ["delegate", "ipam"])
def test_error_of_a_plugin_keeps_code_message_and_details(node: Node, kind: str) -> None:
    forge_plugin(node, "fails", FAILS)
    error = add(node, conf=conf_with(**{kind: {"type": "fails"}})).error
    assert error == {
        "cniVersion": "1.1.0",
        "code": 107,
        "msg": "no room",
        "details": "ask the owner",
    }


@pytest.mark.parametrize("kind", ["delegate", "ipam"])
def test_failed_add_is_followed_by_that_plugins_del(node: Node, kind: str) -> None:
    forge_plugin(node, "fails", FAILS)
    assert add(node, conf=conf_with(**{kind: {"type": "fails"}})).status == 1
    called = node.path("/run/called").read_text().split()
    assert called[0] == "ADD"
    assert set(called[1:]) == {"DEL"}
    assert remains(node) == {}


def test_a_foreign_ipam_is_not_asked_where_the_bridge_refuses(node: Node) -> None:
    forge_plugin(node, "record", RECORDS)
    node.run(["ip", "link", "add", "taken", "type", "veth", "peer", "name", "other"])
    conf = conf_with(delegate={"bridge": "taken"}, ipam={"type": "record"})
    assert add(node, conf=conf).error["code"] == 104
    assert not node.path("/run/env.ADD").exists()
    assert states(node) == {}


def test_lease_of_a_foreign_ipam_is_given_back_when_the_bridge_is_in_use(node: Node) -> None:
    """It has another gateway's address, and a pod that uses it."""
    must_add(node, "b", conf=conf_with(ipam={"type": "host-local"}))
    node.run(["ip", "address", "flush", "dev", "cni0"])
    node.run(["ip", "address", "add", "10.99.0.1/24", "dev", "cni0"])
    forge_plugin(node, "record", RECORDS)
    assert add(node, conf=conf_with(ipam={"type": "record"})).error["code"] == 104
    assert told(node, "DEL")[1]["CNI_CONTAINERID"] == "cid-a"
    assert list(states(node)) == ["cid-b"]
    assert set(node.links("a")) == {"lo"}


BAD_PLUGINS = {
    "garbage": ("cat >/dev/null; echo this is not JSON", "this is not JSON"),
    "garbage and failure": ("cat >/dev/null; echo this is not JSON; exit 3", "exit status 3"),
    "a list": ("cat >/dev/null; echo '[1, 2]'", "[1, 2]"),
    "an error that is none": ('cat >/dev/null; echo \'{"code": "x"}\'; exit 1', "exit status 1"),
    "nothing": ("cat >/dev/null", ""),
    "nothing and failure": ("cat >/dev/null; exit 2", "exit status 2"),
    "words on stderr and failure": ("cat >/dev/null; echo 'my word' >&2; exit 4", "my word"),
    "hung up": ("exit 1", "exit status 1"),
    "killed": ("cat >/dev/null; kill -9 $$", "signal: 9"),
    "two documents": ("cat >/dev/null; echo '{} {}'", "{} {}"),
    "no address": ('cat >/dev/null; echo \'{"ips": [{"address": "1.2.3"}]}\'', "1.2.3"),
}


@pytest.mark.parametrize("kind", ["delegate", "ipam"])
@pytest.mark.parametrize("name", BAD_PLUGINS)
def test_plugin_that_misbehaves_at_add(node: Node, name: str, kind: str) -> None:
    script, words = BAD_PLUGINS[name]
    forge_plugin(node, "bad", f"[ $CNI_COMMAND = ADD ] || {{ cat >/dev/null; exit 0; }}\n{script}")
    done = add(node, conf=conf_with(**{kind: {"type": "bad"}}))
    assert done.error["code"] == 105, done
    assert "bad" in done.error["msg"]
    assert words in json.dumps(done.error).replace("\\", "")
    assert "Traceback" not in done.stderr
    assert remains(node) == {}


@pytest.mark.parametrize(
    "name", ["garbage and failure", "nothing and failure", "killed", "words on stderr and failure"]
)
def test_plugin_that_misbehaves_at_del_keeps_the_state(node: Node, name: str) -> None:
    forge_plugin(node, "bad", RECORDS)
    conf = conf_with(delegate={"type": "bad"})
    must_add(node, conf=conf)
    before = node.files(STATE)
    script, words = BAD_PLUGINS[name]
    forge_plugin(node, "bad", script)
    error = call(node, "DEL", conf=conf).error
    assert error["code"] == 105
    assert words in json.dumps(error).replace("\\", "")
    assert node.files(STATE) == before
    forge_plugin(node, "bad", RECORDS)
    delete(node, conf=conf)
    assert node.files(STATE) == {}


def test_plugin_that_prints_at_del_has_done_its_work(node: Node) -> None:
    forge_plugin(node, "bad", f"{RECORDS}\necho OK")
    conf = conf_with(delegate={"type": "bad"}, cniVersion="1.0.0")
    node.write(f"{STATE}/cid-a", json.dumps({"name": "cbr0", "type": "bad"}))
    delete(node, conf=conf)
    assert node.files(STATE) == {}


def test_ipam_that_fails_at_del_still_lets_the_link_go(node: Node) -> None:
    forge_plugin(node, "frail", RECORDS)
    conf = conf_with(ipam={"type": "frail"})
    must_add(node, conf=conf)
    forge_plugin(node, "frail", "cat >/dev/null; exit 7")
    assert call(node, "DEL", conf=conf).error["code"] == 105
    assert set(node.links()) == {"lo", "cni0"}
    assert list(states(node)) == ["cid-a"]


@pytest.mark.parametrize("kind", ["delegate", "ipam"])
def test_plugin_that_is_not_installed(node: Node, kind: str) -> None:
    error = add(node, conf=conf_with(**{kind: {"type": "nowhere"}})).error
    assert error["code"] == 105
    assert error["msg"].startswith('failed to find plugin "nowhere" in path [')
    assert node.cni_path.split(":")[0] in error["msg"]
    assert remains(node) == {}


def test_plugin_whose_interpreter_is_missing(node: Node) -> None:
    forge_plugin(node, "script", "")
    path = node.path("/run/plugins/script")
    path.write_text("#!/no/such/interpreter\n")
    error = add(node, conf=conf_with(delegate={"type": "script"})).error
    assert error["code"] == 105
    assert "script" in error["msg"]
    assert remains(node) == {}


@pytest.mark.parametrize("kind", ["../bridge", "a/b", "..", "."])
def test_type_that_is_a_path(node: Node, kind: str) -> None:
    error = add(node, conf=conf_with(delegate={"type": kind})).error
    assert error["code"] == 7
    assert kind in error["msg"]
    assert remains(node) == {}
