"""The same wish in pyroute2's words and in ours: the two messages, attribute by attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pyroute2 import IPBatch
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.cidr import parse_address, parse_prefix
from netlink import nlmsg, rtnl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netlink.nlmsg import Message

MAC, OTHER = "0e:00:00:00:00:01", "0e:00:00:00:00:02"
NET, NET6 = parse_prefix("10.1.2.3/24"), parse_prefix("fd00::3/64")
GW, GW6 = parse_address("10.1.2.1"), parse_address("fd00::1")
PEER = {"ifname": "eth0", "address": OTHER, "mtu": 1450, "net_ns_fd": 5}


WISHES = [
    pytest.param(
        rtnl.new_bridge("cni0", mac=MAC, mtu=1450),
        lambda b: b.link("add", ifname="cni0", kind="bridge", address=MAC, mtu=1450, state="up"),
        ifinfmsg,
        id="bridge",
    ),
    pytest.param(
        rtnl.new_bridge("cni0", mac=MAC, up=False, vlan_filtering=True),
        lambda b: b.link("add", ifname="cni0", kind="bridge", address=MAC, br_vlan_filtering=1),
        ifinfmsg,
        id="bridge that filters VLANs",
    ),
    pytest.param(
        rtnl.new_veth(
            "veth1",
            mac=MAC,
            mtu=1450,
            master=7,
            peer_name="eth0",
            peer_mac=OTHER,
            peer_netns_fd=5,
        ),
        lambda b: b.link(
            "add",
            ifname="veth1",
            kind="veth",
            address=MAC,
            mtu=1450,
            master=7,
            state="up",
            peer=PEER,
        ),
        ifinfmsg,
        id="veth",
    ),
    pytest.param(
        rtnl.new_vlan("cni0.5", link=3, vid=5, up=False),
        lambda b: b.link("add", ifname="cni0.5", kind="vlan", link=3, vlan_id=5),
        ifinfmsg,
        id="vlan",
    ),
    pytest.param(
        rtnl.del_group(7), lambda b: b.link("del", group=7), ifinfmsg, id="delete a group of links"
    ),
    pytest.param(rtnl.del_link(3), lambda b: b.link("del", index=3), ifinfmsg, id="delete a link"),
    pytest.param(
        rtnl.new_address(3, NET),
        lambda b: b.addr("add", index=3, address="10.1.2.3", prefixlen=24, broadcast="10.1.2.255"),
        ifaddrmsg,
        id="IPv4 address",
    ),
    pytest.param(
        rtnl.new_address(3, NET6),
        lambda b: b.addr("add", index=3, address="fd00::3", local="fd00::3", prefixlen=64),
        ifaddrmsg,
        id="IPv6 address",
    ),
    pytest.param(
        rtnl.new_route(3, parse_prefix("0.0.0.0/0"), gw=GW, append=False),
        lambda b: b.route("add", dst="default", gateway=str(GW), oif=3, proto=3),
        rtmsg,
        id="default route",
    ),
    pytest.param(
        rtnl.new_route(3, NET, gw=GW, mtu=1400, advmss=1300, priority=7, table=1000),
        lambda b: b.route(
            "append",
            dst="10.1.2.0/24",
            gateway=str(GW),
            oif=3,
            proto=3,
            priority=7,
            table=1000,
            metrics={"mtu": 1400, "advmss": 1300},
        ),
        rtmsg,
        id="IPv4 route with everything",
    ),
    pytest.param(
        rtnl.new_route(3, NET6, gw=GW6, append=False),
        lambda b: b.route("add", dst="fd00::/64", gateway=str(GW6), oif=3, proto=3),
        rtmsg,
        id="IPv6 route",
    ),
    pytest.param(
        rtnl.replace_neighbour(3, GW, MAC, state=rtnl.NUD_PERMANENT),
        lambda b: b.neigh("replace", dst=str(GW), lladdr=MAC, ifindex=3, state="permanent"),
        ndmsg,
        id="neighbour",
    ),
    pytest.param(
        rtnl.del_neighbour(3, GW6),
        lambda b: b.neigh("del", dst=str(GW6), ifindex=3),
        ndmsg,
        id="delete a neighbour",
    ),
    pytest.param(
        rtnl.add_port_vlan(3, 10, pvid=True, untagged=True),
        lambda b: b.vlan_filter(
            "add", index=3, vlan_info={"vid": 10, "flags": 6}, vlan_flags="master"
        ),
        ifinfmsg,
        id="port VLAN",
    ),
    pytest.param(
        rtnl.add_port_vlan(3, 10, vid_end=20, self_=True),
        lambda b: b.vlan_filter("add", index=3, vlan_info={"vid": "10-20"}, vlan_flags="self"),
        ifinfmsg,
        id="range of VLANs on the bridge itself",
    ),
    pytest.param(
        rtnl.del_port_vlan(3, 1),
        lambda b: b.vlan_filter("del", index=3, vlan_info={"vid": 1}, vlan_flags="master"),
        ifinfmsg,
        id="delete a port VLAN",
    ),
]


@pytest.fixture
def batch() -> Iterator[IPBatch]:
    with IPBatch() as opened:
        yield opened


def _tree(peer: Any) -> Any:
    """Turn a decoded message into plain values: attributes as sorted (name, value) pairs."""
    if isinstance(peer, dict) and "attrs" in peer:
        fields = {
            key: value
            for key, value in peer.items()
            if key not in {"attrs", "header", "__align", "state", "event"}
        }
        attrs = sorted(((name, _tree(value)) for name, value in peer["attrs"]), key=lambda a: a[0])
        if "RTA_TABLE" in dict(attrs):  # which then counts, whatever the header says
            del fields["table"]
        return fields, attrs
    return dict(peer) if isinstance(peer, dict) else peer


@pytest.mark.parametrize(("ours", "wish", "as_class"), WISHES)
def test_pyroute2_says_the_same(
    batch: IPBatch, ours: Message, wish: Callable[[IPBatch], object], as_class: type
) -> None:
    wish(batch)
    theirs = as_class(bytes(batch.batch))
    theirs.decode()
    read = as_class(nlmsg.pack(ours, 1))
    read.decode()
    assert _tree(read) == _tree(theirs)
    assert theirs["header"]["type"] == ours.type
    assert theirs["header"]["flags"] == ours.flags | nlmsg.NLM_F_ACK
