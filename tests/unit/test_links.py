"""Telling what is provably an attachment's: by name and alias, and what Go's plugin made."""

from __future__ import annotations

from typing import Any

import pytest

from cni import errors
from cni.attachment import Attachment
from cni.errors import CNIError
from cni_flannel.bridge import links
from netlink import rtnl
from tests.unit.fakes import FakeEnds, FakeHandle, link, pair
from tests.unit.test_netconf import named

ME = Attachment("net", "c1", "eth0")
OTHER = Attachment("net", "c2", "eth0")
NAME = ME.host_veth_name()
NEXT = ME.host_veth_name(1)
CNI0 = link("cni0", 7, "bridge")

FIND: list[tuple[str, list[Any], int | None, str]] = [
    ("nothing there", [], None, NAME),
    ("complete", [link(NAME, 9, alias=ME.alias())], 9, NAME),
    ("being added", [link(NAME, 9, alias=ME.alias(adding=True))], 9, NAME),
    ("a stranger's", [link(NAME, 9)], None, NEXT),
    ("another attachment's", [link(NAME, 9, alias=OTHER.alias())], None, NEXT),
    ("behind a stranger's", [link(NAME, 9), link(NEXT, 10, alias=ME.alias())], 10, NEXT),
]


@pytest.mark.parametrize(("there", "index", "name"), named(FIND))
def test_the_host_veth_is_found_by_name_and_alias(
    there: list[rtnl.Link], index: int | None, name: str
) -> None:
    found, bears = links.find(FakeHandle(*there), ME)  # type: ignore[arg-type]
    assert (found and found.index, bears) == (index, name)


def test_too_many_strangers_are_told() -> None:
    strangers = [link(ME.host_veth_name(n), 10 + n) for n in range(16)]
    with pytest.raises(CNIError) as caught:
        links.find(FakeHandle(*strangers), ME)  # type: ignore[arg-type]
    assert caught.value.code == errors.KERNEL_REFUSED


# ---------------------------------------------------------------------------------------- make room


def test_there_is_room_where_nothing_is() -> None:
    assert links.make_room(FakeEnds(FakeHandle(), FakeHandle()), ME) == (NAME, False)


def test_what_a_killed_add_left_is_cleared() -> None:
    host_link, pod_link = pair(NAME, 9, alias=ME.alias(adding=True))
    ends = FakeEnds(FakeHandle(host_link), FakeHandle(pod_link))
    assert links.make_room(ends, ME) == (NAME, True)
    assert ends.host.done == [rtnl.del_link(9)]


def test_what_this_call_has_made_in_another_process_is_cleared() -> None:
    """It bears the MAC that the call brings along."""
    host_link, pod_link = pair(NAME, 9, alias=ME.alias())
    ends = FakeEnds(FakeHandle(host_link), FakeHandle(pod_link))
    assert links.make_room(ends, ME, host_link.mac) == (NAME, True)
    assert ends.host.done == [rtnl.del_link(9)]


Ends = tuple[list[rtnl.Link], list[rtnl.Link]]
TAKEN: list[tuple[str, Ends, str]] = [
    (
        "complete",
        ([pair(NAME, 9, alias=ME.alias())[0]], [pair(NAME, 9)[1]]),
        "is attached to network net already",
    ),
    (
        "complete, the pod's end elsewhere",
        ([link(NAME, 9, alias=ME.alias())], []),
        "is attached to network net already",
    ),
    ("made by Go's plugin", ([link("vethgo", 9)], [pair("vethgo", 9)[1]]), "did not make"),
    ("another plugin's", ([], [link("eth0", 2, "ipvlan")]), "did not make"),
]


@pytest.mark.parametrize(("there", "remedy"), named(TAKEN))
def test_what_is_there_is_not_touched(there: Ends, remedy: str) -> None:
    ends = FakeEnds(FakeHandle(*there[0]), FakeHandle(*there[1]))
    with pytest.raises(CNIError) as caught:
        links.make_room(ends, ME)
    assert caught.value.msg == (
        f'container veth name ("eth0") peer provided ("{NAME}") already exists'
    )
    assert caught.value.code == errors.INVALID_ENVIRONMENT
    assert remedy in caught.value.details
    assert ends.host.done == []


# -------------------------------------------------------------------------- what the Go plugin made


def go(name: str = "veth1a2b3c4d", **host: Any) -> FakeEnds:
    host_link, pod_link = pair(name, 9, **{"master": 7, **host})
    return FakeEnds(FakeHandle(CNI0, host_link), FakeHandle(pod_link))


def pod_dummy() -> FakeEnds:
    return FakeEnds(FakeHandle(CNI0), FakeHandle(link("eth0", 2, "dummy")))


def peer_not_paired() -> FakeEnds:
    ends = go()
    ends.host.get_link(9).link = 3
    return ends


def peer_in_third_namespace() -> FakeEnds:
    """The indexes agree by chance: a pod's eth0 is mostly 2."""
    return go(link_netnsid=99)


REFERENCE: list[tuple[str, FakeEnds, bool]] = [
    ("a port of the bridge", go(), True),
    ("a port under any name", go("mine"), True),
    ("an orphan with Go's kind of name", go(master=0), True),
    ("an orphan with another name", go("mine", master=0), False),
    ("a port of another bridge", go(master=8), False),
    ("another pod's link, by a namespace path used again", go(alias=OTHER.alias()), False),
    ("somebody's link", go(alias="hands off"), False),
    ("ours under a further name", go(alias=ME.alias()), True),
    ("what an ADD has just made", go(master=0, flags=0), False),
    ("no link in the pod", FakeEnds(FakeHandle(CNI0), FakeHandle()), False),
    ("no pod", FakeEnds(FakeHandle(CNI0)), False),
    ("no veth", pod_dummy(), False),
    ("no pair", peer_not_paired(), False),
    ("a pair with a third namespace", peer_in_third_namespace(), False),
]


@pytest.mark.parametrize(("ends", "proven"), named(REFERENCE))
def test_what_go_made_is_proven_by_the_pods_end(ends: FakeEnds, *, proven: bool) -> None:
    found = links.of_reference_plugin(ends, ME, "cni0")
    assert (found is not None) == proven


NAMES = [
    ("veth1a2b3c4d", True),
    ("veth00000000", True),
    ("veth1A2B3C4D", False),
    ("veth1a2b3c4", False),
    ("veth1a2b3c4d5", False),
    ("eth01a2b3c4d", False),
    ("vethghijklmn", False),
]


@pytest.mark.parametrize(("name", "looks"), NAMES)
def test_names_such_as_go_gives(name: str, *, looks: bool) -> None:
    assert links.looks_like_reference_name(name) == looks


# ----------------------------------------------------------------------------- stale ones, siblings


def alias_of(network: str, container_id: str, ifname: str) -> str:
    return Attachment(network, container_id, ifname).alias()


HOST = FakeHandle(
    CNI0,
    link("veth1", 11, alias=alias_of("net", "c1", "eth0")),
    link("veth2", 12, alias=alias_of("net", "c1", "net1")),
    link("veth3", 13, alias=Attachment("net", "c2", "eth0").alias(adding=True)),
    link("veth4", 14, alias=alias_of("other", "c3", "eth0")),
    link("veth5", 15),
    link("veth6", 16, alias="flannel:"),
    link("veth7", 17, alias=Attachment("net", "c5", "eth0").alias(rules=True)),
    link("dummy0", 18, "dummy", alias=alias_of("net", "c4", "eth0")),
)


def test_stale_are_veths_of_the_network_whose_attachment_is_not_listed() -> None:
    found = links.stale(HOST, "net", {("c1", "eth0")})  # type: ignore[arg-type]
    assert [one.name for one in found] == ["veth2", "veth3", "veth7"]


def test_long_names_are_stale_and_siblings_as_short_ones_are() -> None:
    network, container_id = "n" * 200, "c" * 200
    first, second = (Attachment(network, container_id, name) for name in ("eth0", "net1"))
    host: Any = FakeHandle(
        link("veth1", 11, alias=first.alias(rules=True)),
        link("veth2", 12, alias=second.alias(adding=True)),
        link("veth3", 13, alias=alias_of("net", "c1", "eth0")),
    )
    found = links.stale(host, network, {(container_id, "eth0")})
    assert [one.name for one in found] == ["veth2"]
    assert links.stale(host, "n" * 199, set()) == []
    assert links.has_sibling(host, first)
    assert not links.has_sibling(host, Attachment(network, "c" * 199, "eth0"))


SIBLINGS: list[tuple[str, Attachment, bool]] = [
    ("net1", Attachment("net", "c1", "eth0"), True),
    ("eth0", Attachment("net", "c1", "net1"), True),
    ("alone", Attachment("net", "c2", "eth0"), False),
    ("on another network", Attachment("other", "c1", "eth0"), False),
]


@pytest.mark.parametrize(("attachment", "has"), named(SIBLINGS))
def test_siblings_are_on_the_same_network(attachment: Attachment, *, has: bool) -> None:
    assert links.has_sibling(HOST, attachment) == has  # type: ignore[arg-type]
