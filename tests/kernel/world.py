"""A namespace with a bridge and a pod joined to it, for the tests of the netlink handle."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from netlink import rtnl
from netlink.handle import Handle
from tests.kernel.attaching import eventually
from tests.kernel.privatens import inside, new_pod, sh

if TYPE_CHECKING:
    from netlink.nlmsg import Message

MAC, HOST_MAC, POD_MAC = "0e:00:00:00:00:01", "0e:00:00:00:00:02", "0e:00:00:00:00:03"


class World:
    """A namespace with a bridge, and a pod whose eth0 is joined to it."""

    def __init__(self, **veth: Any) -> None:
        self.pod = new_pod()
        self.pod_fd = os.open(f"/proc/{self.pod}/ns/net", os.O_RDONLY)
        self.host = Handle()
        self.inside = Handle(self.pod_fd)
        replies = self.host.execute(
            rtnl.new_bridge("cni0", mac=MAC, mtu=1450), rtnl.get_link("cni0")
        )
        self.bridge = link_of(replies[1])
        self.host.execute(self.new_veth("veth1", **veth))
        self.veth, self.eth0 = self.found("veth1"), self.found_inside("eth0")

    def settle(self) -> None:
        """Give the bridge its carrier, and wait until the kernel has told everybody.

        Without one, the kernel empties the bridge's neighbour table, up to a second later.
        """
        self.inside.execute(rtnl.set_link(self.eth0.index, up=True))
        eventually(lambda: ip("link show cni0")[0]["operstate"] == "UP", "the bridge is up")

    def new_veth(self, name: str, **other: Any) -> Message:
        """Write the request for a pair with the pod; ``other`` replaces arguments."""
        wanted: dict[str, Any] = {
            "mac": HOST_MAC,
            "mtu": 1450,
            "master": self.bridge.index,
            "peer_name": "eth0",
            "peer_mac": POD_MAC,
            "peer_netns_fd": self.pod_fd,
        }
        return rtnl.new_veth(name, **(wanted | other))

    def found(self, name: str) -> rtnl.Link:
        """Read a link that must be there."""
        link = self.host.get_link(name)
        assert link is not None
        return link

    def found_inside(self, name: str) -> rtnl.Link:
        """Read a link of the pod that must be there."""
        link = self.inside.get_link(name)
        assert link is not None
        return link

    def ip_inside(self, args: str) -> Any:
        """Return what ip(8) says in the pod."""
        return inside(self.pod, lambda: ip(args))


def link_of(reply: Message | None) -> rtnl.Link:
    """Decode the answer of a request for a link."""
    assert reply is not None
    return rtnl.Link.decode(reply)


def ip(args: str) -> Any:
    """Return the JSON that the command prints, without empty entries."""
    return [entry for entry in json.loads(sh(f"ip -d -j {args}") or "[]") if entry]
