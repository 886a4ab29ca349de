"""DEL and GC: every part is tried, errors come together, nothing of others is touched."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from cni import errors
from cni.attachment import Attachment
from cni.cidr import parse_address
from cni.errors import CNIError
from cni_flannel.bridge import conf as bridge_conf
from cni_flannel.bridge import links, removal
from cni_flannel.bridge.ends import Ends, refused
from cni_flannel.bridge.removal import Attempts
from cni_flannel.kernel import macspoof, masq
from ipam import verify
from netlink import bulk, rtnl
from netlink.link import RTM_DELLINK
from netlink.nlmsg import NetlinkError
from tests.unit.fakes import FakeEnds, FakeHandle, FakePlugin, args, link, pair
from tests.unit.test_netconf import named

if TYPE_CHECKING:
    from collections.abc import Callable

ME = Attachment("net", "c1", "eth0")
NAME = ME.host_veth_name()
SIBLING = link("veth77777777", 10, alias=Attachment("net", "c1", "net1").alias())
KEY = "cni.dev/valid-attachments"


def fail(error: BaseException) -> None:
    raise error


def neighbour(address: str) -> Any:
    return rtnl.del_neighbour(7, parse_address(address))


def traces(address: str) -> list[Any]:
    """What the host has of an address: on the bridge, and a route if its gateway is elsewhere."""
    return [neighbour(address), links.no_route(parse_address(address))]


# ----------------------------------------------------------------------------------------- Attempts


def test_nothing_that_failed_is_no_error() -> None:
    attempts = Attempts("clean up")
    attempts.run(list, [1])
    attempts.finish()
    assert attempts.clean


def test_a_single_error_comes_back_as_it_is() -> None:
    attempts = Attempts("clean up")
    error = CNIError(5, "disk", "buy one")
    attempts.run(fail, error)
    assert not attempts.clean
    with pytest.raises(CNIError) as caught:
        attempts.finish()
    assert caught.value is error


def test_all_errors_come_together() -> None:
    attempts = Attempts("clean up")
    done: list[int] = []
    attempts.run(fail, CNIError(5, "disk", "buy one"))
    attempts.run(done.append, 1)
    attempts.run(fail, NetlinkError(errno.EBUSY, "in use"))
    with pytest.raises(CNIError) as caught:
        attempts.finish()
    assert done == [1]
    assert caught.value.code == 5
    assert caught.value.msg.startswith("clean up: disk; clean up: ")
    assert "device or resource busy: in use" in caught.value.msg
    assert "buy one" in caught.value.details


def test_a_signal_is_not_collected() -> None:
    with pytest.raises(errors.Interrupted):
        Attempts("clean up").run(fail, errors.Interrupted(15))


RETRYABLE = [NetlinkError(errno.ENOENT), NetlinkError(errno.ENODEV, "Device not found")]


@pytest.mark.parametrize("error", RETRYABLE, ids=repr)
def test_no_error_that_a_retry_cures_sounds_like_success(error: OSError) -> None:
    msg = refused(error).msg
    assert "not found" not in msg
    assert "no such file or directory" not in msg


def test_who_is_not_root_is_told_so() -> None:
    assert "as root" in refused(NetlinkError(errno.EPERM)).details
    assert refused(NetlinkError(errno.EPERM)).code == errors.KERNEL_REFUSED


def test_what_the_kernel_refuses_among_the_ends_becomes_an_error_of_the_protocol() -> None:
    ends = FakeEnds()
    with pytest.raises(CNIError) as caught, ends:
        raise NetlinkError(errno.EINTR, "changed during each of 50 dumps")
    assert caught.value.code == errors.KERNEL_REFUSED
    assert ends.host.closed


# ---------------------------------------------------------------------------------------------- DEL


class Call:
    """One DEL or GC on fake ends, with what was told to the rule writers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends = FakeEnds(FakeHandle(link("cni0", 7, "bridge")))
        self.ipam = FakePlugin()
        self.rules: list[Any] = []
        self.notes: list[str] = []
        self.resident: GivenUp | None = None
        monkeypatch.setattr(Ends, "surviving", lambda _: self.ends)
        monkeypatch.setattr(removal, "Ends", self._ends())
        monkeypatch.setattr(masq, "teardown", lambda *a: self.rules.append(("masq", a[4])))
        monkeypatch.setattr(masq, "collect", lambda *a: self.rules.append(("collect", a[:2])))
        monkeypatch.setattr(macspoof, "teardown", lambda *a: self.rules.append(("mac", a[:2])))

    def _ends(self) -> Any:
        class Opened:
            surviving = staticmethod(lambda _: self.ends)
            __new__ = staticmethod(lambda _: self.ends)  # type: ignore[assignment]

        return Opened

    def attach(self, address: str = "10.1.0.2/24", **host: Any) -> None:
        host_link, pod_link = pair(NAME, 9, **{"alias": ME.alias(), "master": 7, **host})
        self.ends.host.known.append(host_link)
        pod = FakeHandle(pod_link)
        pod.on[2] = [address]
        self.ends = FakeEnds(self.ends.host, pod)

    def delete(self, **conf: Any) -> None:
        shape = {"name": "net", "ipam": {"type": "host-local"}, **conf}
        given = args(shape, self.notes, resident=self.resident)
        removal.remove(given, bridge_conf.RemovalConf(given.conf), self.ipam)

    def collect(self, **conf: Any) -> None:
        given = args({"name": "net", **conf}, self.notes)
        removal.collect(given, bridge_conf.RemovalConf(given.conf), self.ipam)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr(bulk, "free_group", lambda _: 7)
    return Call(monkeypatch)


def test_del_removes_link_neighbour_and_lease(call: Call) -> None:
    call.attach()
    call.delete()
    assert call.ends.host.done == [*traces("10.1.0.2"), rtnl.del_link(9)]
    assert call.ipam.verbs == ["DEL"]
    assert call.rules == []


def test_del_without_pod_finds_the_link_by_name_and_the_address_in_the_result(call: Call) -> None:
    call.ends.host.known.append(link(NAME, 9, alias=ME.alias()))
    call.delete(cniVersion="1.0.0", prevResult={"ips": [{"address": "10.1.0.3/24"}]})
    assert call.ends.host.done == [*traces("10.1.0.3"), rtnl.del_link(9)]


def test_del_of_nothing_works_and_releases_the_lease(call: Call) -> None:
    call.delete()
    assert (call.ends.host.done, call.ipam.verbs) == ([], ["DEL"])


def test_del_goes_on_without_a_result_that_cannot_be_read(call: Call) -> None:
    call.attach()
    call.delete(cniVersion="1.0.0", prevResult={"ips": [{"address": "x"}]})
    assert call.ends.host.done == [*traces("10.1.0.2"), rtnl.del_link(9)]
    assert "cannot be read" in call.notes[0]


def test_del_takes_what_go_made(call: Call) -> None:
    call.attach()
    call.ends.host.get_link(9).name, call.ends.host.get_link(9).alias = "veth1a2b3c4d", ""
    call.delete()
    assert call.ends.host.done == [*traces("10.1.0.2"), rtnl.del_link(9)]


def another_pods_alias(ends: FakeEnds) -> dict[str, Any]:
    ends.host.get_link(9).alias = Attachment("net", "c2", "eth0").alias()
    return {}


def another_pods_address(ends: FakeEnds) -> dict[str, Any]:
    ends.host.get_link(9).alias = ""
    return {"cniVersion": "1.0.0", "prevResult": {"ips": [{"address": "10.1.0.77/24"}]}}


@pytest.mark.parametrize("disguise", [another_pods_alias, another_pods_address])
def test_del_does_not_touch_another_pod_behind_the_same_path(
    call: Call, disguise: Callable[[FakeEnds], dict[str, Any]]
) -> None:
    call.attach()
    call.ends.host.get_link(9).name = "veth1a2b3c4d"
    call.delete(**disguise(call.ends))
    assert RTM_DELLINK not in [message.type for message in call.ends.host.done]
    assert neighbour("10.1.0.2") not in call.ends.host.done
    assert call.ipam.verbs == ["DEL"]


def test_a_link_that_stays_keeps_its_address(call: Call) -> None:
    call.attach()
    call.ends.host.refusal = lambda m: errno.EBUSY if m.type == RTM_DELLINK else 0
    with pytest.raises(CNIError, match=r"detach flannel:net:c1:eth0: .*device or resource busy"):
        call.delete(ipMasq=True, macspoofchk=True)
    assert call.ipam.verbs == []
    assert [what for what, _ in call.rules] == ["masq", "mac"]


def test_a_lease_that_cannot_be_released_stops_no_other_part(call: Call) -> None:
    call.attach()
    call.ipam = FakePlugin(DEL=CNIError(11, "locked"))
    with pytest.raises(CNIError) as caught:
        call.delete(ipMasq=True)
    assert (caught.value.code, caught.value.msg) == (11, "locked")
    assert call.ends.host.done[-1] == rtnl.del_link(9)
    assert [what for what, _ in call.rules] == ["masq", "mac"]


def test_the_chain_of_a_container_goes_with_its_last_interface(call: Call) -> None:
    call.attach()
    call.delete(ipMasq=True)
    assert call.rules[0] == ("masq", None)


def test_the_chain_that_a_sibling_uses_stays(call: Call) -> None:
    call.ends.host.known.append(SIBLING)
    call.attach()
    call.delete(ipMasq=True)
    (_, known), _ = call.rules
    assert [str(prefix) for prefix in known] == ["10.1.0.2/24"]


def test_a_siblings_rules_are_left_alone_even_if_the_address_is_unknown(call: Call) -> None:
    call.ends.host.known.append(SIBLING)
    call.delete(ipMasq=True)
    assert call.rules[0] == ("masq", [])


@pytest.mark.parametrize(
    ("alias", "looks"),
    [
        (ME.alias(), False),
        (ME.alias(rules=True), True),
        (ME.alias(adding=True), True),
        ("", True),
        (None, True),
    ],
    ids=["without", "with rules", "half made", "made by Go", "link gone"],
)
def test_rules_are_looked_for_where_there_may_be_some(
    call: Call, alias: str | None, *, looks: bool
) -> None:
    """Whatever the conf says now; and nothing is asked where it is known that there are none."""
    if alias is not None:
        call.attach()
        call.ends.host.get_link(9).alias = alias
    call.delete(ipMasq=False)
    assert [what for what, _ in call.rules] == (["masq", "mac"] if looks else [])


def test_a_link_that_stays_is_no_reason_to_leave_the_rules(call: Call) -> None:
    call.attach()
    call.ends.host.refusal = lambda _: errno.EPERM
    with pytest.raises(CNIError):
        call.delete()
    assert [what for what, _ in call.rules] == ["masq", "mac"]


# ----------------------------------------------------------------------------------------------- GC


def fill(call: Call) -> None:
    for index, container_id in enumerate(("c1", "c2", "c3"), 20):
        alias = Attachment("net", container_id, "eth0").alias()
        call.ends.host.known.append(link(f"veth{index}", index, alias=alias))


def test_gc_removes_what_is_not_listed_and_asks_ipam(call: Call) -> None:
    fill(call)
    call.collect(**{KEY: [{"containerID": "c2", "ifname": "eth0"}]})
    assert call.ends.host.done == [
        *(rtnl.set_link(n, group=7) for n in (20, 22)),
        rtnl.del_group(7),
    ]
    assert call.ipam.verbs == ["GC"]
    assert call.rules == [
        ("mac", ("c1", "eth0")),
        ("mac", ("c3", "eth0")),
        ("collect", ("net", {("c2", "eth0")})),
    ]
    assert call.notes == [
        "GC removes veth20 of flannel:net:c1:eth0",
        "GC removes veth22 of flannel:net:c3:eth0",
    ]


def test_gc_without_a_list_only_asks_ipam(call: Call) -> None:
    fill(call)
    call.collect()
    assert (call.ends.host.done, call.rules, call.ipam.verbs) == ([], [], ["GC"])


def test_gc_goes_on_after_errors(call: Call) -> None:
    fill(call)
    refused = (rtnl.del_group(7), rtnl.del_link(20))
    call.ends.host.refusal = lambda message: errno.EBUSY if message in refused else 0
    call.ipam = FakePlugin(GC=CNIError(5, "disk"))
    with pytest.raises(CNIError) as caught:
        call.collect(**{KEY: []})
    assert call.ends.host.done[-2:] == [rtnl.del_link(21), rtnl.del_link(22)]
    assert ("mac", ("c1", "eth0")) not in call.rules
    assert "device or resource busy" in caught.value.msg
    assert "disk" in caught.value.msg


LISTS: list[tuple[str, Any, Any]] = [
    ("absent", None, None),
    ("empty", [], set()),
    ("two", [{"containerID": "a", "ifname": "e"}], {("a", "e")}),
    ("any case", [{"ContainerID": "a", "IfName": "e", "more": 1}], {("a", "e")}),
]


@pytest.mark.parametrize(("listed", "valid"), named(LISTS))
def test_the_list_of_valid_attachments(listed: Any, valid: Any) -> None:
    assert verify.valid_attachments({KEY: listed}) == valid


@pytest.mark.parametrize(
    "wrong", ["x", 5, [5], [{}], [{"containerID": "a", "ifname": None}]], ids=repr
)
def test_a_wrong_list_is_refused(wrong: object) -> None:
    with pytest.raises(CNIError) as caught:
        verify.valid_attachments({KEY: wrong})
    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    assert "nothing was removed" in caught.value.details


class GivenUp:
    """A caller of a resident process who waits for so many questions, then no more."""

    netns_file = ""
    connection = -1
    limit_s = 1.0

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def require_caller(self) -> None:
        self.patience -= 1
        if self.patience < 0:
            raise CNIError(errors.TRY_AGAIN_LATER, "given up")

    def confirm_caller(self) -> None:
        raise NotImplementedError

    def step_aside(self) -> None:
        raise NotImplementedError

    def delete_link(self, index: int, removals: Any) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(("patience", "links_gone"), [(0, []), (1, [rtnl.del_link(9)])])
def test_a_lease_may_be_anothers_when_the_caller_has_given_up(
    call: Call, patience: int, links_gone: list[Any]
) -> None:
    call.attach()
    call.resident = GivenUp(patience)
    with pytest.raises(CNIError) as caught:
        call.delete(ipMasq=True, macspoofchk=True)
    assert caught.value.code == errors.TRY_AGAIN_LATER
    assert call.ends.host.done[-1:] == links_gone
    assert (call.ipam.verbs, call.rules) == ([], [])
