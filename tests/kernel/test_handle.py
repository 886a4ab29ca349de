"""Requests to the real kernel in private namespaces; what they did is read by ip(8)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from cni.cidr import parse_address, parse_prefix
from netlink import nlmsg, rtnl
from netlink.handle import Handle
from netlink.nlmsg import NetlinkError
from tests.kernel.privatens import needs_root, new_pod, private, sh
from tests.kernel.world import HOST_MAC, MAC, POD_MAC, World, ip, link_of

if TYPE_CHECKING:
    from netlink.nlmsg import Message

pytestmark = [pytest.mark.kernel, needs_root]


@private
def test_a_bridge() -> None:
    with Handle() as handle:
        handle.execute(rtnl.new_bridge("cni0", mac=MAC, mtu=1450))
    (bridge,) = ip("link show cni0")
    assert (bridge["address"], bridge["mtu"]) == (MAC, 1450)
    assert "UP" in bridge["flags"]
    assert bridge["linkinfo"]["info_kind"] == "bridge"
    # given, not made up: neither a joining port nor udev may change it
    assert (
        sh(
            "cat /proc/self/mounts >/dev/null; mount -t sysfs none /sys; "
            "cat /sys/class/net/cni0/addr_assign_type"
        )
        == "3\n"
    )


@private
def test_a_bridge_keeps_its_mac_when_a_lower_one_joins() -> None:
    world = World(mac="02:00:00:00:00:01")
    assert world.found("cni0").mac == MAC
    world.host.execute(rtnl.del_link("veth1"))
    assert world.found("cni0").mac == MAC


@private
def test_a_veth_pair_in_one_message() -> None:
    world = World()
    (veth,) = ip("link show veth1")
    assert (veth["address"], veth["mtu"], veth["master"]) == (HOST_MAC, 1450, "cni0")
    assert "UP" in veth["flags"]
    (eth0,) = world.ip_inside("link show eth0")
    assert (eth0["address"], eth0["mtu"], eth0["link_index"]) == (POD_MAC, 1450, veth["ifindex"])
    assert "UP" not in eth0["flags"]
    assert veth["link_index"] == eth0["ifindex"]


@private
def test_a_pair_within_one_namespace() -> None:
    with Handle() as handle:
        handle.execute(rtnl.new_veth("a", mac=HOST_MAC, peer_name="b", peer_mac=POD_MAC))
        a, b = handle.get_link("a"), handle.get_link("b")
        assert a is not None
        assert b is not None
        assert rtnl.paired(a, b)
        assert a.link_netnsid is None


@private
def test_the_ends_know_each_other() -> None:
    world = World()
    assert rtnl.paired(world.veth, world.eth0)
    assert world.veth.link_netnsid == world.host.nsid(world.pod_fd)
    with open("/proc/thread-self/ns/net", "rb") as own:
        assert world.eth0.link_netnsid == world.inside.nsid(own.fileno())
    stranger = os.open(f"/proc/{new_pod()}/ns/net", os.O_RDONLY)
    assert world.host.nsid(stranger) is None


@private
def test_what_a_veth_does_not_take_at_creation_follows_in_its_batch() -> None:
    world = World()
    world.host.execute(rtnl.del_link("veth1"))
    *_, reply = world.host.execute(
        world.new_veth("veth2"),
        rtnl.set_link("veth2", alias="flannel:net:pod:eth0"),
        rtnl.set_port("veth2", hairpin=True, isolated=True),
        rtnl.get_link("veth2"),
    )
    link = link_of(reply)
    assert link.alias == "flannel:net:pod:eth0"
    assert link.port is not None
    assert (link.port.hairpin, link.port.isolated) == (True, True)
    (seen,) = ip("link show veth2")
    assert seen["ifalias"] == "flannel:net:pod:eth0"
    data = seen["linkinfo"]["info_slave_data"]
    assert (data["hairpin"], data["isolated"]) == (True, True)
    world.host.execute(rtnl.set_port(link.index, hairpin=False))
    data = ip("link show veth2")[0]["linkinfo"]["info_slave_data"]
    assert (data["hairpin"], data["isolated"]) == (False, True)


@private
def test_an_alias_of_255_bytes_and_none() -> None:
    world = World()
    for alias in ("x" * 255, "é", ""):
        world.host.execute(rtnl.set_link("veth1", alias=alias))
        assert world.found("veth1").alias == alias
        assert ip("link show veth1")[0].get("ifalias", "") == alias
    with pytest.raises(NetlinkError) as caught:
        world.host.execute(rtnl.set_link("veth1", alias="x" * 256))
    assert caught.value.errno == errno.ERANGE


@private
def test_a_pair_that_cannot_be_made_leaves_neither_end() -> None:
    world = World()
    refused = {
        world.new_veth("veth2"): errno.EEXIST,  # eth0 exists in the pod
        world.new_veth("veth1", peer_name="eth1"): errno.EEXIST,
        world.new_veth("veth2", peer_name="eth1", master=999): errno.EINVAL,
        world.new_veth("veth2", peer_name="eth1", mtu=67): errno.EINVAL,
        world.new_veth("veth2", peer_name="eth1", mac="01:00:00:00:00:00"): errno.EADDRNOTAVAIL,
        world.new_veth("x" * 16, peer_name="eth1"): errno.ERANGE,
    }
    for message, number in refused.items():
        with pytest.raises(NetlinkError) as caught:
            world.host.execute(message)
        assert caught.value.errno == number
    assert world.host.get_link("veth2") is None
    assert world.inside.get_link("eth1") is None


@private
def test_the_peer_cannot_be_born_up() -> None:
    """Why plans set the pod's end up in the pod."""
    world = World()
    message = world.new_veth("veth2", peer_name="eth1")
    down = bytes(16) + nlmsg.attr(3, "eth1")
    assert message.body.count(down) == 1
    up = down.replace(bytes(16), bytes(8) + b"\1\0\0\0\1\0\0\0", 1)
    message.body = message.body.replace(down, up)
    with pytest.raises(NetlinkError) as caught:
        world.host.execute(message)
    assert caught.value.errno == errno.ENOTCONN


@private
def test_changing_links() -> None:
    world = World()
    index = world.veth.index
    change = rtnl.set_link(
        index, mtu=1400, mac="0e:00:00:00:00:09", group=7, promisc=True, up=False
    )
    world.host.execute(change)
    (seen,) = ip("link show veth1")
    assert (seen["mtu"], seen["address"], seen["group"]) == (1400, "0e:00:00:00:00:09", "7")
    assert "PROMISC" in seen["flags"]
    assert "UP" not in seen["flags"]
    world.host.execute(rtnl.set_link("veth1", master=0), rtnl.set_link(index, name="veth9"))
    (seen,) = ip("link show veth9")
    assert "master" not in seen
    world.host.execute(rtnl.del_link(index))
    assert world.host.get_link(index) is None
    assert world.inside.get_link("eth0") is None


@private
def test_addresses_routes_and_up_in_one_batch() -> None:
    world = World()
    index, gw = world.eth0.index, parse_address("10.1.2.1")
    world.inside.execute(
        rtnl.new_address(index, parse_prefix("10.1.2.3/24")),
        rtnl.new_address(index, parse_prefix("fd00::3/64"), nodad=True),
        rtnl.set_link(index, up=True),
        rtnl.new_route(index, parse_prefix("0.0.0.0/0"), gw=gw),
        rtnl.new_route(index, parse_prefix("::/0"), gw=parse_address("fd00::1")),
        rtnl.new_route(
            index, parse_prefix("10.9.0.0/16"), gw=gw, mtu=1400, advmss=1300, priority=7, table=1000
        ),
        rtnl.new_route(index, parse_prefix("10.8.0.0/16")),
        rtnl.new_route(
            index, parse_prefix("10.7.0.0/16"), gw=parse_address("192.0.2.1"), onlink=True
        ),
    )
    (link,) = world.ip_inside("address show eth0")
    seen = {entry["local"]: entry for entry in link["addr_info"]}
    assert (seen["10.1.2.3"]["prefixlen"], seen["10.1.2.3"]["broadcast"]) == (24, "10.1.2.255")
    assert seen["fd00::3"]["prefixlen"] == 64
    assert seen["fd00::3"]["nodad"] is True
    assert "tentative" not in seen["fd00::3"]
    routes = {route["dst"]: route for route in world.ip_inside("-4 route show table all")}
    assert (routes["default"]["gateway"], routes["default"]["protocol"]) == ("10.1.2.1", "boot")
    assert (routes["10.8.0.0/16"]["scope"], routes["default"]["scope"]) == ("link", "global")
    assert routes["10.7.0.0/16"]["flags"] == ["onlink"]
    other = routes["10.9.0.0/16"]
    assert (other["table"], other["metric"]) == ("1000", 7)
    assert other["metrics"] == [{"mtu": 1400, "advmss": 1300}]
    (default,) = world.ip_inside("-6 route show default")
    assert default["gateway"] == "fd00::1"


@private
def test_addresses_and_routes_as_we_read_them() -> None:
    world = World()
    index = world.eth0.index
    prefixes = {"10.1.2.3/24", "10.1.3.3/31", "fd00::3/64"}
    world.inside.execute(
        *(rtnl.new_address(index, parse_prefix(prefix), nodad=True) for prefix in prefixes),
        rtnl.set_link(index, up=True),
        rtnl.new_route(index, parse_prefix("10.9.0.0/16"), table=1000),
    )
    read = world.inside.addresses(index)
    assert prefixes <= {str(address.prefix) for address in read}
    assert {str(a.prefix) for a in world.inside.addresses(index, 4)} == {
        "10.1.2.3/24",
        "10.1.3.3/31",
    }
    assert world.inside.addresses(999) == []
    assert [str(r.dst) for r in world.inside.routes(4, table=1000)] == ["10.9.0.0/16"]
    for family in (4, 6):
        assert world.inside.routes(family, index=999) == []
        assert world.inside.routes(family, table=4711) == []
    assert {r.table for r in world.inside.routes(4, index=index)} == {254, 255, 1000}
    assert "fd00::/64" in {str(r.dst) for r in world.inside.routes(6, index, 254)}
    world.inside.execute(
        rtnl.del_address(index, parse_prefix("10.1.2.3/24")),
        rtnl.del_route(index, parse_prefix("10.9.0.0/16"), table=1000),
        rtnl.new_address(index, parse_prefix("fd00::3/64"), nodad=True, replace=True),
    )
    assert world.inside.routes(4, table=1000) == []
    assert "10.1.2.3/24" not in {str(address.prefix) for address in world.inside.addresses(index)}


@private
def test_neighbours() -> None:
    world = World()
    world.settle()
    sh("sysctl -qw net.ipv4.neigh.cni0.base_reachable_time_ms=3600000")
    index, address = world.bridge.index, parse_address("10.1.2.3")
    world.host.execute(rtnl.new_address(index, parse_prefix("10.1.2.1/24")))
    for state, name in (
        (rtnl.NUD_STALE, "STALE"),
        (rtnl.NUD_REACHABLE, "REACHABLE"),
        (rtnl.NUD_PERMANENT, "PERMANENT"),
    ):
        world.host.execute(rtnl.replace_neighbour(index, address, POD_MAC, state=state))
        (seen,) = ip("neighbour show 10.1.2.3 nud all")
        assert (seen["lladdr"], seen["dev"], seen["state"]) == (POD_MAC, "cni0", [name])
    entries = {str(entry.address): entry for entry in world.host.neighbours(index)}
    assert entries["10.1.2.3"].mac == POD_MAC
    world.host.execute(rtnl.del_neighbour(index, address))
    assert "10.1.2.3" not in {str(entry.address) for entry in world.host.neighbours(index, 4)}
    assert world.host.neighbours(999) == []
    with pytest.raises(NetlinkError) as caught:
        world.host.execute(rtnl.del_neighbour(index, address))
    assert caught.value.errno == errno.ENOENT


@private
def test_lists_of_links() -> None:
    world = World()
    assert {link.name for link in world.host.links()} == {"lo", "cni0", "veth1"}
    assert [link.name for link in world.host.links(master=world.bridge.index)] == ["veth1"]
    assert [link.name for link in world.host.links(kind="bridge")] == ["cni0"]
    assert world.host.links(kind="vxlan") == world.host.links(master=999) == []
    assert world.host.get_link("nope") is None
    assert world.host.get_link(999) is None


def _outcome(handle: Handle, request: Message) -> int:
    try:
        handle.execute(request)
    except NetlinkError as refusal:
        return refusal.errno or 0
    return 0


@private
def test_the_kernel_lacks_vlans_or_has_them() -> None:
    """Either the VLANs are there, or each request is refused as unsupported: nothing in between."""
    world = World()
    requests = (
        rtnl.new_bridge("cni1", mac=MAC, vlan_filtering=True),
        rtnl.add_port_vlan(world.veth.index, 10, pvid=True, untagged=True),
        rtnl.add_port_vlan(world.veth.index, 20, vid_end=30),
        rtnl.new_vlan("cni0.10", link=world.bridge.index, vid=10),
    )
    answers = [_outcome(world.host, request) for request in requests]
    assert set(answers) <= {0, errno.EOPNOTSUPP}
    if answers[1] == 0:
        vlans = {
            (v.vid, v.vid_end, v.pvid)
            for v in world.host.port_vlans()
            if v.index == world.veth.index
        }
        assert {(10, 10, True), (20, 30, False)} <= vlans
    else:
        assert answers[0] == answers[2] == errno.EOPNOTSUPP
        assert world.host.port_vlans() == []
        assert world.host.get_link("cni1") is None
