"""CHECK on fake links: every difference is a sentence, and all of them come at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni import errors
from cni.attachment import Attachment
from cni.errors import CNIError
from cni_flannel.bridge import conf as bridge_conf
from cni_flannel.bridge import verify
from cni_flannel.bridge.ends import Ends
from cni_flannel.kernel import macspoof, masq
from netlink import sysctl
from tests.unit.fakes import FakeEnds, FakeHandle, FakePlugin, args, link, pair, port, route
from tests.unit.test_netconf import named

if TYPE_CHECKING:
    from collections.abc import Callable

    from netlink import rtnl

ME = Attachment("net", "c1", "eth0")
NAME = ME.host_veth_name()
POD = "/run/netns/pod"


class Pod:
    """An attachment as it should be, to be spoilt by a test."""

    def __init__(self) -> None:
        self.bridge = link("cni0", 7, "bridge", mtu=1450)
        self.host, self.pod = pair(NAME, 9, alias=ME.alias(), master=7, port=port())
        self.ends = FakeEnds(FakeHandle(self.bridge, self.host), FakeHandle(self.pod))
        self.ends.host.on[7] = ["10.1.0.1/24"]
        self.ends.pod.on[2] = ["10.1.0.2/24", "fd00::2/64"]  # type: ignore[attr-defined]
        self.routing = self.ends.pod.routing  # type: ignore[attr-defined]
        self.routing += [route("10.0.0.0/8", "10.1.0.1"), route("::/0", "fd00::1")]
        self.ipam = FakePlugin()
        self.conf: dict[str, Any] = {"name": "net", "cniVersion": "1.1.0", "isGateway": True}
        self.result: dict[str, Any] = {
            "interfaces": [
                {"name": "cni0", "mac": self.bridge.mac, "mtu": 1450},
                {"name": NAME, "mac": self.host.mac, "mtu": 1500},
                {"name": "eth0", "mac": self.pod.mac, "mtu": 1500, "sandbox": POD},
            ],
            "ips": [
                {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2},
                {"address": "fd00::2/64", "interface": 2},
            ],
            "routes": [{"dst": "10.0.0.0/8"}, {"dst": "::/0", "gw": "fd00::1"}],
        }

    def check(self) -> None:
        given = args({**self.conf, "prevResult": self.result})
        verify.check(given, bridge_conf.parse(given), self.ipam)


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> Pod:
    made = Pod()
    monkeypatch.setattr(Ends, "both", lambda _: made.ends)
    monkeypatch.setattr(sysctl, "read", lambda _: "1")
    return made


def differences(pod: Pod) -> str:
    with pytest.raises(CNIError) as caught:
        pod.check()
    assert caught.value.code == errors.ATTACHMENT_DIFFERS
    assert caught.value.msg.startswith("check eth0 of container c1: ")
    return caught.value.msg.removeprefix("check eth0 of container c1: ")


def test_an_attachment_as_it_should_be(pod: Pod) -> None:
    pod.check()
    assert pod.ipam.verbs == ["CHECK"]


def forget(links: list[rtnl.Link], one: rtnl.Link) -> None:
    links.remove(one)


def put(one: rtnl.Link, **fields: Any) -> bool:
    for field, value in fields.items():
        setattr(one, field, value)
    return True


SPOILT: list[tuple[str, Any, list[str]]] = [
    ("no bridge", lambda p: forget(p.ends.host.known, p.bridge), ["bridge cni0 does not exist"]),
    (
        "no bridge any more",
        lambda p: setattr(p.bridge, "kind", "dummy"),
        ['cni0 is not a bridge but "dummy"'],
    ),
    (
        "the bridge's MAC",
        lambda p: setattr(p.bridge, "mac", "02:00:00:00:00:ff"),
        ["Bridge interface cni0 Mac doesn't match: it is 02:00:00:00:00:ff"],
    ),
    ("bridge down", lambda p: setattr(p.bridge, "flags", 0), ["Bridge interface cni0 is down"]),
    (
        "the bridge's MTU",
        lambda p: p.conf.update(mtu=1400),
        ["bridge cni0 has MTU 1450, not 1400"],
    ),
    (
        "not promiscuous",
        lambda p: p.conf.update(promiscMode=True),
        ["bridge cni0 has promiscuous mode off"],
    ),
    (
        "gateway address",
        lambda p: p.ends.host.on.clear(),
        ["bridge cni0 has not got the gateway address 10.1.0.1"],
    ),
    ("no link", lambda p: p.ends.pod.known.clear(), [f"Interface name eth0 not found in {POD}"]),
    ("no veth", lambda p: setattr(p.pod, "kind", "dummy"), ['eth0 is not a veth but "dummy"']),
    (
        "a link without a peer",
        lambda p: put(p.pod, kind="dummy", link=0),
        ['eth0 is not a veth but "dummy"', "the host's end of eth0 is missing"],
    ),
    ("pod's end down", lambda p: setattr(p.pod, "flags", 0), ["Interface eth0 is down"]),
    (
        "MAC and MTU of the pod's end",
        lambda p: put(p.pod, mac="02:00:00:00:00:ee", mtu=1600),
        [
            "Interface eth0 Mac doesn't match: it is 02:00:00:00:00:ee",
            "Interface eth0 MTU doesn't match: it is 1600, prevResult says 1500",
        ],
    ),
    (
        "not a port",
        lambda p: setattr(p.host, "master", 0),
        [f"host veth {NAME} is not a port of bridge cni0"],
    ),
    (
        "a pair with another namespace",
        lambda p: setattr(p.host, "link_netnsid", 77),
        ["the host's end of eth0 is missing"],
    ),
    (
        "another host veth than the result's",
        lambda p: p.result["interfaces"].pop(1),
        [f"the host's end of eth0 is {NAME}, which prevResult does not name"],
    ),
    (
        "another attachment's",
        lambda p: setattr(p.host, "alias", "flannel:net:c2:eth0"),
        [f"host veth {NAME} belongs to flannel:net:c2:eth0"],
    ),
    (
        "half an ADD",
        lambda p: setattr(p.host, "alias", ME.alias(adding=True)),
        [f"host veth {NAME} is of an ADD that did not come to its end"],
    ),
    (
        "flags of the port",
        lambda p: setattr(p.host, "port", port(hairpin=True, isolated=True)),
        [f"host veth {NAME} has hairpin on", f"host veth {NAME} has port isolation on"],
    ),
    (
        "an address",
        lambda p: p.ends.pod.on[2].pop(),
        ["Failed to match addr fd00::2/64 on interface eth0"],
    ),
    (
        "routes",
        lambda p: p.routing.clear(),
        [
            f"route to 10.0.0.0/8 is missing in {POD}",
            f"route to ::/0 via fd00::1 is missing in {POD}",
        ],
    ),
    (
        "another gateway",
        lambda p: setattr(p.routing[1], "gateways", [None]),
        ["route to ::/0 via fd00::1 is missing"],
    ),
    (
        "another namespace",
        lambda p: p.result["interfaces"][2].update(sandbox="/proc/5/ns/net"),
        [f"Sandbox in prevResult /proc/5/ns/net doesn't match configured netns: {POD}"],
    ),
]


@pytest.mark.parametrize(("spoil", "sentences"), named(SPOILT))
def test_each_difference_is_a_sentence(
    pod: Pod, spoil: Callable[[Pod], Any], sentences: list[str]
) -> None:
    spoil(pod)
    found = differences(pod)
    for sentence in sentences:
        assert sentence in found


def test_forwarding_is_looked_at(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysctl, "read", lambda _: "0")
    assert differences(pod) == "forwarding of IPv4 is off on the host"


TOLERATED: list[tuple[str, Callable[[Pod], Any]]] = [
    ("Go's veth has no alias", lambda p: setattr(p.host, "alias", "")),
    ("an old result without MTUs", lambda p: [i.pop("mtu") for i in p.result["interfaces"]]),
    ("a MAC in capitals", lambda p: p.result["interfaces"][2].update(mac=p.pod.mac.upper())),
    ("a route in another table", lambda p: setattr(p.routing[0], "table", 100)),
    (
        "an address that a later plugin gave to its own interface",
        lambda p: (
            p.result["interfaces"].append({"name": "tun0", "sandbox": POD}),
            p.result["ips"].append({"address": "10.9.0.9/24", "interface": 3}),
        ),
    ),
    (
        "a pod's end left down on purpose",
        lambda p: (p.conf.update(disableContainerInterface=True), put(p.pod, flags=0)),
    ),
]


@pytest.mark.parametrize("change", named(TOLERATED))
def test_what_is_no_difference(pod: Pod, change: Callable[[Pod], Any]) -> None:
    change(pod)
    pod.check()


def test_all_differences_come_at_once_with_ipams(pod: Pod) -> None:
    pod.routing.clear()
    pod.ends.host.on.clear()
    pod.ipam = FakePlugin(CHECK=CNIError(7, "the lease is missing", "recreate the pod"))
    with pytest.raises(CNIError) as caught:
        pod.check()
    assert caught.value.code == errors.ATTACHMENT_DIFFERS
    for part in ("gateway address", "route to 10.0.0.0/8", "the lease is missing"):
        assert part in caught.value.msg
    assert "recreate the pod" in caught.value.details


def test_an_error_of_ipam_alone_keeps_its_code(pod: Pod) -> None:
    failure = CNIError(11, "locked", "wait")
    pod.ipam = FakePlugin(CHECK=failure)
    with pytest.raises(CNIError) as caught:
        pod.check()
    assert caught.value is failure


def test_rules_that_are_missing(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masq, "verify", lambda *a: [f"no masquerading of {a[4][0]}"])
    monkeypatch.setattr(macspoof, "verify", lambda *a: [f"no MAC check of {a[0]} {a[1]}"])
    pod.conf.update(ipMasq=True, macspoofchk=True)
    assert differences(pod) == (
        f"no masquerading of 10.1.0.2/24; no MAC check of {NAME} {pod.pod.mac}"
    )


def test_check_needs_the_result_of_the_add(pod: Pod) -> None:
    given = args(pod.conf)
    with pytest.raises(CNIError, match="Required prevResult missing") as caught:
        verify.check(given, bridge_conf.parse(given), None)
    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
