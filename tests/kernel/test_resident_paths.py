"""A path means the same whether a process per call or the resident process works on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attachments import leases, remains, with_result

if TYPE_CHECKING:
    from tests.kernel.conftest import Node, Outcome
    from tests.kernel.resident import Resident

# What a caller says before it becomes the plugin.
HERE = "mkdir -p /run/here; cd /run/here"
ELSEWHERE = "mkdir -p /run/own; mount -t tmpfs none /run/own"
CONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": "cbr0", "type": "flannel"}


def call(
    node: Node, command: str, conf: dict[str, Any], before: str, program: str, **env: str
) -> Outcome:
    """Call as a runtime with another working folder, or other mounts, does."""
    environ = node.environment(command, "cid-a", "eth0", "/run/netns/a") | env
    argv = ["unshare", "--mount", "sh", "-ec", f'{before}; exec "$0"', program]
    return node.run(argv, json.dumps(conf), environ, check=False)


@pytest.fixture(params=["a process per call", "the resident process"])
def flannel(request: pytest.FixtureRequest, resident: Resident) -> str:
    """The launcher; the resident process, where there is one, works in another folder."""
    if request.param == "the resident process":
        resident.start()
    return resident.launcher


def test_relative_paths_begin_where_the_caller_is(node: Node, flannel: str) -> None:
    node.write("/run/here/resolv.conf", "nameserver 10.9.9.9\n")
    node.write_subnet_env("/run/here/subnet.env", subnet="10.244.9.1/24")
    ipam = {"dataDir": "leases", "resolvConf": "./resolv.conf"}
    conf = CONF | {"subnetFile": "subnet.env", "dataDir": "../here/state", "ipam": ipam}
    assert call(node, "STATUS", conf, HERE, flannel).status == 0
    result = call(node, "ADD", conf, HERE, flannel).result
    assert result["ips"][0]["address"] == "10.244.9.2/24"
    assert result["dns"] == {"nameservers": ["10.9.9.9"]}
    assert node.path("/run/here/leases/cbr0/10.244.9.2").exists()
    assert node.path("/run/here/state/cid-a").exists()
    assert call(node, "CHECK", with_result(conf, result), HERE, flannel).status == 0
    assert call(node, "DEL", conf, HERE, flannel).status == 0
    assert not node.path("/run/here/leases/cbr0/10.244.9.2").exists()
    assert not node.path("/run/here/state/cid-a").exists()
    assert remains(node) == {}


def test_a_delegate_is_found_from_where_the_caller_is(node: Node, flannel: str) -> None:
    node.write("/run/here/bin/own", '#!/bin/sh\necho \'{"cniVersion": "1.1.0"}\'\n')
    node.path("/run/here/bin/own").chmod(0o755)
    conf = CONF | {"delegate": {"type": "own"}}
    done = call(node, "ADD", conf, HERE, flannel, CNI_PATH="bin:/nowhere")
    assert done.result == {"cniVersion": "1.1.0"}


@pytest.mark.parametrize("data_dir", ["/run/own", "/run/own/not/yet", "/run/own/../own"])
def test_a_place_that_only_the_caller_sees(node: Node, flannel: str, data_dir: str) -> None:
    conf = CONF | {"ipam": {"DataDir": data_dir}}
    before = f"{ELSEWHERE}; mkdir -p /run/own/cbr0; echo >/run/own/cbr0/10.244.1.2 other"
    if data_dir.endswith("yet"):
        before = ELSEWHERE
    done = call(node, "ADD", conf, before, flannel)
    assert done.status == 0, done
    assert node.files("/run/own") == {}
    assert leases(node) == {}
    expected = "10.244.1.2/24" if data_dir.endswith("yet") else "10.244.1.3/24"
    assert done.result["ips"][0]["address"] == expected


def test_a_place_where_the_resident_process_may_not_write(node: Node, resident: Resident) -> None:
    """As a unit with ProtectSystem= has it."""
    node.write("/run/data/file", "")
    node.run(["mount", "--bind", "/run/data", "/run/data"])
    read_only = ["unshare", "--mount", "sh", "-ec", 'mount -o remount,bind,ro /run/data; exec "$@"']
    resident.start(wrapped=[*read_only, "sh"])
    conf = CONF | {"ipam": {"dataDir": "/run/data/leases"}}
    assert call(node, "ADD", conf, ":", resident.launcher).status == 0
    assert node.path("/run/data/leases/cbr0/10.244.1.2").exists()
    assert call(node, "DEL", conf, ":", resident.launcher).status == 0
    assert not node.path("/run/data/leases/cbr0/10.244.1.2").exists()


def test_a_place_that_both_see_is_served(node: Node, resident: Resident) -> None:
    resident.start()
    conf = CONF | {"dataDir": "/run/x/state", "ipam": {"dataDir": "/run/x/leases"}}
    for command in ("ADD", "DEL"):
        done = call(node, command, conf, ":", resident.lonely())
        assert done.status == 0, done
