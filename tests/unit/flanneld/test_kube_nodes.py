"""What a Node says of a lease, and what a node writes: Go's bytes, both ways."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

import pytest

from flanneld import config
from flanneld.flags import UsageError
from flanneld.lease import Attributes, Lease
from flanneld.subnet.keys import BadLease
from flanneld.subnet.kube import bodies, netconf, nodes
from flanneld.subnet.kube.mirror import Mirror

if TYPE_CHECKING:
    from flanneld.subnet.kube.nodes import Seen

PREFIX = "flannel.alpha.coreos.com/"
P4, P6 = IPv4Address("192.168.64.3"), IPv6Address("fd64::3")
VXLAN = {"VNI": 1, "VtepMAC": "c6:d2:32:6f:8f:44"}
SPELLED = '{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}'
V4 = config.parse('{"Network": "10.244.0.0/16"}')
BOTH = config.parse(
    '{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:f1::/48"}'
)


def node(name: str = "node1", *cidrs: str, uid: str = "1", **annotations: str) -> dict[str, Any]:
    told = {PREFIX + key.replace("_", "-"): value for key, value in annotations.items()}
    spec = {"podCIDR": cidrs[0], "podCIDRs": [*cidrs]} if cidrs else {}
    metadata = {"name": name, "uid": uid}
    return {"metadata": metadata | ({"annotations": told} if told else {}), "spec": spec}


def seen(name: str = "node1", *cidrs: str, uid: str = "1", **annotations: str) -> Seen:
    return nodes.seen(node(name, *cidrs, uid=uid, **annotations), PREFIX)


WRITTEN = [
    (
        Attributes(P4, None, "vxlan", VXLAN),
        {"backend_type": "vxlan", "backend_data": SPELLED, "public_ip": "192.168.64.3"},
    ),
    (
        Attributes(P4, None, "host-gw"),
        {"backend_type": "host-gw", "backend_data": "null", "public_ip": "192.168.64.3"},
    ),
    # udp and alloc publish no type
    (Attributes(P4), {"backend_type": "", "backend_data": "null", "public_ip": "192.168.64.3"}),
    (
        Attributes(P4, P6, "vxlan", VXLAN, VXLAN),
        {
            "backend_type": "vxlan",
            "backend_data": SPELLED,
            "public_ip": "192.168.64.3",
            "backend_v6_data": SPELLED,
            "public_ipv6": "fd64::3",
        },
    ),
    (
        Attributes(P4, P6, "host-gw"),
        {
            "backend_type": "host-gw",
            "backend_data": "null",
            "public_ip": "192.168.64.3",
            "backend_v6_data": "null",
            "public_ipv6": "fd64::3",
        },
    ),
    # Go writes nothing of IPv4 for a vxlan that has only IPv6
    (
        Attributes(None, P6, "vxlan", None, VXLAN),
        {"backend_type": "vxlan", "backend_v6_data": SPELLED, "public_ipv6": "fd64::3"},
    ),
]


@pytest.mark.parametrize(("attributes", "annotations"), WRITTEN)
def test_annotations_are_gos(attributes: Attributes, annotations: dict[str, str]) -> None:
    expected = {"kube_subnet_manager": "true", **annotations}
    nothing = seen()
    changes = nodes.changes(nodes.wanted(attributes, nothing), nothing)
    assert {k.replace("-", "_"): v for k, v in changes.items()} == expected
    same = seen(**expected)
    assert nodes.changes(nodes.wanted(attributes, same), same) == {}, "after Go nothing is written"


def test_what_is_not_true_any_more_is_taken_away() -> None:
    before = seen(kube_subnet_manager="true", backend_v6_data=SPELLED, public_ipv6="fd64::3")
    changes = nodes.changes(nodes.wanted(Attributes(P4, None, "vxlan", VXLAN), before), before)
    assert changes["backend-v6-data"] is None
    assert changes["public-ipv6"] is None
    body = bodies.annotate("7", PREFIX, changes)
    assert body["metadata"]["uid"] == "7"
    assert body["metadata"]["annotations"][f"{PREFIX}public-ipv6"] is None


@pytest.mark.parametrize(
    ("overwrite", "told"),
    [("203.0.113.7", "203.0.113.7"), ("", "192.168.64.3"), ("x", "192.168.64.3")],
)
def test_an_address_that_somebody_wants_is_told(overwrite: str, told: str) -> None:
    found = seen(public_ip_overwrite=overwrite)
    assert nodes.wanted(Attributes(P4, None, "host-gw"), found)["public-ip"] == told


LEASES: list[tuple[Seen, config.NetConf, Lease | None]] = [
    (seen("a", "10.244.1.0/24"), V4, None),  # no flannel there
    (
        seen(
            "a",
            "10.244.1.0/24",
            kube_subnet_manager="true",
            backend_type="vxlan",
            backend_data=SPELLED,
            public_ip="192.168.64.3",
        ),
        V4,
        Lease(IPv4Network("10.244.1.0/24"), None, Attributes(P4, None, "vxlan", VXLAN)),
    ),
    (  # podCIDRs in any order; a dummy node of a load balancer has no VNI
        seen(
            "a",
            "fd00:f1:0:1::/64",
            "10.244.1.0/24",
            kube_subnet_manager="true",
            backend_type="vxlan",
            backend_data='{"VtepMAC":"c6:d2:32:6f:8f:44"}',
            public_ip="192.168.64.3",
            backend_v6_data=SPELLED,
            public_ipv6="fd64::3",
        ),
        BOTH,
        Lease(
            IPv4Network("10.244.1.0/24"),
            IPv6Network("fd00:f1:0:1::/64"),
            Attributes(P4, P6, "vxlan", {"VtepMAC": "c6:d2:32:6f:8f:44"}, VXLAN),
        ),
    ),
]


@pytest.mark.parametrize(("found", "conf", "lease"), LEASES)
def test_a_node_is_a_lease(found: Seen, conf: config.NetConf, lease: Lease | None) -> None:
    assert nodes.lease(found, conf) == lease


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"kube_subnet_manager": "true", "public_ip": "nonsense"}, "public-ip"),
        ({"kube_subnet_manager": "true", "backend_data": "{"}, "not JSON"),
        ({"kube_subnet_manager": "true", "backend_data": "[1]"}, "not a JSON object"),
        ({"kube_subnet_manager": "false", "public_ip": "192.0.2.1"}, "not true"),
    ],
)
def test_a_wrong_annotation_is_named(annotations: dict[str, str], said: str) -> None:
    with pytest.raises(BadLease, match=said):
        nodes.lease(seen("a", "10.244.1.0/24", **annotations), V4)


@pytest.mark.parametrize(
    ("cidrs", "conf", "said"),
    [
        ((), V4, "pod cidr not assigned.*--allocate-node-cidrs.*--cluster-cidr=10.244.0.0/16"),
        (("10.244.1.0/24",), BOTH, "no podCIDR of IPv6"),
        (("10.245.1.0/24",), V4, "10.245.1.0/24 .*does not lie in the network 10.244.0.0/16"),
        (("nonsense",), V4, 'podCIDR "nonsense" is wrong'),
    ],
)
def test_what_a_node_waits_for(cidrs: tuple[str, ...], conf: config.NetConf, said: str) -> None:
    with pytest.raises(BadLease, match=said):
        nodes.own(seen("a", *cidrs), conf, Attributes(P4))


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/"),
        ("example.com/net", "example.com/net-"),
        ("example.com/net-", "example.com/net-"),
    ],
)
def test_prefixes_are_completed_as_go_does(given: str, whole: str) -> None:
    assert nodes.prefix(given) == whole


@pytest.mark.parametrize("given", ["", "Example.com", "nodots", "example.com/a/b", "example.com/A"])
def test_other_prefixes_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match="kube-annotation-prefix"):
        nodes.prefix(given)


def test_the_condition_is_gos() -> None:
    (told,) = bodies.condition("7", 0.0)["status"]["conditions"]
    assert told == {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
        "lastHeartbeatTime": "1970-01-01T00:00:00Z",
    }


def test_lengths_and_ranges_of_the_configuration_do_not_count() -> None:
    told = {"Network": "10.244.0.0/16", "subnetlen": 99, "SubnetMin": "1.2.3.4", "IPv6SubnetLen": 3}
    assert netconf.parse(json.dumps(told)).network == IPv4Network("10.244.0.0/16")
    with pytest.raises(config.ConfigError, match="not JSON"):
        netconf.parse("{")


HERE = {
    "kube_subnet_manager": "true",
    "backend_type": "host-gw",
    "backend_data": "null",
    "public_ip": "192.168.64.2",
}


def test_a_lease_goes_with_its_node_and_not_with_its_annotations() -> None:
    mirror = Mirror(V4, "node1")
    assert mirror.put(seen("node2", "10.244.2.0/24", **HERE))
    assert [*mirror.leases] == ["10.244.2.0-24"]
    assert mirror.put(seen("node2", "10.244.2.0/24"))
    assert [*mirror.leases] == ["10.244.2.0-24"]
    assert "has lost its annotations" in mirror.faults["node2"]
    assert mirror.remove("node2")
    assert (dict(mirror.leases), dict(mirror.faults)) == ({}, {}), "without a word of its own"


def test_a_node_made_anew_is_another() -> None:
    mirror = Mirror(V4, "node1")
    mirror.put(seen("node2", "10.244.2.0/24", **HERE))
    mirror.put(seen("node2", "10.244.3.0/24", uid="2"))
    assert not mirror.leases
    mirror.put(seen("node2", "10.244.3.0/24", uid="2", **HERE))
    assert [*mirror.leases] == ["10.244.3.0-24"]


def test_one_podcidr_is_one_lease() -> None:
    mirror = Mirror(V4, "node1")
    mirror.put(seen("node2", "10.244.2.0/24", **HERE))
    mirror.put(seen("node3", "10.244.2.0/24", **(HERE | {"public_ip": "192.168.64.3"})))
    assert mirror.leases["10.244.2.0-24"].attributes.public_ip == IPv4Address("192.168.64.2")
    assert "same podCIDR as node2" in mirror.faults["node3"]
    mirror.remove("node2")
    assert mirror.leases["10.244.2.0-24"].attributes.public_ip == IPv4Address("192.168.64.3")


def test_what_is_wrong_with_this_nodes_node_is_said() -> None:
    mirror = Mirror(V4, "node1")
    mirror.put(seen("node1", "10.244.1.0/24"))
    lease = nodes.own(seen("node1", "10.244.1.0/24"), V4, Attributes(P4))
    mirror.hold(lease)
    assert not mirror.faults
    assert mirror.remove("node1")
    assert "there is no Node called node1" in mirror.faults["node1"]
    assert mirror.leases[lease.key] == lease
    assert mirror.put(seen("node1", "10.244.1.0/24", uid="2"))
    assert not mirror.faults
