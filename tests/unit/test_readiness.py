"""STATUS of the bridge: code 50 with the reason, or silence."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from cni import errors
from cni.attachment import BRIDGE_ALIAS
from cni.errors import CNIError
from cni_flannel.bridge import conf as bridge_conf
from cni_flannel.bridge import readiness
from cni_flannel.bridge.readiness import unavailable
from netlink import sysctl
from netlink.nlmsg import NetlinkError
from tests.unit.fakes import FakeEnds, FakeHandle, FakePlugin, args, link
from tests.unit.test_netconf import named

CNI0 = link("cni0", 7, "bridge", alias=BRIDGE_ALIAS)
PORT = link("vethx", 9, master=7)
RANGE = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}


class Status:
    """STATUS on a fake host whose bridge has the given addresses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ipam = FakePlugin()
        self.ends = FakeEnds()
        monkeypatch.setattr(readiness, "Ends", lambda: self.ends)
        monkeypatch.setattr(sysctl, "read", lambda _: "1")

    def require(self, links: list[Any], addresses: list[str], **conf: Any) -> None:
        self.ends = FakeEnds(FakeHandle(*links))
        self.ends.host.on[7] = addresses
        given = args({"name": "net", "isGateway": True, **conf})
        readiness.require(given, bridge_conf.parse(given), self.ipam)


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch) -> Status:
    return Status(monkeypatch)


READY: list[tuple[str, list[Any], list[str], dict[str, Any]]] = [
    ("no bridge yet", [], [], {"ipam": RANGE}),
    ("the bridge as it should be", [CNI0, PORT], ["10.1.0.1/24"], {"ipam": RANGE}),
    ("to be re-addressed by the next ADD", [CNI0], ["10.9.0.1/24"], {"ipam": RANGE}),
    ("no gateway", [CNI0, PORT], ["10.9.0.1/24"], {"ipam": RANGE, "isGateway": False}),
    (
        "ranges that host-local will complain of",
        [CNI0, PORT],
        ["10.9.0.1/24"],
        {"ipam": {"ranges": [5, [5]]}},
    ),
]


@pytest.mark.parametrize(("links", "addresses", "conf"), named(READY))
def test_ready(
    status: Status, links: list[Any], addresses: list[str], conf: dict[str, Any]
) -> None:
    status.require(links, addresses, **conf)
    assert status.ipam.verbs == ["STATUS"]
    assert status.ends.host.done == []


OLD = ["10.9.0.1/24"]
UNREADY: list[tuple[str, list[Any], list[str], dict[str, Any], str]] = [
    ("another subnet in use", [CNI0, PORT], OLD, RANGE, "different from 10.1.0.1/24"),
    (
        "the legacy form",
        [CNI0, PORT],
        OLD,
        {"type": "host-local", "subnet": "10.1.0.0/24"},
        "different from 10.1.0.1/24",
    ),
    (
        "a gateway of one's own, in any case",
        [CNI0, PORT],
        OLD,
        {"type": "host-local", "Ranges": [[{"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.9"}]]},
        "different from 10.1.0.9/24",
    ),
    ("no bridge", [link("cni0", 7, "dummy")], [], RANGE, "is not a bridge"),
]


@pytest.mark.parametrize(("links", "addresses", "ipam", "message"), named(UNREADY))
def test_not_ready(
    status: Status, links: list[Any], addresses: list[str], ipam: dict[str, Any], message: str
) -> None:
    with pytest.raises(CNIError) as caught:
        status.require(links, addresses, ipam=ipam)
    assert caught.value.code == errors.PLUGIN_NOT_AVAILABLE
    assert message in caught.value.msg
    assert caught.value.details
    assert status.ipam.calls == []


def test_what_ipam_says_passes_through(status: Status) -> None:
    failure = CNIError(50, "no address is left", "delete pods")
    status.ipam = FakePlugin(STATUS=failure)
    with pytest.raises(CNIError) as caught:
        status.require([], [], ipam=RANGE)
    assert caught.value is failure


def test_a_kernel_that_refuses_is_no_bug_of_ours(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise NetlinkError(errno.EPERM)

    monkeypatch.setattr(FakeHandle, "get_link", refuse)
    with pytest.raises(CNIError) as caught:
        status.require([], [], ipam=RANGE)
    assert caught.value.code == errors.KERNEL_REFUSED


@pytest.mark.parametrize(("code", "told"), [(11, 50), (7, 50), (104, 50), (50, 50), (51, 51)])
def test_status_knows_two_codes(code: int, told: int) -> None:
    found = unavailable(CNIError(code, "msg", "details"))
    assert (found.code, found.msg, found.details) == (told, "msg", "details")
