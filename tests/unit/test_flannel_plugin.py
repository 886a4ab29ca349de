"""The verbs of `flannel` on a delegate that is a stand-in: what it is given, what state stays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from cni import errors, invoke
from cni.errors import AlreadyAttached, CNIError, Interrupted
from cni_flannel import plugin
from cni_flannel.bridge import plugin as bridge
from cni_flannel.scratch import Scratch
from tests.unit.fakes import FakePlugin, args
from tests.unit.test_delegate import ENV

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cni.types import Args

REFUSAL = CNIError(errors.KERNEL_REFUSED, "no", "")


class Node:
    """A node with a subnet.env, a data directory and one delegate for every type."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.subnet_file = root / "subnet.env"
        self.subnet_file.write_text(ENV)
        self.delegate = FakePlugin({"ips": [{"address": "10.1.17.2/24"}]})
        self.conf: dict[str, Any] = {
            "name": "cbr0",
            "cniVersion": "1.0.0",
            "type": "flannel",
            "subnetFile": str(self.subnet_file),
            "subnetFileWait": 0,
            "dataDir": str(root / "data"),
        }

    def args(self, ifname: str = "eth0", /, **conf: object) -> Args:
        return args({**self.conf, **conf}, ifname=ifname)

    def state(self, ifname: str = "eth0") -> Scratch:
        return Scratch(str(self.root / "data"), "cbr0", "c1", ifname)

    def files(self) -> list[str]:
        data = self.root / "data"
        return sorted(os.listdir(data)) if data.exists() else []

    def fails(self, **failures: BaseException) -> None:
        self.delegate = FakePlugin(**failures)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(tmp_path)
    monkeypatch.setattr(plugin, "plugin_of", lambda _: made.delegate)
    return made


STORED = {"name": "cbr0", "type": "bridge", "mtu": 1111}


# ---------------------------------------------------------------------------------------------- ADD


def test_add_stores_what_the_delegate_gets_and_returns_its_result(node: Node) -> None:
    assert plugin.cmd_add(node.args()) == {"ips": [{"address": "10.1.17.2/24"}]}
    ((verb, conf),) = node.delegate.calls
    assert (verb, conf["mtu"], conf["type"]) == ("ADD", 1472, "bridge")
    assert node.state().load() == conf
    assert node.files() == ["c1"]


@pytest.mark.parametrize("failure", [REFUSAL, Interrupted(15), ValueError("a bug")], ids=repr)
def test_a_failed_add_leaves_no_state(node: Node, failure: BaseException) -> None:
    node.fails(ADD=failure)
    with pytest.raises(type(failure)):
        plugin.cmd_add(node.args())
    assert node.files() == []


def test_a_failed_add_leaves_the_state_of_a_living_attachment(node: Node) -> None:
    node.state().save(STORED)
    node.fails(ADD=REFUSAL)
    with pytest.raises(CNIError):
        plugin.cmd_add(node.args())
    assert node.state().own() == STORED


def test_an_add_of_a_living_attachment_leaves_the_state_that_it_has_lost(node: Node) -> None:
    """It may be that of an ADD that has attached the container just now, and has not ended."""
    node.fails(ADD=AlreadyAttached(errors.INVALID_ENVIRONMENT, "veth1 exists"))
    with pytest.raises(AlreadyAttached):
        plugin.cmd_add(node.args())
    assert node.state().own() == node.delegate.calls[0][1]


def test_a_failed_add_of_a_second_interface_leaves_the_first_ones_state_alone(node: Node) -> None:
    node.state().save(STORED)
    node.fails(ADD=REFUSAL)
    with pytest.raises(CNIError):
        plugin.cmd_add(node.args("net1"))
    assert node.files() == ["c1"]
    assert node.state().own() == STORED


def test_state_that_cannot_be_written_stops_the_add_before_anything(node: Node) -> None:
    (node.root / "data").write_text("a file")
    with pytest.raises(CNIError) as caught:
        plugin.cmd_add(node.args())
    assert caught.value.code == errors.IO_FAILURE
    assert node.delegate.calls == []


def test_without_subnet_env_add_says_try_again_later(node: Node) -> None:
    node.subnet_file.unlink()
    with pytest.raises(CNIError) as caught:
        plugin.cmd_add(node.args())
    assert caught.value.code == errors.TRY_AGAIN_LATER
    assert "failed to load flannel 'subnet.env' file" in caught.value.msg
    assert (node.delegate.calls, node.files()) == ([], [])


# ---------------------------------------------------------------------------------------------- DEL


def test_del_gives_the_delegate_what_was_stored_and_removes_it_last(node: Node) -> None:
    node.state().save(STORED)
    prev_result: dict[str, Any] = {"ips": []}
    plugin.cmd_del(node.args(prevResult=prev_result, delegate={"type": "ipvlan"}))
    expected = {**STORED, "cniVersion": "1.0.0", "prevResult": prev_result}
    assert node.delegate.calls == [("DEL", expected)]
    assert node.files() == []


def test_a_failed_del_keeps_the_state_for_the_retry(node: Node) -> None:
    node.state().save(STORED)
    node.fails(DEL=REFUSAL)
    with pytest.raises(CNIError):
        plugin.cmd_del(node.args())
    assert node.state().own() == STORED


def test_del_without_state_renders_it_again_and_looks_for_masquerading(node: Node) -> None:
    plugin.cmd_del(node.args())
    ((_, conf),) = node.delegate.calls
    assert conf["ipam"]["ranges"] == [[{"subnet": "10.1.17.0/24"}]]
    assert conf["ipMasq"] is True
    plugin.cmd_del(node.args(delegate={"ipMasq": False}))
    assert node.delegate.calls[1][1]["ipMasq"] is False


def test_del_without_state_and_subnet_env_works(node: Node) -> None:
    node.subnet_file.unlink()
    plugin.cmd_del(node.args(ipam={"dataDir": "/d"}))
    ((_, conf),) = node.delegate.calls
    assert (conf["type"], conf["ipam"]) == ("bridge", {"type": "host-local", "dataDir": "/d"})


def test_del_of_a_second_interface_keeps_the_first_ones_state(node: Node) -> None:
    node.state().save(STORED)
    plugin.cmd_del(node.args("net1"))
    assert node.delegate.calls[0][1]["mtu"] == 1111, "Go's file may be any interface's"
    assert node.files() == ["c1"]


def test_del_of_a_useless_state_goes_on_and_removes_it(node: Node) -> None:
    (node.root / "data").mkdir()
    (node.root / "data" / "c1").write_text("")
    plugin.cmd_del(node.args())
    assert node.delegate.verbs == ["DEL"]
    assert node.files() == []


def test_del_of_a_state_that_cannot_be_read_frees_the_rest_and_says_so(node: Node) -> None:
    (node.root / "data" / "c1").mkdir(parents=True)
    with pytest.raises(CNIError) as caught:
        plugin.cmd_del(node.args())
    assert caught.value.code == errors.IO_FAILURE
    assert f"remove {node.root}/data/c1" in caught.value.details
    assert node.delegate.verbs == ["DEL"]


# -------------------------------------------------------------------------------- CHECK, GC, STATUS


def test_check_compares_with_what_was_stored(node: Node) -> None:
    node.state().save(STORED)
    node.subnet_file.unlink()
    plugin.cmd_check(node.args())
    assert node.delegate.calls == [("CHECK", {**STORED, "cniVersion": "1.0.0"})]


def test_check_without_state_compares_with_what_add_would_render(node: Node) -> None:
    plugin.cmd_check(node.args())
    assert node.delegate.calls[0][1]["mtu"] == 1472


@pytest.mark.parametrize("listed", [[], None], ids=["empty", "absent"])
def test_gc_passes_the_list_on_as_it_is(node: Node, listed: list[Any] | None) -> None:
    key = "cni.dev/valid-attachments"
    plugin.cmd_gc(node.args(**({} if listed is None else {key: listed})))
    ((verb, conf),) = node.delegate.calls
    assert (verb, conf.get(key, None), key in conf) == ("GC", listed, listed is not None)


def test_gc_works_without_subnet_env(node: Node) -> None:
    node.subnet_file.unlink()
    plugin.cmd_gc(node.args())
    assert node.delegate.verbs == ["GC"]


def spoil_missing(node: Node) -> None:
    node.subnet_file.unlink()


def spoil_broken(node: Node) -> None:
    node.subnet_file.write_text("FLANNEL_NETWORK")


def spoil_delegate(node: Node) -> None:
    node.conf["delegate"] = {"name": "x"}


@pytest.mark.parametrize("spoil", [spoil_missing, spoil_broken, spoil_delegate])
def test_status_is_50_while_add_cannot_work(node: Node, spoil: Callable[[Node], None]) -> None:
    spoil(node)
    with pytest.raises(CNIError) as caught:
        plugin.cmd_status(node.args())
    assert caught.value.code == errors.PLUGIN_NOT_AVAILABLE
    assert node.delegate.calls == []


def test_status_asks_the_delegate(node: Node) -> None:
    plugin.cmd_status(node.args())
    assert node.delegate.verbs == ["STATUS"]
    assert node.files() == []


# ---------------------------------------------------------------------------------------- delegates


def test_the_bridge_is_ours_and_every_other_delegate_an_executable() -> None:
    assert plugin.plugin_of({"type": "bridge"}) is bridge
    foreign = plugin.plugin_of({"type": "ipvlan"})
    assert isinstance(foreign, invoke.Foreign)
    assert foreign.kind == "ipvlan"


@pytest.mark.parametrize("conf", [{}, {"type": ""}, {"type": 5}, {"type": "flannel"}], ids=repr)
def test_no_other_type_is_a_delegate(conf: dict[str, Any]) -> None:
    with pytest.raises(CNIError) as caught:
        plugin.plugin_of(conf)
    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
