"""Batches of requests: refusals in the middle, many at once, and a killed sender."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from cni.cidr import parse_prefix
from netlink import rtnl
from netlink.handle import BATCH, Handle
from netlink.nlmsg import NetlinkError
from tests.kernel.privatens import needs_root, new_pod, private, sh
from tests.kernel.world import MAC, World, link_of

pytestmark = [pytest.mark.kernel, needs_root]


@private
def test_a_batch_goes_on_after_a_refusal_and_tells_all_of_them() -> None:
    world = World()
    with pytest.raises(NetlinkError) as caught:
        world.host.execute(
            rtnl.set_link("veth1", mtu=1400),
            rtnl.set_link("nope", mtu=1400),
            rtnl.set_link("veth1", alias="after"),
            rtnl.new_bridge("cni0", mac=MAC),
        )
    refusal = caught.value
    assert (refusal.errno, refusal.position) == (errno.ENODEV, 1)
    assert [(other.errno, other.position) for other in refusal.also] == [(errno.EEXIST, 3)]
    veth = world.found("veth1")
    assert (veth.mtu, veth.alias) == (1400, "after")


@private
def test_the_kernel_explains_itself() -> None:
    with Handle() as handle:
        with pytest.raises(NetlinkError) as caught:
            handle.execute(rtnl.new_address(999, parse_prefix("10.0.0.1/24")))
        assert caught.value.text
        assert str(caught.value) == f"no such device: {caught.value.text}"


@private
def test_more_requests_than_the_receive_buffer_would_hold() -> None:
    with Handle() as handle:
        handle.execute(rtnl.set_link("lo", up=True))
        count = 3 * BATCH + 7
        prefixes = [parse_prefix(f"10.{n >> 8}.{n & 255}.1/32") for n in range(count)]
        assert handle.execute(*(rtnl.new_address(1, p) for p in prefixes)) == [None] * count
        assert len(handle.addresses(1, 4)) == count + 1
        with pytest.raises(NetlinkError) as caught:
            handle.execute(*(rtnl.new_address(1, p) for p in prefixes))
        assert (caught.value.position, len(caught.value.also)) == (0, count - 1)
        assert [other.position for other in caught.value.also] == list(range(1, count))
        assert handle.execute() == []


@private
def test_a_full_batch_of_answers() -> None:
    with Handle() as handle:
        answers = handle.execute(*[rtnl.get_link("lo")] * BATCH)
        assert [link_of(answer).name for answer in answers] == ["lo"] * BATCH


@private
def test_a_batch_is_never_split_by_sigkill() -> None:
    """A killed process leaves pairs with their alias and port flags, or no pair."""
    pod = os.open(f"/proc/{new_pod()}/ns/net", os.O_RDONLY)
    with Handle() as handle:
        handle.execute(rtnl.new_bridge("cni0", mac=MAC), rtnl.set_link("lo", up=True))
        bridge = handle.get_link("cni0")
        assert bridge is not None
        made = 0
        for round_ in range(40):
            pid = os.fork()
            if pid == 0:
                _attach_for_ever(bridge.index, pod, round_)
            time.sleep(0.002 + 0.0007 * round_)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            ports = handle.links(master=bridge.index)
            made += len(ports)
            for link in ports:
                assert link.alias == f"of {link.name}"
                assert link.port is not None
                assert link.port.hairpin
            # deleted as a group they cost the kernel one grace period, not one each
            handle.execute(*(rtnl.set_link(link.index, group=99) for link in ports))
            sh("ip link delete group 99 || true")
        assert made


def _attach_for_ever(bridge: int, pod: int, round_: int) -> None:
    try:
        with Handle() as handle:
            for n in range(1000):
                name = f"v{round_}.{n}"
                handle.execute(
                    rtnl.new_veth(
                        name,
                        mac=f"0e:00:00:00:{n >> 8:02x}:{n & 255:02x}",
                        master=bridge,
                        peer_name=f"p{round_}.{n}",
                        peer_mac=f"0e:00:00:01:{n >> 8:02x}:{n & 255:02x}",
                        peer_netns_fd=pod,
                    ),
                    rtnl.set_link(name, alias=f"of {name}"),
                    rtnl.set_port(name, hairpin=True),
                )
    finally:
        os._exit(1)
