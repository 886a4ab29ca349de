"""`ipam` of type dhcp: Debian's dhcp plugin with its daemon, and a DHCP server on the bridge."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.attaching import eventually
from tests.kernel.attachments import call, conf_with, ping, remains, running, with_result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kernel.conftest import Node

DHCP = "/usr/lib/cni/dhcp"
pytestmark = pytest.mark.skipif(not os.path.exists(DHCP), reason=f"no {DHCP}")

BRIDGE: dict[str, Any] = {"cniVersion": "1.0.0", "name": "lan", "type": "bridge", "bridge": "cni0"}
FLANNEL = conf_with(cniVersion="1.0.0", name="lan", delegate={"isGateway": False})
SERVED = "sending ACK to 10.9.0."
SERVER = """\
start 10.9.0.50
end 10.9.0.59
interface eth0
lease_file /run/udhcpd.leases
pidfile /run/udhcpd.pid
option subnet 255.255.255.0
option router 10.9.0.1
"""


@pytest.fixture
def daemon(node: Node, tmp_path: Path) -> Iterator[Path]:
    """A pod with a DHCP server, and the plugin's daemon on the node: what that says."""
    node.write_subnet_env()
    node.add_pod("server")
    static = {"type": "static", "addresses": [{"address": "10.9.0.1/24"}]}
    conf = {**BRIDGE, "ipam": static}
    assert call(node, "ADD", "server", conf=conf, plugin="bridge").result
    node.write("/run/udhcpd.conf", SERVER)
    node.write("/run/udhcpd.leases", "")
    node.path("/run/cni").mkdir()
    said = tmp_path / "daemon"
    server = ("ip", "netns", "exec", "server", "busybox", "udhcpd", "-f", "/run/udhcpd.conf")
    with running(node, *server), said.open("wb") as log, node.popen([DHCP, "daemon"], stderr=log):
        eventually(lambda: node.path("/run/cni/dhcp.sock").exists(), "the daemon listens")
        yield said
        node.end_processes()


@pytest.mark.parametrize("plugin", ["bridge", "flannel"])
def test_a_pod_gets_its_address_by_dhcp_and_gives_it_back(
    node: Node, daemon: Path, plugin: str
) -> None:
    node.add_pod("a")
    conf = {**(BRIDGE if plugin == "bridge" else FLANNEL), "ipam": {"type": "dhcp"}}
    result = call(node, "ADD", conf=conf, plugin=plugin).result
    (address,) = [ip["address"] for ip in result["ips"]]
    assert address.startswith("10.9.0.5")
    assert node.addresses("a")["eth0"] == [address]
    assert node.links("a")["eth0"]["address"] == result["interfaces"][2]["mac"]
    assert ping(node, "a", "10.9.0.1")
    told = with_result(conf, result)
    assert call(node, "CHECK", conf=told, plugin=plugin).status == 0
    assert call(node, "DEL", conf=told, plugin=plugin).status == 0
    eventually(lambda: "releasing lease" in daemon.read_text(), "the lease is released")
    assert "failed to release" not in daemon.read_text()
    assert len(remains(node)["links"]) == 1, "the server's"
    assert call(node, "DEL", conf=told, plugin=plugin).status == 0
