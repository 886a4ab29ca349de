"""Whatever stands in a store or a file: the daemon lives, and good nodes reach one another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.flanneld.etcdserver import PREFIX
from tests.flanneld.scene import Scene, eventually
from tests.kernel.privatens import needs_root, private, sh

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flanneld.scene import Node

pytestmark = [needs_root, pytest.mark.timeout(600)]

VALUES = {
    "10.244.201.0-24": "[" * 2000,
    "10.244.202.0-24": '{"PublicIP":"192.168.64.202","BackendData":'
    + '{"a":' * 984
    + "1"
    + "}" * 985,
    "10.244.203.0-24": '{"PublicIP":"192.168.64.203","BackendType":"\\ud800"}',
    "10.244.204.0-24": '{"PublicIP":"192.168.64.204","BackendData":{"VNI":"\\udfff"}}',
    "10.244.205.0-24": '{"PublicIP":"192.168.64.205","BackendData":{"VNI":1e999}}',
    "10.244.206.0-24": "x" * 1_000_000,
    "10.244.207.0-24": "",
    "old/10.244.209.0-24": '{"PublicIP":"192.168.64.207"}',
    "10.244.208.0-024": '{"PublicIP":"192.168.64.208"}',
    "nonsense": "\u202e",
}


def reach_each_other(*nodes: Node) -> None:
    for node in nodes:
        for other in nodes:
            if node is not other:
                eventually(f"{node.name} -> {other.name}", lambda: node.reaches(other.base))  # noqa: B023
        assert node.get("readyz").startswith("flanneld is ready")


@private
def test_no_value_of_one_node_ends_another(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    for key, value in VALUES.items():
        scene.etcd.put_long(f"subnets/{key}", value)
    eventually("each is told", lambda: all(f"subnets/{key}" in one.log for key in VALUES))
    reach_each_other(one, two)
    two.end()
    one.end()
    scene.start()
    reach_each_other(one, two)
    assert len(scene.etcd.leases()) == len(VALUES) + 2
    for key in VALUES:
        told = [line for line in one.log.splitlines() if f"subnets/{key}" in line]
        assert len(told) == 2  # by each run
        assert max(map(len, told)) < 1000
    # What they stood for can be deleted, and living nodes stay.
    for key in VALUES:
        scene.etcd.delete(f"subnets/{key}")
    eventually("it is over", lambda: one.log.count("solved: ignoring a key") == len(VALUES))
    reach_each_other(one, two)


@private
def test_an_own_key_that_cannot_be_read_is_written_anew(tmp_path: Path) -> None:
    """While the daemon runs, and when it starts; peers are not cut off.

    So is one that can be read, and leads nobody to the node.
    """
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    key, before = f"subnets/{one.base}-24", scene.etcd.leases()
    data = json.loads(before[f"{one.base}-24"])["BackendData"]
    odd: list[dict[str, Any]] = [
        *({}, {"PublicIP": "0.0.0.0"}, {"PublicIP": "224.0.0.1", "BackendData": data}),  # noqa: S104
        *({"PublicIP": one.address}, {"PublicIP": one.address, "BackendType": "host-gw"}),
        {"PublicIP": one.address, "BackendType": "vxlan", "BackendData": {**data, "VNI": 7}},
        {"PublicIP": one.address, "BackendType": "vxlan", "BackendData": {"VtepMAC": 5}},
    ]
    values = ("", "null", "[" * 2000, *map(json.dumps, odd))
    for raw in values:
        scene.etcd.put(key, raw)
        eventually(f"{raw[:99]} is written anew", lambda: scene.etcd.leases() == before)
    reach_each_other(one, two)
    for raw in ("garbage", *values):
        one.end()
        scene.etcd.put(key, raw)
        one.start()
        one.ready()
        assert scene.etcd.leases() == before
    reach_each_other(one, two)


@private
def test_much_that_is_wrong(tmp_path: Path) -> None:
    """More than gRPC takes in one answer by itself, and many keys: each is told once, in short."""
    scene = Scene(tmp_path)
    for number in range(20):
        scene.etcd.put_long(f"subnets/10.244.{number + 200}.0-24", "x" * 1_400_000)
    lines = "".join(f"put {PREFIX}/subnets/bad{number} x\n" for number in range(120))
    for node in scene.nodes:
        node.start()
        node.ready()
    scene.etcd.ctl("txn", text=f"\n{lines}\n\n")
    one, two = scene.nodes
    eventually("each is told", lambda: one.log.count("ignoring a key of the store") == 140)
    reach_each_other(one, two)
    away = "what other nodes change is not seen at present"
    scene.etcd.stop()
    eventually("it is away", lambda: away in one.get("readyz"))
    scene.etcd.start()
    eventually("it is back", lambda: away not in one.get("readyz"))
    assert one.log.count("ignoring a key of the store") == 140
    assert max(map(len, one.log.splitlines())) < 1000


@private
def test_a_stray_key_cuts_nobody_off(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 3)
    one, two, three = scene.nodes
    for node in (one, two):
        node.start()
        node.ready()
    eventually("they know each other", lambda: one.metric("peers") == two.metric("peers") == 1)
    for node in (one, two):
        stray = f"bak/{node.base}-24"
        scene.etcd.put(f"subnets/{stray}", '{"PublicIP":"192.168.64.99"}')
        scene.etcd.delete(f"subnets/{stray}")
    three.start()
    three.ready()
    eventually("all know all", lambda: one.metric("peers") == two.metric("peers") == 2)
    reach_each_other(one, two, three)


@private
@pytest.mark.parametrize(
    "bad", ["[" * 2000, '{"Network":' * 985, '{"Network":"\\ud800"}', "x" * 100_000], ids=range(4)
)
@pytest.mark.parametrize("where", ["etcd", "file"])
def test_a_configuration_that_cannot_be_is_shown_in_one_line(
    tmp_path: Path, bad: str, where: str
) -> None:
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    if where == "etcd":
        scene.etcd.put("config", bad)
        one.start()
    else:
        (tmp_path / "net-conf.json").write_text(bad)
        one.start("--subnet-mgr", "local", "--net-config-path", str(tmp_path / "net-conf.json"))
    assert one.status() == 2
    assert "Traceback" not in one.log
    assert max(map(len, one.log.splitlines())) < 1000


@private
def test_hostile_files_of_peers(tmp_path: Path) -> None:
    """A wrong entry is named and the others count; of a wrong file what was known stays."""
    scene = Scene(tmp_path, 1)
    (one,) = scene.nodes
    peers = tmp_path / "peers.json"
    good = '"10.9.7.0-24": {"PublicIP": "192.168.64.7", "BackendType": "host-gw"}'
    values = {key: value for key, value in VALUES.items() if key.startswith("10.244")}
    nested = ", ".join(
        f'"{key.replace("10.244", "10.9")}": {value}'
        for key, value in values.items()
        if value.count("{") == value.count("}") > 0
    )
    deep = "[" * 2000 + "]" * 2000
    peers.write_text(f'{{{nested}, "10.9.99.0-24": {deep}, "x": {deep}, {good}}}')
    one.start(
        *("--subnet-mgr", "local", "--network", "10.9.0.0/16", "--backend", "host-gw"),
        *("--peers", str(peers)),
    )
    one.ready()
    eventually("the peer's route", lambda: one.routes("eth0")["10.9.7.0/24"] == "192.168.64.7")
    for bad in ("[" * 2000, "{", "\ud800".encode("utf-8", "surrogatepass"), b"\xff" * 1000):
        peers.write_bytes(bad.encode() if isinstance(bad, str) else bad)
        eventually("it is told", lambda: "keeping what was known" in one.log)
    assert one.routes("eth0") == {"10.9.7.0/24": "192.168.64.7"} | {
        name: gateway for name, gateway in one.routes("eth0").items() if "10.9" not in name
    }
    assert one.get("readyz").startswith("flanneld is ready")


@private
@pytest.mark.parametrize("kind", ["garbage", "fifo"])
def test_hostile_files_of_its_own(tmp_path: Path, kind: str) -> None:
    """What an earlier run left, in whatever state: the daemon starts, and waits for nobody."""
    scene = Scene(tmp_path)
    scene.start()
    one, two = scene.nodes
    before = one.base
    one.end()
    files = [path for path in one.folder.rglob("*") if path.is_file() and path.name != "log"]
    assert {"subnet.env", "subnet.state.json"} <= {path.name for path in files}
    assert {path.parent.name for path in files} >= {"mac", "last"}
    for path in files:
        if path.suffix == ".lock":
            continue
        path.unlink()
        if kind == "garbage":
            path.write_bytes(b"[" * 100_000 + b"\xff\0")
        else:
            sh(f"mkfifo {path}")
    one.start()
    one.ready()
    assert one.base == before  # by its device
    reach_each_other(one, two)


@private
@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "/dev/zero"])
def test_a_configuration_that_is_no_file(tmp_path: Path, kind: str) -> None:
    """It is told at once: nothing is waited for, and nothing without end is read."""
    (one,) = Scene(tmp_path, 1).nodes
    (tmp_path / "folder").mkdir()
    sh(f"mkfifo {tmp_path}/fifo")
    path = str(tmp_path / kind)
    one.start("--subnet-mgr", "local", "--net-config-path", path)
    assert one.status() == 2
    assert f"or a configuration in --net-config-path: {path}: " in one.log
    assert "Errno" not in one.log


@private
@pytest.mark.parametrize("backend", ["host-gw", "vxlan", "udp"])
def test_public_addresses_that_are_nobody_s(tmp_path: Path, backend: str) -> None:
    scene = Scene(tmp_path, Backend={"Type": backend})
    wrong = [
        *("224.0.0.9", "255.255.255.255", "127.0.0.1", "240.1.2.3", "0.1.2.3"),
        *("192.168.64.255", "192.168.64.0", "192.168.64.88"),
    ]
    for number, address in enumerate(wrong, 100):
        data = {"VNI": 1, "VtepMAC": f"02:00:00:00:01:{number:02x}"}
        told: dict[str, Any] = {"PublicIP": address}
        told |= {"BackendType": backend} if backend != "udp" else {}
        told |= {"BackendData": data} if backend == "vxlan" else {}
        scene.etcd.put(f"subnets/10.244.{number + 101}.0-24", json.dumps(told))
    one, two = scene.nodes
    one.sh("ip address add 192.168.64.88/24 dev eth0")
    for node in scene.nodes:
        node.start()
    for node in scene.nodes:
        node.ready()
    device = {"host-gw": "eth0", "vxlan": "flannel.1", "udp": "flannel0"}[backend]
    for node, other in ((one, two), (two, one)):
        wanted = (
            {"10.244.0.0/16"}
            if backend == "udp"
            else {f"{other.env['FLANNEL_SUBNET'].removesuffix('.1/24')}.0/24"}
        )
        # To the other the first node's second address is a good one.
        allowed = wanted | ({"10.244.208.0/24"} if node is two else set())
        status = [line.split() for line in node.flanneld("status").splitlines()]
        (peer,) = [line for line in status if line[:2] == ["10.244.208.0/24", "192.168.64.88"]]
        assert (peer[-1] == "ok") == (node is two), peer
        eventually(
            f"{node.name} has the other's route alone",
            lambda: wanted <= {one for one in node.routes(device) if "10.244" in one} <= allowed,  # noqa: B023
        )
        for number in range(len(wrong)):
            if node is two and number == 7:
                continue
            lines = [line for line in node.log.splitlines() if wrong[number] in line]
            assert any(f"10.244.{number + 201}.0" in line for line in lines)
    if backend != "host-gw":
        reach_each_other(one, two)


@private
@pytest.mark.parametrize("network", ["192.168.0.0/16", "0.0.0.0/0"])
@pytest.mark.parametrize("backend", ["vxlan", "udp"])
def test_the_underlay_is_nobody_s_subnet(tmp_path: Path, network: str, backend: str) -> None:
    """A network that the nodes are in: warned of; and what would hijack the underlay is refused."""
    scene = Scene(
        tmp_path, Network=network, SubnetLen=26, SubnetMin="192.168.63.192",
        SubnetMax="192.168.65.0", Backend={"Type": backend},
    )  # fmt: skip
    told: dict[str, Any] = {"PublicIP": "192.168.64.77"}
    if backend == "vxlan":
        data = {"VNI": 1, "VtepMAC": "02:00:00:00:00:77"}
        told |= {"BackendType": "vxlan", "BackendData": data}
    for key in ("192.168.64.0-26", "192.168.64.192-26", "192.168.64.0-24"):
        scene.etcd.put(f"subnets/{key}", json.dumps(told))
    for node in scene.nodes:
        node.start()
    device = "flannel.1" if backend == "vxlan" else "flannel0"
    one, two = scene.nodes
    for node, other in ((one, two), (two, one)):
        node.ready()
        eventually("the other is reached", lambda: node.metric("peers") == 4)  # noqa: B023
        assert f"the network {network} overlaps this node's underlay: 192.168.64.0/24" in node.log
        assert "192.168.64.0/26 of 192.168.64.77: 192.168.64.0/24 of this node's" in node.log
        subnet = node.env["FLANNEL_SUBNET"].rpartition(".")[0]
        assert subnet in {"192.168.63", "192.168.65"}
        assert not any(route.startswith("192.168.64") for route in node.routes(device))
        assert "default" not in node.routes(device)
        assert node.reaches("192.168.64.254")
        assert node.reaches(other.address)


@private
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_the_underlay_of_ipv6_is_nobody_s_subnet(tmp_path: Path, backend: str) -> None:
    scene = Scene(tmp_path, EnableIPv6=True, IPv6Network="fd64::/48", Backend={"Type": backend})
    for number, subnet6 in enumerate(("fd64::-64", "fd64::-120", "fd64::2-127", "fd64:0:0:5::-64")):
        mac = f"02:00:00:00:{number:02x}:77"
        told: dict[str, Any] = {"PublicIP": f"192.168.64.{77 + number}", "BackendType": backend}
        told |= {"PublicIPv6": f"fd64::{77 + number}"}
        if backend == "vxlan":
            told |= {name: {"VNI": 1, "VtepMAC": mac} for name in ("BackendData", "BackendV6Data")}
        scene.etcd.put(f"subnets/10.244.{200 + number}.0-24&{subnet6}", json.dumps(told))
    for node in scene.nodes:
        node.start()
    device = "flannel-v6.1" if backend == "vxlan" else "eth0"
    one, two = scene.nodes
    one.ready()
    two.ready()
    for node, other in ((one, two), (two, one)):
        wanted = {other.env["FLANNEL_IPV6_SUBNET"].replace("::1/64", "::/64"), "fd64:0:0:5::/64"}
        own = node.env["FLANNEL_IPV6_SUBNET"]
        assert not own.startswith("fd64::")

        def networks(node: Node = node) -> set[str]:
            found = {entry["dst"] for entry in node.ip("-6", "route", "show", "dev", device)}
            return {name for name in found if name.startswith("fd64:0:0:") and "/" in name}

        eventually("the good routes alone", lambda: networks() == wanted)  # noqa: B023
        assert "the network fd64::/48 overlaps this node's underlay: fd64::/64" in node.log
        for subnet6 in ("fd64::/64", "fd64::/120", "fd64::2/127"):
            assert f"{subnet6} of fd64::" in node.log
        assert node.reaches("fd64::254")
        assert node.reaches(f"fd64::{other.number}")
