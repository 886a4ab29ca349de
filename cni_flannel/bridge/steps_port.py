"""Steps on the bridge's port of one attachment: its VLANs, its MAC, and that it forwards.

Imports: errno, ``netlink``, the protocol package.
"""

from __future__ import annotations

import errno

from cni import errors
from cni.errors import CNIError
from cni_flannel.bridge.steps import VLAN_FILTERING, Step
from netlink import link, rtnl
from netlink.nlmsg import NetlinkError

PORT_TIMEOUT_S = 5.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_flannel.bridge.ends import Ends
    from netlink.link import Link


class PortVlans(Step):
    """Say which VLANs the port carries: one untagged, any number tagged."""

    __slots__ = ("drop_default", "name", "tagged", "untagged")
    remedy = VLAN_FILTERING

    def __init__(
        self, name: str, untagged: int, tagged: Sequence[tuple[int, int]], *, drop_default: bool
    ) -> None:
        self.name = name
        self.untagged = untagged
        self.tagged = list(tagged)
        self.drop_default = drop_default

    def describe(self) -> list[str]:
        gone = [f"bridge vlan del dev {self.name} vid 1"] if self.drop_default else []
        own = [f"bridge vlan add dev {self.name} vid {self.untagged} pvid untagged"]
        more = [
            f"bridge vlan add dev {self.name} vid {first}-{last}" for first, last in self.tagged
        ]
        return [*gone, *own, *more]

    def apply(self, ends: Ends) -> None:
        index = ends.host_index(self.name)
        if self.drop_default:
            ends.drop(rtnl.del_port_vlan(index, 1))
        ends.host.execute(
            *(rtnl.add_port_vlan(index, first, vid_end=last) for first, last in self.tagged),
            rtnl.add_port_vlan(index, self.untagged, pvid=True, untagged=True),
        )


class RequireFreeMAC(Step):
    """See that nothing on the bridge has the MAC that somebody asked for.

    The bridge delivers to one port alone what is for a MAC.  Comes after the pair is made: of two
    ADDs at once with one MAC, the second sees the first.
    """

    __slots__ = ("bridge", "mac", "name")

    def __init__(self, name: str, bridge: Link, mac: str) -> None:
        self.name = name
        self.bridge = bridge
        self.mac = mac

    def describe(self) -> list[str]:
        return [f"bridge link show master {self.bridge.name}  # no other pod has {self.mac}"]

    def apply(self, ends: Ends) -> None:
        for there in [self.bridge, *ends.host.links(master=self.bridge.index)]:
            peer = None
            if there.name != self.name and there.link_netnsid is not None:
                peer = ends.host.get_link(there.link, there.link_netnsid)
            if self.mac in (there.mac, "" if peer is None else peer.mac):
                whose = f" ({there.alias})" if there.alias else ""
                raise CNIError(
                    errors.ADDRESS_TAKEN,
                    f"requested MAC address {self.mac} is not available on {self.bridge.name}: "
                    f"{there.name} has it{whose}",
                    "request another one, or delete the pod that has it",
                )


class AwaitPort(Step):
    """Wait until the port forwards, so that the pod's first packet passes.

    When both ends are up the kernel hands the carrier to the bridge in a worker of its own
    (net/core/link_watch.c), which a busy node keeps waiting.  Since Linux 6.8 asking for a link
    does that work first (``rtnl_getlink``), so that one look is enough.  The bridge is looked at
    too, if it had no port before: its carrier comes with the first.
    """

    __slots__ = ("bridge", "name")
    remedy = "see whether somebody takes the bridge or its port down: ip monitor link"

    def __init__(self, name: str, bridge: Link) -> None:
        self.name = name
        self.bridge = bridge

    def describe(self) -> list[str]:
        return [f"ip monitor link dev {self.name}  # until it forwards"]

    def apply(self, ends: Ends) -> None:
        if self._is_ready(ends):
            return
        events = ends.host_link_events()
        try:
            came = events.until(lambda: self._is_ready(ends), PORT_TIMEOUT_S)
        finally:
            events.close()
        if not came:
            raise NetlinkError(
                errno.ETIMEDOUT,
                f"port {self.name} of {self.bridge.name} does not forward after "
                f"{PORT_TIMEOUT_S:.0f} seconds",
            )

    def _is_ready(self, ends: Ends) -> bool:
        asked = [rtnl.get_link(self.name)]
        if not self.bridge.is_running:
            asked.append(rtnl.get_link(self.bridge.index))
        answers = [answer for answer in ends.host.execute(*asked) if answer is not None]
        port, *bridge = map(rtnl.Link.decode, answers)
        return carries(port, *(bridge or [self.bridge]))


def carries(port: Link, bridge: Link) -> bool:
    """Whether frames pass, or will when the spanning tree of the bridge has made up its mind."""
    if port.port is None or port.port.state == link.BR_STATE_DISABLED:
        return False
    return port.port.state != link.BR_STATE_FORWARDING or bridge.is_running
