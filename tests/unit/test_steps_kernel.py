"""Single steps on a fake kernel: what they send, and what they take back."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cni import errors
from cni.attachment import BRIDGE_ALIAS, Attachment
from cni.cidr import parse_address, parse_prefix
from cni.errors import CNIError
from cni_flannel.bridge import steps
from cni_flannel.bridge.steps import VLAN_FILTERING
from cni_flannel.bridge.steps_node import AddGatewayVeth, MoveAddress, RepairBridge, Switch
from cni_flannel.bridge.steps_pod import Finish, PodSysctls
from cni_flannel.bridge.steps_port import PortVlans, carries
from cni_flannel.bridge.steps_veth import AddVeth
from netlink import rtnl, sysctl
from netlink.link import BR_STATE_DISABLED, BR_STATE_FORWARDING, RTM_DELLINK, RTM_NEWLINK
from netlink.nlmsg import NetlinkError
from tests.unit.fakes import POD_FD, FakeEnds, FakeHandle, link
from tests.unit.test_netconf import named

if TYPE_CHECKING:
    from netlink.nlmsg import Message


BR_STATE_LEARNING = 2
IDENTITY = Attachment("net", "c1", "eth0")


def add_veth() -> AddVeth:
    return AddVeth(
        IDENTITY,
        "vethx",
        bridge=link("cni0", 7, "bridge"),
        host_mac="02:00:00:00:00:0a",
        pod_mac="02:00:00:00:00:0b",
        mtu=1450,
        flags=(False, False),
    )


def kinds(host: FakeHandle) -> list[int]:
    return [message.type for message in host.done]


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What would have been written to /proc/sys; a path with "missing" in it is missing."""
    found: list[tuple[str, str]] = []

    def write(path: str, value: str) -> bool:
        found.append((path, value))
        return "missing" not in path

    monkeypatch.setattr(sysctl, "write", write)
    return found


def test_the_pair_and_the_proof_that_it_is_ours_are_one_send(
    written: list[tuple[str, str]],
) -> None:
    ends = FakeEnds(FakeHandle(), FakeHandle())
    add_veth().apply(ends)
    pair, alias = ends.host.done
    assert pair == rtnl.new_veth(
        "vethx",
        mac="02:00:00:00:00:0a",
        mtu=1450,
        up=False,
        peer_name="eth0",
        peer_mac="02:00:00:00:00:0b",
        peer_netns_fd=POD_FD,
    )
    text = "flannel:net:c1:eth0 (adding)"
    assert alias == rtnl.set_link("vethx", alias=text, master=7, up=True)
    assert written == [("net/ipv6/conf/vethx/accept_ra", "0")]


def test_the_pair_is_taken_back_however_far_it_got() -> None:
    for alias in ("", IDENTITY.alias(adding=True), IDENTITY.alias(rules=True)):
        ends = FakeEnds(FakeHandle(), FakeHandle())
        step = add_veth()
        step.apply(ends)
        ends.host.known.append(made(alias))
        step.undo(ends)
        assert ends.host.done[-1] == rtnl.del_link(9)
        assert not step.is_lost


def made(alias: str = "flannel:net:c1:eth0 (adding)", mac: str = "02:00:00:00:00:0a") -> Any:
    """The host veth of `add_veth`, or one of another call."""
    return link("vethx", 9, alias=alias, mac=mac)


def test_undo_without_apply_and_undo_of_what_is_gone_do_nothing() -> None:
    ends = FakeEnds(FakeHandle(), FakeHandle())
    step = add_veth()
    step.undo(ends)
    step.apply(ends)
    step.undo(ends)
    assert step.is_lost
    assert RTM_DELLINK not in kinds(ends.host)


def test_undo_leaves_the_link_that_a_later_add_has_made() -> None:
    """The own one is gone: a DEL came, and then another ADD of the same attachment."""
    ends = FakeEnds(FakeHandle(), FakeHandle())
    step = add_veth()
    step.apply(ends)
    ends.host.known.append(made(mac="02:00:00:00:00:0c"))
    step.undo(ends)
    assert step.is_lost
    assert RTM_DELLINK not in kinds(ends.host)


@pytest.mark.parametrize("alias", ["", "flannel:net:c2:eth0", IDENTITY.alias()])
def test_a_link_that_is_there_already_is_neither_marked_nor_deleted(alias: str) -> None:
    ends = FakeEnds(FakeHandle(link("vethx", 9, alias=alias)), FakeHandle())
    with pytest.raises(CNIError, match="another ADD") as caught:
        steps.run([add_veth()], ends)
    assert caught.value.code == errors.TRY_AGAIN_LATER
    assert ends.host.done == []


def test_a_link_that_appears_in_the_last_moment_is_not_deleted() -> None:
    host = FakeHandle()

    def refuse(message: Message) -> int:
        if message.type != RTM_NEWLINK:
            return 0
        host.known.append(made())
        return errno.EEXIST

    host.refusal = refuse
    with pytest.raises(CNIError, match="another ADD"):
        steps.run([add_veth()], FakeEnds(host, FakeHandle()))
    assert RTM_DELLINK not in kinds(host)


def test_a_pair_of_which_only_the_flags_were_refused_is_deleted() -> None:
    host = FakeHandle()
    step = add_veth()
    step.flags = (False, True)
    port = rtnl.set_port("vethx", hairpin=False, isolated=True)

    def refuse(message: Message) -> int:
        if message != port:
            return 0
        host.known.append(made())
        return errno.EOPNOTSUPP

    host.refusal = refuse
    with pytest.raises(CNIError, match="isolated on: operation not supported"):
        steps.run([step], FakeEnds(host, FakeHandle()))
    assert host.done[-1] == rtnl.del_link(9)


# -------------------------------------------------------------------------------------- other steps


def test_a_kernel_without_vlan_filtering_is_named() -> None:
    host = FakeHandle(link("vethx", 9))
    host.refusal = lambda _: errno.EOPNOTSUPP
    with pytest.raises(CNIError) as caught:
        steps.run([PortVlans("vethx", 100, [], drop_default=False)], FakeEnds(host))
    assert caught.value.code == errors.KERNEL_REFUSED
    assert caught.value.details == VLAN_FILTERING
    assert "bridge vlan add dev vethx vid 100 pvid untagged" in caught.value.msg


def test_a_default_vlan_that_is_gone_is_no_error() -> None:
    host = FakeHandle(link("vethx", 9))
    host.refusal = lambda message: errno.ENOENT if message == rtnl.del_port_vlan(9, 1) else 0
    PortVlans("vethx", 100, [(5, 7)], drop_default=True).apply(FakeEnds(host))
    assert host.done == [
        rtnl.add_port_vlan(9, 5, vid_end=7),
        rtnl.add_port_vlan(9, 100, pvid=True, untagged=True),
    ]


def test_a_port_leaves_the_default_vlan() -> None:
    host = FakeHandle(link("vethx", 9))
    PortVlans("vethx", 100, [], drop_default=True).apply(FakeEnds(host))
    added = rtnl.add_port_vlan(9, 100, pvid=True, untagged=True)
    assert host.done == [rtnl.del_port_vlan(9, 1), added]


@pytest.mark.parametrize(
    ("state", "is_running", "passes"),
    [
        (BR_STATE_FORWARDING, True, True),
        (BR_STATE_FORWARDING, False, False),  # the bridge has its carrier a moment later
        (BR_STATE_DISABLED, True, False),
        (BR_STATE_LEARNING, False, True),  # the spanning tree makes up its mind
        (None, True, False),
    ],
)
def test_a_port_that_carries(state: int | None, is_running: bool, passes: bool) -> None:  # noqa: FBT001
    port: Any = SimpleNamespace(port=None if state is None else SimpleNamespace(state=state))
    bridge: Any = SimpleNamespace(is_running=is_running)
    assert carries(port, bridge) == passes


RACES: list[tuple[str, dict[int, int], bool]] = [
    ("made", {}, True),
    ("another ADD was faster", {RTM_NEWLINK: errno.EEXIST}, True),
    ("the name is taken and the holder missing", {16: errno.EEXIST, 19: errno.ENODEV}, False),
    ("refused", {RTM_NEWLINK: errno.EOPNOTSUPP}, False),
]


@pytest.mark.parametrize(("refusals", "works"), named(RACES))
def test_the_gateway_of_a_vlan_made_by_two_at_once(
    refusals: dict[int, int], *, works: bool
) -> None:
    host = FakeHandle(link("cni0", 7, "bridge"))
    host.refusal = lambda message: refusals.get(message.type, 0)
    step = AddGatewayVeth("cni0", "cni0.100", "vethy", 1450)
    if works:
        step.apply(FakeEnds(host))
    else:
        with pytest.raises(NetlinkError):
            step.apply(FakeEnds(host))


def test_an_address_in_the_way_that_has_gone_meanwhile_is_no_error() -> None:
    old, new = parse_prefix("10.9.0.1/24"), parse_prefix("10.244.1.1/24")
    host = FakeHandle(link("cni0", 7, "bridge"))
    host.refusal = lambda message: errno.EADDRNOTAVAIL if message == rtnl.del_address(7, old) else 0
    MoveAddress("cni0", new, [old]).apply(FakeEnds(host))
    assert host.done == [rtnl.new_address(7, new, nodad=True, replace=True)]


def test_a_bridge_that_was_made_anew_keeps_its_own_mac() -> None:
    anew = link("cni0", 8, "bridge")
    host = FakeHandle(anew)
    RepairBridge("cni0", up=False, mark="02:00:00:00:00:99").apply(FakeEnds(host))
    assert host.done == [rtnl.set_link(8, mac=anew.mac, alias=BRIDGE_ALIAS)]


def test_a_bridge_that_vanishes_is_told() -> None:
    step = MoveAddress("cni0", parse_prefix("10.244.1.1/24"), [])
    with pytest.raises(CNIError, match="dev cni0: no such device"):
        steps.run([step], FakeEnds())


def test_the_end_of_an_add_empties_the_neighbour_entries_and_undo_forgets_them() -> None:
    host = FakeHandle()
    address = parse_address("10.244.1.2")
    bridge = link("cni0", 7, "bridge")
    step = Finish(IDENTITY.alias(), "vethx", bridge, [address])
    step.apply(FakeEnds(host))
    assert host.done == [
        rtnl.replace_neighbour(7, address, None, state=rtnl.NUD_NONE),
        rtnl.set_link("vethx", alias="flannel:net:c1:eth0"),
    ]
    step.undo(FakeEnds(host))
    assert host.done[2:] == [rtnl.del_neighbour(7, address)]
    host.refusal = lambda _: errno.ENOENT
    step.undo(FakeEnds(host))


def test_a_switch_that_is_missing_matters_only_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, written: list[tuple[str, str]]
) -> None:
    class Nowhere:
        __slots__ = ()
        __enter__ = __exit__ = lambda *_: None

    monkeypatch.setattr(FakeEnds, "entered_pod", lambda _: Nowhere())
    ends = FakeEnds()
    PodSysctls([("net/missing", "1", False), ("net/there", "0", True)]).apply(ends)
    assert written == [("net/missing", "1"), ("net/there", "0")]
    with pytest.raises(CNIError) as caught:
        steps.run([PodSysctls([("net/missing", "1", True)])], ends)
    assert "/proc/sys/net/missing" in caught.value.msg
    assert "ipv6.disable=1" in caught.value.details


def test_a_switch_that_is_not_there_is_named(written: list[tuple[str, str]]) -> None:
    Switch("net/ipv4/ip_forward", "1").apply(FakeEnds())
    assert written == [("net/ipv4/ip_forward", "1")]
    with pytest.raises(CNIError, match="no such switch: '/proc/sys/net/missing'"):
        steps.run([Switch("net/missing", "1")], FakeEnds())
